"""copied: what several forms hold: how images are prepared, and code that needs no HiCA."""

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from hica.export.classifier import Exported

PREPROCESSING = "preprocessing.json"
INPUT, LOGITS, EMBEDDING = "image", "logits", "image_embedding"
"""Names of what a graph takes and gives."""


def preprocessing(exported: Exported) -> dict[str, Any]:
    """How an image is prepared, and what the numbers that come out mean."""
    classifier = exported.classifier
    views = "the image and its mirror image, embeddings averaged on the sphere"
    return {
        "image": "8-bit RGB picture, as a person sees it",
        **asdict(classifier.preprocess),
        "classes": exported.classes,
        "temperature": classifier.temperature,
        "intercepts": classifier.bias.tolist(),
        "views": views if classifier.mirrored else "the image",
    }


def write_preprocessing(folder: Path, exported: Exported) -> None:
    """`preprocessing.json`."""
    text = json.dumps(preprocessing(exported), indent=2, ensure_ascii=False)
    (folder / PREPROCESSING).write_text(f"{text}\n", encoding="utf-8")


def write_code(folder: Path, *names: str) -> None:
    """Copies of modules of `hica.export.standalone`."""
    for name in names:
        source = resources.files("hica.export.standalone").joinpath(f"{name}.py")
        (folder / f"{name}.py").write_bytes(source.read_bytes())
