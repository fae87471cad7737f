"""What an explanation leaves: JSON, pictures, and one page to look at. All of it stays here.

All of it is about patients, so only the owner of the files can read them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record
from hica.images.overlay import (
    COLOURS,
    SIDE,
    heat_map,
    jpeg_uri,
    outlined,
    png_bytes,
    png_uri,
    resized,
)
from hica.steps.personal import ALONE_MODEL, PERSONAL_MODEL
from hica.storage import write_atomically
from hica_client.prediction.explanation import Pictured, TextMap
from hica_client.prediction.models import SHARED
from hica_client.prediction.pages import rendered
from hica_client.prediction.predict import Predictor
from hica_client.prediction.written import DONT_KNOW, note_of

THUMBNAIL = 128
VOICES = {
    SHARED: "the shared model",
    PERSONAL_MODEL: "this site's personal model (the shared one, trained on here)",
    ALONE_MODEL: "this site's model trained alone",
}
"""The models in words."""


def check_empty(out: Path) -> None:
    """Check that a folder is new or empty, before anything is computed for it.

    Raises:
        ConfigurationError: There is something in it, or it is no folder.
    """
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"--out {out}: is a file; name a folder that is new or empty")
    if out.is_dir() and any(out.iterdir()):
        raise ConfigurationError(
            f"--out {out}: is not empty, and what lies there is left alone; name another folder"
        )


def write_explanation(out: Path, predictor: Predictor, found: Pictured) -> dict[str, Any]:
    """Write `explanation.json`, `page.html` and the pictures into a folder; returns the JSON.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    pictures = {
        "image.png": resized(found.pixels, SIDE),
        "regions.png": outlined(found.pixels, found.masks),
    }
    maps = {_file_of(number, each): each for number, each in enumerate(found.said.maps, start=1)}
    pictures |= {name: _drawn(found.pixels, each) for name, each in maps.items()}
    for name, pixels in pictures.items():
        write_atomically(out / name, png_bytes(pixels), mode=0o600)
    table = as_json(predictor, found, list(maps))
    write_atomically(out / "explanation.json", json.dumps(table, indent=1).encode(), mode=0o600)
    study = predictor.models.study
    page = rendered(
        "explanation.html",
        found=table,
        said=found.said,
        note=note_of(found.said.prediction),
        dont_know=DONT_KNOW,
        names=predictor.names,
        findings=study.finding_names,
        region_method=study.regions.method,
        voices=VOICES,
        colours=COLOURS,
        image=png_uri(pictures["image.png"]),
        outlines=png_uri(pictures["regions.png"]),
        maps=[{"said": each, "uri": png_uri(pictures[name])} for name, each in maps.items()],
        shots=[
            {"said": said, "uri": _thumbnail(predictor, row)}
            for said, row in zip(found.said.shots, found.shots, strict=True)
        ],
    )
    write_atomically(out / "page.html", page.encode(), mode=0o600)
    return table


def as_json(predictor: Predictor, found: Pictured, files: Sequence[str]) -> dict[str, Any]:
    """All that is said, and what it is of; `files` are the pictures of the maps."""
    models = predictor.models
    said = asdict(found.said)
    for each, name in zip(said["maps"], files, strict=True):
        each["picture"] = name
    return {
        "study": models.study.study.name,
        "study_sha256": models.study.sha256,
        "model_sha256": models.model_sha256,
        "site": models.session.name,
        "regions_by": models.study.regions.method,
        **said,
    }


def _drawn(pixels: NDArray[np.uint8], said: TextMap) -> NDArray[np.uint8]:
    return heat_map(resized(pixels, SIDE), np.array(said.above_others))


def _file_of(number: int, said: TextMap) -> str:
    """The name of a map's picture: of a text that may hold anything."""
    words = re.sub(r"[^a-z0-9]+", "-", said.text.lower()).strip("-")[:40]
    return f"map-{number}-{words or said.kind}.png"


def _thumbnail(predictor: Predictor, row: Record) -> str:
    """A shot as part of the page; empty where it has gone since."""
    try:
        return jpeg_uri(resized(predictor.models.pixels(row)[0], THUMBNAIL))
    except DataError:
        return ""
