"""open_clip_vision: an image tower as open_clip's, centre and gain of its features in its weights.

The last layer of a tower is linear, f = P·x + b. Then (f - c)·g = diag(g)·P·x + (b - c)·g is a
linear layer, too. A ViT's projection has no b; the shift β of the norm before it serves, made
β - c·P⁺: c, a mean of features, is one that P can give.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hica.export.classifier import Classifier, NotPossibleError
from hica.towers.base import ImageTower

STEEP = 1e-6
"""Share of the centre that a norm's shift may fail to give."""


@dataclass(frozen=True)
class Vision:
    """An image tower of open_clip.

    Attributes:
        config: Its `vision_cfg`.
        quick_gelu: OpenAI's activation.
        state: Its weights, by open_clip's names.
    """

    config: dict[str, Any]
    quick_gelu: bool
    state: dict[str, Tensor]


@torch.no_grad()
def vision_of(classifier: Classifier) -> Vision:
    """The tower of a classifier as open_clip's.

    Raises:
        NotPossibleError: open_clip has no such tower, or something comes after it.
    """
    from hica.towers.openclip_towers import OpenCLIPImageTower, OpenCLIPResNetTower
    from hica.towers.timm_tower import TimmTower

    tower = classifier.tower
    if classifier.adapter is not None:
        raise NotPossibleError(
            'model.train = "adapter": the layer after the tower has no place in open_clip'
        )
    if classifier.unit_features and classifier.centre.any():
        raise NotPossibleError(
            "a private study brings features to unit length before it centres them, and open_clip "
            "does that at the end alone"
        )
    if isinstance(tower, TimmTower):
        return _timm(tower, classifier)
    if isinstance(tower, OpenCLIPImageTower):
        return _vit(tower, classifier)
    if isinstance(tower, OpenCLIPResNetTower):
        return _resnet(tower, classifier)
    raise NotPossibleError(f"open_clip has no image tower like {tower.name} ({_kind(tower)})")


def _kind(tower: ImageTower) -> str:
    return {
        "LayeredTower": "with model.layers, several layers beside each other",
        "TinyImageTower": "HiCA's own small network",
        "HuggingFaceImageTower": "transformers' own code",
    }.get(type(tower).__name__, type(tower).__name__)


def _placed(classifier: Classifier, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight [D, W] and bias [D] of a linear layer, with centre and gain put into them."""
    centre, gain = classifier.centre.double(), classifier.gain.double()
    shift = (0.0 if bias is None else bias.double()) - centre
    return (gain[:, None] * weight.double()).float(), (shift * gain).float()


def _timm(tower: Any, classifier: Classifier) -> Vision:
    """A model of timm, by itself or in a pair of open_clip, with a linear layer after it."""
    if tower.pad_type and not tower.built_from.get("architecture", "").startswith("tf_"):
        raise NotPossibleError(
            f'model.pad_type = "{tower.pad_type}": open_clip builds a model of timm with the '
            "padding that its name stands for"
        )
    state = {f"trunk.{name}": value for name, value in tower.trunk.state_dict().items()}
    if isinstance(tower.projection, nn.Identity):
        weight, bias = torch.eye(tower.dim), None
    else:
        layers = [layer for layer in tower.projection.modules() if isinstance(layer, nn.Linear)]
        if len(layers) > 1:
            raise NotPossibleError("its projection has two layers, of which the first has no bias")
        weight = layers[0].weight if layers else torch.eye(tower.dim)
        bias = layers[0].bias if layers else None
    state["head.proj.weight"], state["head.proj.bias"] = _placed(classifier, weight, bias)
    of_pair = tower.built_from.get("vision_cfg", {})
    config = {
        "timm_model_name": of_pair.get("timm_model_name") or tower.built_from["architecture"],
        "timm_model_pretrained": False,
        "timm_pool": of_pair.get("timm_pool", "avg") if of_pair else "",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": tower.preprocess.size,
    }
    return Vision(config, False, state)


def _vit(tower: Any, classifier: Classifier) -> Vision:
    """open_clip's own ViT."""
    state = dict(tower.visual.state_dict())
    projection = tower.projection.weight.double().T  # [width, D]
    centre, gain = classifier.centre.double(), classifier.gain.double()
    shift = centre @ torch.linalg.pinv(projection)
    if (shift @ projection - centre).norm() > STEEP * centre.norm():
        raise NotPossibleError("the norm before its projection cannot carry the centre of features")
    state["ln_post.bias"] = (state["ln_post.bias"].double() - shift).float()
    state["proj"] = (projection * gain).float()
    return Vision(_config(tower), bool(tower.built_from.get("quick_gelu")), state)


def _resnet(tower: Any, classifier: Classifier) -> Vision:
    """CLIP's own ResNet."""
    state = dict(tower.visual.state_dict())
    pool = tower.pool
    state["attnpool.positional_embedding"] = pool.positions
    for name, layer in (("q_proj", pool.q), ("k_proj", pool.k), ("v_proj", pool.v)):
        state[f"attnpool.{name}.weight"] = layer.weight
        state[f"attnpool.{name}.bias"] = layer.bias
    weight, bias = _placed(classifier, pool.out.weight, pool.out.bias)
    state["attnpool.c_proj.weight"], state["attnpool.c_proj.bias"] = weight, bias
    return Vision(_config(tower), bool(tower.built_from.get("quick_gelu")), state)


def _config(tower: Any) -> dict[str, Any]:
    """`vision_cfg` at the size of images that the study has, with the queries that are used."""
    pool = getattr(tower.visual, "attn_pool", None)
    queries = {} if pool is None else {"attn_pooler_queries": len(pool.query)}
    return {**tower.built_from["vision_cfg"], "image_size": tower.preprocess.size, **queries}
