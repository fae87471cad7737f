"""export_folder: all forms of a model, its card and the signed list of files, as one new folder."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric import ec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from hica.errors import ConfigurationError
from hica.export import hugging_face_form, monai_form, onnx_form, open_clip_form
from hica.export.card import card_of, write_text
from hica.export.classifier import Exported, NotPossibleError, sample
from hica.export.manifest import write_manifest
from hica.progress import track
from hica.steps.model_file import save_model
from hica.steps.state import State
from hica.storage import cannot_be_written
from hica.wire.checkpoint import write_json


@dataclass(frozen=True)
class _Form:
    """A form that another library loads.

    Attributes:
        write: Writes it into a folder.
        logits: Loads it by that library, and gives logits of colours.
        close: How far these may be from HiCA's.
        views: Whether they are of all views that HiCA takes, or of the image as it is.
    """

    write: Callable[[Path, Exported], None]
    logits: Callable[[Path, Exported, Tensor], Tensor]
    close: float
    views: bool


FORMS = {
    "open_clip": _Form(open_clip_form.write, open_clip_form.logits, 1e-5, False),
    "hugging_face": _Form(hugging_face_form.write, hugging_face_form.logits, 1e-4, False),
    "onnx": _Form(onnx_form.write, onnx_form.logits, 1e-4, True),
}
BUNDLE = "monai_bundle"
VERSIONS = ("hica", "torch", "timm", "open_clip_torch", "transformers", "onnx", "onnxruntime")
"""Packages whose versions the card names."""
LIBRARIES = ("onnx", "onnxscript", "onnxruntime", "monai", "ignite")


def export_folder(
    to: Path,
    exported: Exported,
    learnt: State,
    key: ec.EllipticCurvePrivateKey | None,
    beside: Mapping[str, Path],
    **more: Any,
) -> dict[str, Any]:
    """Write the folder `to` whole or not at all; returns its card.

    `learnt` is the trained part, which is written in HiCA's own form, with `more` in its JSON.
    `key` signs the list of files; None: nobody does. `beside` are files that are copied, by their
    paths in the folder.

    Raises:
        ConfigurationError: Something is at `to`, or a library is not installed.
        StorageError: The disk is full or the folder may not be written.
    """
    check_libraries()
    check_free(to)
    with _replacing(to) as part:
        for name in track(list(FORMS), "writing and checking forms"):
            _write_form(part / name, exported, FORMS[name])
        if (graph := part / "onnx" / onnx_form.GRAPH).exists():
            monai_form.write(part / BUNDLE, exported, graph)
        else:
            exported.left_out[BUNDLE] = "it is made of the ONNX graph"
        _write_texts(part / "text", exported)
        save_model(part / "hica", exported.study, learnt, **more)
        for name, source in beside.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, part / name)
        card = card_of(exported)
        write_json(part / "model_card.json", card)
        write_text(part / "model_card.md", card)
        for form in part.iterdir():
            if (template := Path(__file__).with_name(f"{form.name}.md")).exists():
                _write_readme(form, template.name, exported)
        said = {
            "study": exported.study.study.name,
            "study_sha256": exported.study.sha256,
            "exported_by": exported.facts["exported_by"],
            "made": exported.facts["made"],
            "hica": exported.facts["versions"]["hica"],
        }
        write_manifest(part, key, **said)
    return card


def check_libraries() -> None:
    """Check that the libraries are there which only exports need.

    Raises:
        ConfigurationError: Names the first that is not, and the extra.
    """
    for name in LIBRARIES:
        if find_spec(name) is None:
            raise ConfigurationError(
                f"{name}: not installed, and an export needs it; in the clone of HiCA run: "
                "pip install -c constraints.txt '.[export]'"
            )


def check_free(to: Path) -> None:
    """Check that there is no file, and nothing in a folder, at `to`.

    Raises:
        ConfigurationError: There is; it is left alone.
    """
    if to.exists() and not to.is_dir():
        raise ConfigurationError(f"{to}: is a file and is left alone; name a new folder")
    if to.is_dir() and any(to.iterdir()):
        raise ConfigurationError(f"{to}: is not empty and is left alone; name a new folder")


@contextmanager
def _replacing(to: Path) -> Iterator[Path]:
    """A folder to write, which takes its name once it is whole."""
    part = to.absolute().with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(to.absolute())  # not by `.`: that cannot be replaced
    except OSError as error:
        raise cannot_be_written(to, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@torch.no_grad()
def _write_form(folder: Path, exported: Exported, form: _Form) -> None:
    """Write a form and hold it against HiCA's logits; say why where there is none."""
    folder.mkdir()
    classifier = exported.classifier
    colours = sample(classifier)
    try:
        form.write(folder, exported)
        found = form.logits(folder, exported, colours)
        one_view = classifier.logits(classifier.embedding(colours))
        expected = classifier(colours)[0] if form.views else one_view
        off = float((found - expected).abs().max())
        if not off <= form.close:
            raise NotPossibleError(
                f"its logits were off by {off:.2g}, and {form.close:g} is allowed"
            )
    except NotPossibleError as why:
        exported.left_out[folder.name] = str(why)
        shutil.rmtree(folder)


def _write_texts(folder: Path, exported: Exported) -> None:
    """The text matrix, and whose its rows are."""
    from safetensors.torch import save_file

    classifier = exported.classifier
    folder.mkdir()
    rows = {"classes": classifier.classes, "findings": classifier.findings}
    save_file(
        {name: x.contiguous().clone() for name, x in rows.items()}, folder / "text.safetensors"
    )
    names = {
        "classes": [each.model_dump(mode="json") for each in exported.study.classes],
        "findings": exported.findings,
        "rows": "unit vectors of the joint space: classes [C, D], findings [M, D], in these orders",
    }
    write_json(folder / "names.json", names)


def _write_readme(folder: Path, template: str, exported: Exported) -> None:
    """How the form is loaded."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    classifier, kind = exported.classifier, ""
    if template == "hugging_face.md":
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    text = environment.get_template(template).render(
        classes=json.dumps(exported.classes, ensure_ascii=False)
        if template == "open_clip.md"
        else exported.classes,
        intercepts=classifier.bias.tolist(),
        mirrored=classifier.mirrored,
        size=classifier.preprocess.size,
        width=len(classifier.centre),
        loader=hugging_face_form.LOADER.get(kind, "AutoModel"),
        features="image_embeds" if kind == "clip_vision_model" else "pooler_output",
    )
    place = folder / "docs" if folder.name == BUNDLE else folder
    place.mkdir(exist_ok=True)
    (place / "README.md").write_text(text, encoding="utf-8")
