"""preprocessing: where each part of a tower's transform comes from, told with its value.

Weights are worth something only behind the transform they were trained with. Three may say it:

1. the study: `model.mean`, `std`, `image_size`, `pad_type`;
2. the JSON beside the weights file of `model.checkpoint`: its table `preprocess`;
3. what belongs to weights of a name: timm's or open_clip's settings of a tag, a model's folder.

Two that say different things are refused. A file says nothing by itself, so its colours must come
from 1 or 2: those of the architecture would be a guess. Size and resizing may be the library's.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from hica.below import below
from hica.errors import ConfigurationError, WeightsError
from hica.images.preprocess import Preprocess
from hica.model_folder import read_json
from hica.study import Fraction, Section, validated
from hica.study.sections import Spread
from hica.towers.base import ImageTower
from hica.towers.weights import Wanted

STUDY = "study"
KEYS = {"size": "image_size", "mean": "mean", "std": "std", "pad_type": "pad_type"}
"""What a study may say of a transform, by its key in `[model]`."""

AS_BUILT = "as built"
"""What nobody says of weights, and is as HiCA builds it."""

IN_WORDS: dict[Any, str] = {
    "squash": "squash, which loses the aspect ratio",
    "shortest": "shortest side, the middle is cut out",
    "longest": "longest side, the rest is black",
    "": AS_BUILT,
}
"""Values that do not speak for themselves, in words."""


class UnknownTransformError(WeightsError):
    """Nobody says the colours of weights; `source` has `own` for what it offers of `unsaid`."""

    own: Mapping[str, Any]
    source: str
    unsaid: list[str]


class Transform(Section):
    """`preprocess` of the JSON beside a weights file: how its images were prepared."""

    size: PositiveInt
    """Side of the square, in pixels."""
    mean: tuple[Fraction, Fraction, Fraction]
    """Subtracted from the colours, which lie in 0..1."""
    std: tuple[Spread, Spread, Spread]
    interpolation: Literal["bilinear", "bicubic"]
    resize: Literal["squash", "shortest", "longest"]
    """See `hica.images.preprocess.Preprocess`."""
    pad_type: Literal["", "same"] = ""
    """timm's: `same` for weights converted from TensorFlow."""


class Options(Section):
    """The same, said by somebody who brings weights; what is left out the library says."""

    size: PositiveInt | None = None
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    std: tuple[Spread, Spread, Spread] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    resize: Literal["squash", "shortest", "longest"] | None = None
    pad_type: Literal["", "same"] | None = None


class Sidecar(BaseModel):
    """The JSON beside a weights file, as far as it is read: other keys are for people."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sha256: str | None = None
    """Of the weights file."""
    preprocess: Transform | None = None


def with_sidecar(wanted: Wanted) -> Wanted:
    """`wanted` with what the JSON beside its checkpoint says: `NAME.json` of `NAME.safetensors`.

    Raises:
        WeightsError: The file cannot be read, is of other weights, or says another thing than the
            study.
    """
    said = _read_sidecar(wanted)
    named = {STUDY: [name for name, key in KEYS.items() if getattr(wanted, key)]}
    wanted = replace(wanted, sources=dict.fromkeys(named[STUDY], STUDY))
    if said is None or wanted.checkpoint is None:
        return wanted
    source, table = sidecar_of(wanted.checkpoint).name, said.model_dump()
    _refuse_differences(wanted, table, str(sidecar_of(wanted.checkpoint)))
    sources = {**dict.fromkeys(table, source), **wanted.sources}
    return replace(
        wanted, image_size=said.size, sources=sources, **{k: table[k] for k in table if k != "size"}
    )


def transform(
    wanted: Wanted, own: Mapping[str, Any], source: str, *, known: bool, drawn: bool
) -> tuple[Preprocess, dict[str, str]]:
    """A tower's transform, and where each part of it comes from.

    Args:
        wanted: What study and sidecar say.
        own: The library's settings, by the names of `Transform`.
        source: Whose they are, in words.
        known: Whether they belong to these very weights.
        drawn: Whether the weights are drawn from a seed, so that any transform does.

    Raises:
        WeightsError: Nobody says the colours of these weights, or two say different ones.
    """
    if known:
        _refuse_differences(wanted, {key: own[key] for key in ("mean", "std")}, source)
    unsaid = [key for key in ("mean", "std") if getattr(wanted, key) is None]
    if unsaid and not known and not drawn:
        raise _bare(wanted, own, source, unsaid)
    values = {
        "size": wanted.image_size,
        **{key: getattr(wanted, key) for key in ("mean", "std", "interpolation", "resize")},
    }
    values = {key: own[key] if value is None else value for key, value in values.items()}
    sources = {key: wanted.sources.get(key, source) for key in (*values, "pad_type")}
    colours = {key: tuple(values[key]) for key in ("mean", "std")}
    return Preprocess(**{**values, **colours}), sources


def sidecar_of(checkpoint: Path) -> Path:
    """The JSON that goes with a weights file."""
    return checkpoint.with_suffix(".json")


def transform_json(tower: ImageTower) -> dict[str, Any]:
    """A tower's transform as a sidecar's `preprocess` holds it."""
    return {**asdict(tower.preprocess), "pad_type": tower.pad_type}


def told(tower: ImageTower) -> dict[str, str]:
    """Every part of a tower's transform with where it comes from, in words."""
    return {
        name: f"{IN_WORDS.get(value, _words(value))} ({tower.sources.get(name, 'built in')})"
        for name, value in transform_json(tower).items()
    }


