"""timm_folder: `config.json` of timm's models on the hub; only keys that are listed here."""

from pathlib import Path
from typing import Annotated, Any

import timm
from pydantic import ConfigDict, Field

from hica.errors import ConfigurationError, WeightsError
from hica.model_folder import read_json
from hica.study import Section, validated
from hica.study.sections import Fraction, Spread

CONFIG = "config.json"
Side = Annotated[int, Field(ge=1, le=4096)]


class Table(Section):
    """A table of the file; other keys are for people and for training."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Arguments(Section):
    """`model_args`: what the model was built with, if not as timm's name says."""

    num_classes: int | None = None
    """Not followed: there is no classifier."""
    in_chans: Annotated[int, Field(ge=3, le=3)] = 3
    img_size: Side | tuple[Side, Side] | None = None
    global_pool: str | None = None
    class_token: bool | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=64)] | None = None
    no_embed_class: bool | None = None
    dynamic_img_size: bool | None = None
    """Not followed: images have one size."""


class Settings(Table):
    """`pretrained_cfg`: how images were prepared."""

    input_size: tuple[Annotated[int, Field(ge=3, le=3)], Side, Side]
    mean: tuple[Fraction, Fraction, Fraction]
    std: tuple[Spread, Spread, Spread]
    interpolation: str = "bicubic"
    fixed_input_size: bool = False
    classifier: str | list[str] | None = None


class File(Table):
    """The whole file."""

    architecture: str
    model_args: Arguments = Arguments()
    pretrained_cfg: Settings


def is_timm(folder: Path) -> bool:
    """Whether a folder holds a model of timm."""
    table = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return isinstance(table, dict) and "architecture" in table


def read_timm_config(folder: Path, key: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The model's name in timm, its settings, and the parameters of its constructor.

    `key` is the setting that names the folder, which was looked through.

    Raises:
        WeightsError: A key that is missing or not known, a value out of range, a model that timm
            does not have.
    """
    path = folder / CONFIG
    table = read_json(path)
    if "pretrained_cfg" not in table:  # older files have its keys one floor higher
        table = {**table, "pretrained_cfg": table}
    try:
        file = validated(File, table, str(path))
    except ConfigurationError as error:
        raise WeightsError(
            f"{error}\n{path} ({key}) is read by these keys only: a model that needs others cannot "
            "be used; take the key out where it is not needed, or take another model"
        ) from None
    model = file.architecture.partition(".")[0]
    if not timm.is_model(model):
        raise WeightsError(
            f"{path}: architecture = {model!r}: timm has no such model here; upgrade timm, or take "
            "another model"
        )
    unused = {"num_classes", "in_chans", "dynamic_img_size"}
    arguments = file.model_args.model_dump(exclude_unset=True, exclude=unused)
    return model, file.pretrained_cfg.model_dump(), arguments
