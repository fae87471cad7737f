"""hugging_face_config: a folder in transformers' layout: which model, how images are prepared.

Only models that transformers has code for itself, and of those the few listed here; of the image
processor only keys that are understood.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError, WeightsError
from hica.model_folder import read_json
from hica.towers.weights import Wanted

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""How images are prepared; the second is transformers' newer name, for both sides together."""
KINDS = ("clip", "siglip", "siglip2")
"""`model_type` of what can be used."""
RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def read_kind(folder: Path, key: str) -> str:
    """The folder's `model_type`; `key` is the setting that names it, which was looked through.

    Raises:
        WeightsError: It is not one that can be used, or brings code of its own.
    """
    path = folder / CONFIG
    table = read_json(path)
    kind = table.get("model_type") if isinstance(table, dict) else None
    if kind not in KINDS:
        raise WeightsError(
            f"{path}: model_type = {kind!r} ({key}): not a model that can be used, which are "
            f"{', '.join(KINDS)}; of a timm model write timm/NAME with model.checkpoint, of "
            "open_clip's local-dir:FOLDER"
        )
    if "auto_map" in table:
        raise WeightsError(
            f"{path}: auto_map: names code that comes with the model, which is never run; take the "
            "entry out, or another model"
        )
    return str(kind)


def read_transform(folder: Path, size: int, name: str) -> tuple[dict[str, Any], str]:
    """How the folder says that images are prepared, by the names of `Transform`, and in which file.

    Empty where no file says it. `size` is the side of the model's images, where the processor cuts
    images into patches itself.

    Raises:
        WeightsError: A file that cannot be read.
        ConfigurationError: A way to prepare images that is not offered here.
    """
    for file in PROCESSORS:
        if not (folder / file).is_file():
            continue
        table = read_json(folder / file)
        if isinstance(table, dict):
            table = table.get("image_processor", table)
        if isinstance(table, dict) and "image_mean" in table:
            return _transform(table, size, f"{file} of {name}"), file
    return {}, ""


def refuse_unsaid(folder: Path, wanted: Wanted) -> None:
    """Refuse a folder that says no colours where the study does not say them either.

    Raises:
        WeightsError: Says which file to add; no values, since there are none to go by.
    """
    unsaid = [key for key in ("mean", "std") if getattr(wanted, key) is None]
    if not unsaid:
        return
    there = [file for file in PROCESSORS if (folder / file).is_file()]
    fault = f"{there[0]} has no image_mean" if there else f"has no {PROCESSORS[0]}"
    raise WeightsError(
        f"{folder}: {fault}, so nothing says how images are prepared for these weights; put "
        f"{'the whole file' if there else 'it'} there from the model's page, or write "
        f"{' and '.join(f'model.{key}' for key in unsaid)} into the study "
        f"(in backbone import: {' and '.join(f'--{key}' for key in unsaid)})"
    )


def _transform(table: Mapping[str, Any], size: int, source: str) -> dict[str, Any]:
    if (
        not table.get("do_rescale", True)
        or abs(table.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3
    ):
        raise _refused(source, "rescale_factor", "pixels that are not scaled to 0..1")
    if not table.get("do_normalize", True):
        raise _refused(source, "do_normalize = false", "colours that are not normalised")
    resample = table.get("resample", 3)
    if resample not in RESAMPLING:
        raise _refused(
            source, f"resample = {resample}", "another than bilinear or bicubic resizing"
        )
    side, resize = (size, "squash") if "patch_size" in table else _geometry(table, source)
    return {
        "size": side,
        "mean": _colour(table, "image_mean", source),
        "std": _colour(table, "image_std", source),
        "interpolation": RESAMPLING[resample],
        "resize": resize,
    }


def _geometry(table: Mapping[str, Any], source: str) -> tuple[int, str]:
    """Side of the square, and how images come to it."""
    size, crop = _sides(table.get("size"), False), _sides(table.get("crop_size"), True)
    if not table.get("do_resize", True) or size is None:
        raise _refused(source, "size", "images that are not resized")
    short, square = size
    if square:
        return short, "squash"
    if not table.get("do_center_crop", True) or crop is None:
        raise _refused(source, "do_center_crop = false", "images that are not square")
    if crop != (short, True):
        raise _refused(source, f"size {short}, crop_size {crop[0]}", "a border that is cut off")
    return short, "shortest"


def _sides(value: object, is_square: bool) -> tuple[int, bool] | None:
    """A length, and whether it is that of a square (else of the shorter side)."""
    if isinstance(value, int):  # of old files
        return value, is_square
    if not isinstance(value, dict):
        return None
    if isinstance(shortest := value.get("shortest_edge"), int):
        return shortest, False
    height, width = value.get("height"), value.get("width")
    return (height, True) if isinstance(height, int) and height == width else None


def _colour(table: Mapping[str, Any], key: str, source: str) -> tuple[float, ...]:
    value = table.get(key)
    numbers = isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    if not numbers or len(value or []) != 3 or (key == "image_std" and 0 in (value or [])):
        raise WeightsError(f"{source}: {key}: expected three numbers; fetch the file anew")
    return tuple(float(part) for part in value or [])


def _refused(source: str, key: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"model.image: {source}: {key}: {what}, which is not offered here; use another model"
    )
