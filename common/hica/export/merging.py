"""merging: a tower in its library's layers again: no low-rank factors, attention whole."""

import torch
from torch import Tensor, nn

from hica.towers.attention import SplitAttention
from hica.towers.base import ImageTower
from hica.towers.lora import LoRA


@torch.no_grad()
def merge(tower: ImageTower) -> None:
    """Put low-rank factors into the weights they stand beside, and split attention together.

    Changes the tower; what it computes stays the same up to rounding.
    """
    for parent in list(tower.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRA):
                setattr(parent, name, _merged(child))
    for parent in list(tower.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SplitAttention):
                setattr(parent, name, _joined(child))


def _merged(lora: LoRA) -> nn.Module:
    """W + (α / r)·B·A in the place of both."""
    a, b = (_matrix(layer.weight) for layer in (lora.lora_a, lora.lora_b))
    change = lora.scale * (b.double() @ a.double())
    weight = lora.base.weight
    weight.copy_((weight.double() + change.view_as(weight)).to(weight.dtype))
    return lora.base


def _matrix(weight: object) -> Tensor:
    """[out, in] of a linear layer or a 1×1 convolution."""
    assert isinstance(weight, Tensor)
    return weight.flatten(1)


def _joined(split: SplitAttention) -> nn.MultiheadAttention:
    """The inverse of `hica.towers.attention.SplitAttention`."""
    parts = split.q, split.k, split.v
    width = split.q.in_features
    attention = nn.MultiheadAttention(
        width,
        split.num_heads,
        dropout=split.dropout,
        bias=split.q.bias is not None,
        kdim=split.k.in_features,
        vdim=split.v.in_features,
        batch_first=split.batch_first,
    )
    if attention.in_proj_weight is not None:
        attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    else:
        named = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        for weight, part in zip(named, parts, strict=True):
            weight.copy_(part.weight)
    if attention.in_proj_bias is not None:
        attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        attention.out_proj.bias.copy_(split.out.bias)
    attention.out_proj.weight.copy_(split.out.weight)
    return attention.eval().requires_grad_(False)
