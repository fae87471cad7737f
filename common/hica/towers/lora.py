"""LoRA: a frozen layer plus a trained product of two thin matrices, W + (α / r)·B·A.

Hu et al., 2021 (arXiv 2106.09685). Written here because peft's hooks never fire on
`nn.MultiheadAttention`; with attention split these are plain layers, exact under Opacus.
"""

import torch
from torch import Tensor, nn

from hica.errors import ConfigurationError
from hica.towers.base import ImageTower
from hica.towers.weights import draw_weights


class LoRA(nn.Module):
    """base(x) + (α / r)·B(A(x)): A maps to r channels, B back; B starts at zero.

    `base` is a Linear layer, or a 1×1 convolution, and then A and B are 1×1 convolutions too.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_a: nn.Module
        self.lora_b: nn.Module
        if isinstance(base, nn.Linear):
            self.lora_a = nn.Linear(base.in_features, rank, bias=False)
            self.lora_b = nn.Linear(rank, base.out_features, bias=False)
        else:
            stride = base.stride[0], base.stride[-1]
            self.lora_a = nn.Conv2d(base.in_channels, rank, 1, stride, bias=False)
            self.lora_b = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """What `base` takes to what `base` returns."""
        result: Tensor = self.base(inputs) + self.scale * self.lora_b(self.lora_a(inputs))
        return result


def add_lora(tower: ImageTower, rank: int, alpha: float, seed: int) -> None:
    """Put LoRA on every Linear layer of attention or, without attention, on every 1×1 convolution.

    Changes the tower in place and freezes all other weights; its output stays the same until it is
    trained. Attention is expected split (`towers.attention.split_attention`). The factors A are
    drawn from `seed`.

    Raises:
        ConfigurationError: The tower has neither.
    """
    places = _attention_layers(tower) or _pointwise_convolutions(tower)
    if not places:
        raise ConfigurationError(
            f'model.train = "lora": {tower.name} has neither attention nor 1×1 convolutions; '
            "use adapter, last-N or full"
        )
    tower.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        for index, (parent, name, layer) in enumerate(places):
            lora = LoRA(layer, rank, alpha)
            draw_weights(lora.lora_a, seed + index)
            setattr(parent, name, lora.to(layer.weight.device, layer.weight.dtype))


Place = tuple[nn.Module, str, nn.Linear | nn.Conv2d]


def _attention_layers(tower: nn.Module) -> list[Place]:
    """Linear layers directly inside an attention: a module that knows its number of heads.

    Left out is one whose weight the attention takes out of it: EVA's and BEiT's, to which a bias of
    queries alone is added.
    """
    return [
        (module, name, child)
        for module in tower.modules()
        if hasattr(module, "num_heads")
        for name, child in module.named_children()
        if isinstance(child, nn.Linear)
        and not (name == "qkv" and getattr(module, "q_bias", None) is not None)
    ]


def _pointwise_convolutions(tower: nn.Module) -> list[Place]:
    return [
        (module, name, child)
        for module in tower.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and child.groups == 1
    ]
