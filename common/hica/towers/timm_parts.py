"""timm_parts: a timm model taken apart into stem, blocks and head; one case a family.

Models that are not known here are one block: `adapter` and `full` work with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.fastvit import FastVit
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class Parts:
    """A timm model taken apart: its features are tail(blocks(stem(images)))."""

    stem: Callable[[Tensor], Tensor]
    blocks: list[nn.Module]
    tail: list[nn.Module]
    head: list[nn.Module]
    """What `trunk.forward_head` makes embeddings with."""


def take_apart(trunk: Any) -> Parts:
    """The parts of a timm model; a new family is one more case here."""
    last = trunk.get_classifier()  # the identity, but in some contrastive pairs
    heads: list[nn.Module] = list(last) if isinstance(last, tuple) else [last]  # DeiT has two
    if isinstance(trunk, EfficientNet):
        return Parts(
            nn.Sequential(trunk.conv_stem, trunk.bn1),
            list(trunk.blocks),
            [trunk.conv_head, trunk.bn2],
            heads,
        )
    if isinstance(trunk, MobileNetV3):  # its last convolution comes after pooling
        return Parts(
            nn.Sequential(trunk.conv_stem, trunk.bn1),
            list(trunk.blocks),
            [],
            [trunk.conv_head, trunk.norm_head, *heads],
        )
    if isinstance(trunk, ResNet):
        stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool)
        stages: list[Any] = [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
        return Parts(stem, stages, [], heads)
    if isinstance(trunk, ConvNeXt):
        return Parts(trunk.stem, list(trunk.stages), [trunk.norm_pre], [trunk.head])
    if isinstance(trunk, FastVit):
        return Parts(trunk.stem, list(trunk.stages), [trunk.final_conv], [trunk.head])
    if isinstance(trunk, VisionTransformer | Eva):
        pool = [] if trunk.attn_pool is None else [trunk.attn_pool]
        head = [*pool, trunk.fc_norm, *heads]
        if isinstance(trunk, Eva):
            return Parts(partial(_embed_eva, trunk), _turned(trunk), [trunk.norm], head)
        return Parts(partial(_embed, trunk), list(trunk.blocks), [trunk.norm], head)
    return Parts(nn.Identity(), [_Features(trunk)], [], heads)


def _embed_eva(trunk: Any, images: Tensor) -> Tensor:
    """An EVA's tokens before its first layer."""
    tokens: Tensor = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images))[0])
    return tokens


def _turned(trunk: Any) -> list[nn.Module]:
    """An EVA's layers, each with the rotation by which it tells positions apart."""
    if trunk.rope is None:
        return list(trunk.blocks)
    has_shape = hasattr(trunk.rope, "feat_shape")
    shape = {} if has_shape else {"shape": trunk.patch_embed.grid_size}
    rotation = trunk.rope.get_embed(**shape)
    each = rotation if getattr(trunk, "rope_mixed", False) else [rotation] * len(trunk.blocks)
    return [_Turned(block, angles) for block, angles in zip(trunk.blocks, each, strict=True)]


class _Turned(nn.Module):
    """A layer with its rotation; made anew at every look: the trunk owns the layer."""

    def __init__(self, block: nn.Module, rotation: Tensor) -> None:
        super().__init__()
        self.block = block
        self.rotation = rotation

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.block(tokens, rope=self.rotation)
        return states


def _embed(trunk: Any, images: Tensor) -> Tensor:
    """A ViT's tokens before its first layer."""
    tokens: Tensor = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
    return tokens


class _Features(nn.Module):
    """A whole model as one block, [B, C, h, w]; it does not own the model, whose tower does."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self._run = trunk.forward_features
        self._channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self._run(images)
        return features.permute(0, 3, 1, 2) if self._channels_last else features
