"""timm_checkpoint: weights of a timm model from a file, at the image size that is wanted.

timm's own conversion of each family is used: names of the authors' checkpoints, positions of
another image size.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from hica.errors import WeightsError
from hica.towers.reading import load_weights, read_weights

logger = logging.getLogger("hica")

HEADS = ("head.", "head_dist.", "fc.", "classifier.", "decoder_")
"""What checkpoints have beside a trunk: classifiers, and the decoder of a masked autoencoder."""
PATCHES, POSITIONS = "patch_embed.proj.weight", "pos_embed"


def load_checkpoint(trunk: Any, path: Path, sha256: str | None, name: str) -> None:
    """Load a file into a model without classifier, or one whose classifier is in the file.

    Raises:
        WeightsError: The file is missing, of another hash, or of another model.
    """
    own = trunk.state_dict()
    state = converted(trunk, read_weights(path, sha256, own, HEADS), path, name)
    load_weights(trunk, _without_heads(state, own), path, name)


def converted(trunk: Any, state: dict[str, Tensor], source: Path, name: str) -> dict[str, Tensor]:
    """A state dict by timm's names, its positions resampled to the model's patches.

    Raises:
        WeightsError: Its patches have another side, or timm cannot make anything of it.
    """
    own = trunk.state_dict()
    if {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in state.items()}:
        return state
    patches = own.get(PATCHES), state.get(PATCHES)
    if all(kernel is not None and kernel.ndim == 4 for kernel in patches):
        mine, theirs = (kernel.shape[-1] for kernel in patches if kernel is not None)
        if mine != theirs:  # timm would resample these, too, and the model would be another one
            raise WeightsError(
                f"{source}: not weights of {name}: its patches are {theirs} pixels wide, the "
                f"model's {mine}; name the model that these weights were made for"
            )
    convert = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        found: dict[str, Tensor] = convert(dict(state), trunk)
    except Exception as error:  # timm's conversions raise many kinds where names are others
        raise WeightsError(
            f"{source}: not weights of {name}: timm cannot convert them ({error}); use the model "
            "these weights were made for"
        ) from None
    before, after = state.get(POSITIONS), found.get(POSITIONS)
    if before is not None and after is not None and before.shape != after.shape:
        logger.info(
            "%s: positions of %d tokens resampled to %d",
            source.name,
            before.shape[1],
            after.shape[1],
        )
    return found


def _without_heads(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier, where the model has none."""
    return {key: value for key, value in state.items() if key in own or not key.startswith(HEADS)}
