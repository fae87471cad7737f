"""What a prediction leaves: a table for other programs, JSON, and a page to look at.

All of it is about patients, so only the owner of the files can read them.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hica.errors import DataError
from hica.images.manifest import Record
from hica.images.overlay import heat_map, jpeg_uri, resized
from hica.printable import percent
from hica.progress import track
from hica.storage import write_atomically
from hica_client.prediction.pages import rendered
from hica_client.prediction.predict import Prediction, Predictor

DONT_KNOW = "don't know"
MOST_SHOWN = 200
"""Images on the page; the table has all."""
MAP_SIDE = 224
TELLING = 0.15
"""Cosine to a finding below which a region looks like none: the page does not name it."""


def write_table(
    path: Path,
    predictions: Sequence[Prediction],
    names: Sequence[str],
    called: str | None,
    by_texts: Sequence[str] = (),
) -> None:
    """`predictions.csv`: a row an image.

    `called` is the class of the operating point; `by_texts` are the study's classes and the unseen
    ones, where there are any.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["image", "answer", "classes", *(f"p {name}" for name in names), "note"]
    header += [f"text {name}" for name in by_texts]
    writer.writerow(header + ([f"called {called}"] if called else []))
    for each in predictions:
        shares = [f"{each.probabilities[name]:.4f}" if each.probabilities else "" for name in names]
        row = [each.image, each.answer or DONT_KNOW, "|".join(each.classes), *shares, note_of(each)]
        row += [f"{each.by_texts[name]:.4f}" if each.by_texts else "" for name in by_texts]
        call = {True: "yes", False: "no", None: ""}[each.called]
        writer.writerow(row + ([call] if called else []))
    write_atomically(path, text.getvalue().encode(), mode=0o600)


def note_of(said: Prediction) -> str:
    """What must be known of a prediction."""
    learnt = "the study was trained on this image" if said.learnt_from else ""
    unseen = ""
    if said.by_texts:
        nearest = max(said.by_texts, key=said.by_texts.__getitem__)
        if nearest not in said.probabilities:
            unseen = f"by texts alone most like {nearest}, which was never trained"
    return "; ".join(filter(None, (said.why, learnt, unseen)))


def as_json(predictor: Predictor, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """All that is said, and what stands behind it."""
    calibration, checked = predictor.calibration, predictor.checked
    called, point = predictor.called_from or (None, None)
    unseen = predictor.unseen
    return {
        "study": predictor.models.study.study.name,
        "study_sha256": predictor.models.study.sha256,
        "model_sha256": predictor.models.model_sha256,
        "site": predictor.models.session.name,
        "own_share": predictor.models.weight,
        "held_out_patients": predictor.held_out.patients if predictor.held_out else 0,
        "temperature": calibration.temperature if calibration else None,
        "coverage": calibration.coverage if calibration and calibration.promises else None,
        "checked": asdict(checked) if checked else None,
        "operating_point": point
        and {
            "class": called,
            "threshold": point.threshold,
            "sensitivity": point.sensitivity._asdict(),
            "specificity": point.specificity._asdict(),
        },
        "unseen": unseen
        and {
            "classes": list(unseen.new),
            "trained": False,
            "calibrated": False,
            "coverage": None,
            "notes": list(unseen.notes),
        },
        "predictions": [asdict(each) for each in predictions],
    }


def write_all(
    out: Path,
    predictor: Predictor,
    records: Sequence[Record],
    predictions: Sequence[Prediction],
    dicom: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Write `predictions.csv`, `predictions.json` and `page.html` into a folder; returns the JSON.

    `dicom` are the results in DICOM, the files of each image.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    called = predictor.called_from[0] if predictor.called_from else None
    by_texts = predictor.unseen.names if predictor.unseen else ()
    write_table(out / "predictions.csv", predictions, predictor.names, called, by_texts)
    table = as_json(predictor, predictions) | {"dicom": list(dicom)}
    write_atomically(out / "predictions.json", json.dumps(table, indent=1).encode(), mode=0o600)
    shown = list(zip(records, predictions, strict=True))[:MOST_SHOWN]
    page = rendered(
        "page.html",
        found=table,
        names=predictor.names,
        pictures=list(_pictures(predictor, shown)),
        left_out=len(predictions) - len(shown),
        dont_know=DONT_KNOW,
        share=percent,
    )
    write_atomically(out / "page.html", page.encode(), mode=0o600)
    return table


def _pictures(
    predictor: Predictor, shown: Sequence[tuple[Record, Prediction]]
) -> Iterator[dict[str, Any]]:
    """What the page shows of each image."""
    for record, said in track(shown, "drawing the page", len(shown)):
        telling = [region for region in said.regions if region.similarity >= TELLING]
        picture = {"said": said, "note": note_of(said), "regions": telling}
        picture |= dict.fromkeys(("image", "map", "likely"), "")
        if said.probabilities:
            likely = max(said.probabilities, key=lambda name: said.probabilities[name])
            try:
                pixels = predictor.models.pixels(record)[0]
            except DataError:  # it has gone since
                yield picture
                continue
            likeness = predictor.models.class_map(pixels, predictor.names.index(likely))
            picture |= {
                "likely": likely,
                "image": jpeg_uri(resized(pixels, MAP_SIDE)),
                "map": jpeg_uri(resized(heat_map(pixels, likeness), MAP_SIDE)),
            }
        yield picture
