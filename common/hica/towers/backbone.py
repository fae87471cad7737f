"""backbone: a model that somebody has, brought below the folder of weights in a safe format.

Of a file come `NAME.safetensors`, without what programs put around weights, and `NAME.json` with
how images are prepared; of a folder in the hub's layout the same folder, its weights as
safetensors. It is loaded first: what cannot be used is not copied.
"""

import json
import re
import shlex
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from hica import hub
from hica.errors import ConfigurationError, WeightsError
from hica.images.cache import file_sha256
from hica.progress import track
from hica.storage import cannot_be_written, replacing, write_atomically
from hica.towers import ImageTower, load_image_tower
from hica.towers.backbone_checks import check_embeddings, text_line
from hica.towers.folders import TEXTS, folder_sha256
from hica.towers.hub_layouts import FILES, has_text_side, weights_of
from hica.towers.preprocessing import (
    UnknownTransformError,
    sidecar_of,
    told,
    transform_json,
)
from hica.towers.reading import INDEX, read_weights

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,79}", re.ASCII)
OPTIONS = {"size": "image_size", "mean": "mean", "std": "std", "pad_type": "pad_type"}
"""What may be said of a transform, by the parameter of `load_image_tower`."""


@dataclass(frozen=True)
class Backbone:
    """A model that now lies below the folder of weights, and what a study writes of it."""

    path: Path
    model: dict[str, Any]
    """The lines of `[model]`."""
    tower: ImageTower
    notes: list[str]
    """What was taken or left out."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "model": self.model,
            "fingerprint": self.tower.fingerprint,
            "width": self.tower.dim,
            "grid": self.tower.grid,
            "blocks": self.tower.depth,
            "preprocess": told(self.tower),
            "notes": self.notes,
        }


def import_file(
    source: Path, weights: Path, architecture: str, said: Mapping[str, Any], name: str | None
) -> Backbone:
    """Bring a checkpoint below the folder `weights`.

    `architecture` is what `model.image` will be; `said` is how images are prepared, by the names of
    a sidecar's `preprocess`, where the JSON beside the file does not say it; `name` is what the
    file will be called, by default as it is.

    Raises:
        WeightsError: It is not a checkpoint of that model, or nobody says how images are prepared.
        ConfigurationError: A name that cannot be one, or is taken; a model that is not known.
        StorageError: It cannot be written.
    """
    stem = source.name.removesuffix(INDEX).partition(".")[0] if name is None else name
    target = weights / f"{_checked(stem)}.safetensors"
    options = {OPTIONS[key]: value for key, value in said.items() if key in OPTIONS}
    try:
        tower = load_image_tower(architecture, checkpoint=source, **options)
    except UnknownTransformError as error:
        values = " ".join(
            f"--{key} {' '.join(f'{part:g}' for part in error.own[key])}" for key in error.unsaid
        )
        raise WeightsError(
            f"{source}: nothing says how images are prepared for these weights, and a wrong guess "
            "trains badly without a word. Ask who trained them, and give the values; "
            f"{error.source} has {values}"
        ) from None
    tower.preprocess = replace(
        tower.preprocess, **{key: said[key] for key in ("interpolation", "resize") if key in said}
    )
    check_embeddings(tower, source)
    notes: list[str] = []
    _write(target, read_weights(source, notes=notes))
    sha256 = file_sha256(target)
    sidecar = {"sha256": sha256, "preprocess": transform_json(tower)}
    text = json.dumps(sidecar, indent=2).encode() + b"\n"
    beside = sidecar_of(target)
    if beside.exists() and beside.read_bytes() != text and beside != sidecar_of(source):
        raise _taken(beside)
    write_atomically(beside, text)
    model: dict[str, Any] = {"image": architecture, "checkpoint": target.name, "sha256": sha256}
    if has_text_side(architecture):
        then = 'then write text = "same" into [model]'
        model |= text_line(architecture, notes, then, checkpoint=target, sha256=sha256)
    loaded = load_image_tower(architecture, checkpoint=target, sha256=sha256)
    return Backbone(target, model, loaded, notes)


def import_any(
    source: Path,
    weights: Path,
    architecture: str | None,
    said: Mapping[str, Any],
    name: str | None,
) -> Backbone:
    """`import_file` or `import_folder`, by what is there.

    Raises:
        WeightsError: Nothing is there, or what either of them says.
        ConfigurationError: An option that the other one has, or none where one is needed.
        StorageError: It cannot be written.
    """
    if source.is_dir():
        surplus = [key for key in ("interpolation", "resize", "pad_type") if key in said]
        if architecture or surplus:
            options = ["architecture"] * bool(architecture) + surplus
            raise ConfigurationError(
                f"{source}: a folder says this itself; leave out "
                + ", ".join(f"--{key.replace('_', '-')}" for key in options)
            )
        return import_folder(source, weights, said, name)
    if not source.is_file():
        raise WeightsError(f"{source}: no such file or folder; name the weights that you have")
    if not architecture:
        raise ConfigurationError(
            f"{source}: a file does not say which model it is of; give --architecture, for example "
            "timm/resnet50 or ViT-B-16"
        )
    return import_file(source, weights, architecture, said, name)


def import_folder(
    source: Path, weights: Path, said: Mapping[str, Any], name: str | None, hubs: str | None = None
) -> Backbone:
    """Bring a folder in the hub's layout below the folder `weights`.

    `said` and `name` as of `import_file`; `hubs` is what the folder is called on a hub, if it lies
    in the hub's cache.

    Raises:
        WeightsError: Not a whole model that can be used.
        ConfigurationError: A name that cannot be one, or is taken; a setting it does not take.
        StorageError: It cannot be written.
    """
    source = source.resolve() if hubs is None else source
    target = weights / _checked(name or source.name)
    found = weights_of(source, str(source))
    options = {OPTIONS[key]: value for key, value in said.items() if key in OPTIONS}
    pin = folder_sha256(source, found)
    place = f"hf:{hubs or source.name}"
    tower = load_image_tower(place, weights=source.parent, sha256=pin, **options)
    check_embeddings(tower, source)
    weights.mkdir(parents=True, exist_ok=True)
    part = weights / f".{uuid.uuid4().hex}.part"
    try:
        part.mkdir()
        texts = {path for pattern in TEXTS for path in source.glob(pattern) if path.is_file()}
        copied = [path for path in sorted(texts) if not path.name.endswith(INDEX)]
        for path in track(copied, "copying texts"):
            shutil.copyfile(path, part / path.name)
        kept = part / _safe_name(found)
        if found.suffix == ".safetensors":
            shutil.copyfile(found, kept)
        else:
            _write(kept, read_weights(found))
        sha256 = folder_sha256(part, kept)
        _put(part, target, sha256, kept.name)
    except OSError as error:
        raise cannot_be_written(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    model: dict[str, Any] = {"image": f"hf:{target.name}", "sha256": sha256, **options}
    notes: list[str] = []
    if has_text_side(model["image"], source):
        then = "then import the folder again, under another --name"
        model |= text_line(place, notes, then, weights=source.parent, sha256=pin)
    return Backbone(target, model, tower, notes)


def fetch(
    name: str, weights: Path, hubs: bool, said: Mapping[str, Any], as_name: str | None
) -> Backbone:
    """Bring `OWNER/NAME@COMMIT` of a hub below the folder `weights`.

    Raises:
        WeightsError: Nothing may be fetched, the name is not pinned, or it cannot be fetched.
        ConfigurationError: As of `import_folder`.
        StorageError: It cannot be written.
    """
    if not hubs:
        raise WeightsError(f"{name}: this machine fetches nothing from a hub; {hub.HOW_TO_ALLOW}")
    folder = hub.model(name, FILES, hubs, "backbone")
    short = name.partition("@")[0].rpartition("/")[2]
    return import_folder(folder, weights, said, as_name or short, hubs=name)


def toml_lines(model: Mapping[str, Any]) -> str:
    """The lines of `[model]`, to be pasted into `study.toml`."""
    return "\n".join(["[model]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())])


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"--name {shlex.quote(name)}: up to 80 letters, digits and characters of '_.-', the "
            "first a letter or digit"
        )
    return name


def _safe_name(found: Path) -> str:
    """What a folder's weights are called as safetensors."""
    is_open_clip = found.name.startswith("open_clip")
    return "open_clip_model.safetensors" if is_open_clip else "model.safetensors"


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights whole or not at all; another file in their place stays as it is."""
    tensors = {key: value.clone().contiguous() for key, value in sorted(state.items())}
    try:
        with replacing(path, part=path.with_name(f".{uuid.uuid4().hex}.part")) as part:
            save_file(tensors, part, {"format": "pt"})
            if path.exists() and file_sha256(path) != file_sha256(part):
                raise _taken(path)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _put(part: Path, target: Path, sha256: str, weights: str) -> None:
    """Give a folder its name; the same one that is there already stays."""
    if target.exists():
        if (target / weights).is_file() and folder_sha256(target, target / weights) == sha256:
            return
        raise _taken(target)
    part.replace(target)


def _taken(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: another one is there, which studies may use; give another --name"
    )
