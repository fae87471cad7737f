"""openclip_checkpoint: weights of a contrastive pair from a file, into both of its sides."""

from pathlib import Path
from typing import Any

from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from hica.towers.reading import load_weights, read_weights
from hica.towers.timm_checkpoint import converted

TRUNK = "visual.trunk."
OF_RESNET = "visual.attnpool.positional_embedding"
UNUSED = (
    "logit_scale",
    "logit_bias",
    "text_decoder.",  # CoCa's captions
    "text.transformer.embeddings.position_ids",  # of transformers before 4.31: 0, 1, 2, …
)
"""Beginnings of names that pairs have for their own training only; they are left out."""


def load_pair(pair: Any, path: Path, sha256: str | None, name: str) -> None:
    """Load a file into a pair that open_clip has made, at the image size it was made for.

    Raises:
        WeightsError: The file is missing, of another hash, or of another model.
    """
    sides = nn.ModuleDict({"visual": pair.visual, "text": pair.text})
    own = sides.state_dict()
    load_weights(sides, _converted(pair, read_weights(path, sha256, own), path, name), path, name)


def _converted(pair: Any, state: dict[str, Tensor], path: Path, name: str) -> dict[str, Tensor]:
    """A state dict by the names of both sides, positions resampled to the model's patches."""
    # Some releases lack `text.`; Apple's own MobileCLIP has other names altogether.
    state = dict(convert_to_custom_text_state_dict(convert_state_dict(pair, state)))
    state = {key: value for key, value in state.items() if not key.startswith(UNUSED)}
    resize_pos_embed(state, pair)
    if isinstance(pair.visual, TimmModel):
        trunk = {k.removeprefix(TRUNK): v for k, v in state.items() if k.startswith(TRUNK)}
        state = {key: value for key, value in state.items() if not key.startswith(TRUNK)}
        found = converted(pair.visual.trunk, trunk, path, name)
        state |= {f"{TRUNK}{key}": value for key, value in found.items()}
    if isinstance(pair.visual, ModifiedResNet) and OF_RESNET in state:
        side = pair.visual.image_size // 32
        positions = state[OF_RESNET].unsqueeze(0)
        state[OF_RESNET] = resample_abs_pos_embed(positions, [side, side], num_prefix_tokens=1)[0]
    return state