def _read_sidecar(wanted: Wanted) -> Transform | None:
    """What the JSON beside the checkpoint says of preprocessing, if there is one that does."""
    if wanted.checkpoint is None or not sidecar_of(wanted.checkpoint).exists():
        return None
    name = sidecar_of(wanted.checkpoint).name
    path = below(wanted.checkpoint.parent, name, "the JSON beside model.checkpoint")
    try:
        found = validated(Sidecar, read_json(path), str(path))
    except ConfigurationError as error:
        raise WeightsError(f"{error}\nmend the file, or ask who made the weights for it") from None
    if found.sha256 not in (None, wanted.sha256):
        raise WeightsError(
            f"{path}: sha256: {found.sha256} is of other weights than the study's, which are "
            f"{wanted.sha256}; put the JSON there that belongs to {wanted.checkpoint.name}"
        )
    return found.preprocess


def _refuse_differences(wanted: Wanted, other: Mapping[str, Any], source: str) -> None:
    """Refuse what study or sidecar say otherwise than `source`; an empty `pad_type` says nothing.

    Raises:
        WeightsError: Names both values.
    """
    for name, key in KEYS.items():
        mine, theirs = getattr(wanted, key), other.get(name)
        if mine and name in other and _words(mine) != _words(theirs):
            raise WeightsError(
                f"{wanted.sources.get(name, STUDY)}: model.{key} = {_words(mine)}, but {source} "
                f"says {name} = {_words(theirs) or repr(theirs)}: one of the two is wrong for "
                f"these weights; correct it, or take model.{key} out of the study"
            )


def _bare(
    wanted: Wanted, own: Mapping[str, Any], source: str, unsaid: list[str]
) -> UnknownTransformError:
    """Weights that nobody says the colours of."""
    missing = " and ".join(f"model.{key}" for key in unsaid)
    guess = ", ".join(f"{key} = {list(own[key])}" for key in unsaid)
    beside = ""
    if wanted.checkpoint is not None:
        beside = (
            f", or put {sidecar_of(wanted.checkpoint).name} beside the file, with "
            '{"preprocess": {"size": ..., "mean": [...], "std": [...], "interpolation": ..., '
            '"resize": ..., "pad_type": ...}}'
        )
    error = UnknownTransformError(
        f"{wanted.checkpoint or source}: nothing says how images are prepared for these weights, "
        f"and a wrong guess trains badly without a word. Write {missing} into the study{beside}. "
        f"The values are those that the weights were trained with; {source} has {guess}"
    )
    error.own, error.source, error.unsaid = own, source, unsaid
    return error


def _words(value: Any) -> str:
    """A value as people compare it."""
    if isinstance(value, list | tuple):
        return " ".join(f"{each:g}" for each in value)
    return str(value)
