"""The held-out images of a study at its site, each with what is said of it. It stays there.

The coordinator reads no prediction of a single image; the site's own people can look at each.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hica.errors import DataError
from hica.images.manifest import Record
from hica.images.overlay import heat_map, jpeg_uri, outlined, resized
from hica.printable import printable
from hica.progress import track
from hica.storage import write_atomically
from hica_client.prediction.pages import rendered
from hica_client.prediction.predict import Predictor, Region
from hica_client.prediction.written import MAP_SIDE, MOST_SHOWN, TELLING

LISTED = 10
"""Wrong ones that are listed on the screen."""


@dataclass(frozen=True)
class Tested:
    """A held-out image and what is said of it.

    Attributes:
        image: As the manifest names it.
        label: Its class there.
        predicted: The likeliest class.
        right: Whether both are the same.
        confidence: Probability of the predicted class.
        probabilities: Of each class.
        regions: What its regions look most like.
    """

    image: str
    label: str
    predicted: str
    right: bool
    confidence: float
    probabilities: dict[str, float]
    regions: tuple[Region, ...]


def held_out_rows(predictor: Predictor) -> list[tuple[Record, Tested]]:
    """Every held-out image: first the wrong ones, of each kind the surest first.

    Raises:
        DataError: The site holds out none, or one cannot be read any more.
    """
    session = predictor.models.session
    if not session.size("test"):
        raise DataError(
            f"{session.site.data.manifest}: holds out no images for this study: nothing was tested "
            "here; name an image in place of --test"
        )
    seen = predictor.models.held_out()
    shown = predictor.regions_of(seen.embedded)
    rows = []
    for record, said, regions in zip(
        session.roles.test, predictor.named_probabilities(seen.logits), shown, strict=True
    ):
        likely = max(said, key=said.__getitem__)
        label = str(record.label)
        tested = Tested(record.name, label, likely, likely == label, said[likely], said, regions)
        rows.append((record, tested))
    return sorted(rows, key=lambda row: (row[1].right, -row[1].confidence, row[1].image))


def write_held_out(out: Path, predictor: Predictor) -> dict[str, Any]:
    """Write `test.json` and `page.html` into a folder; returns the JSON.

    Raises:
        DataError: See `held_out_rows`.
        StorageError: The disk is full or the folder may not be written.
    """
    rows = held_out_rows(predictor)
    models = predictor.models
    table = {
        "study": models.study.study.name,
        "study_sha256": models.study.sha256,
        "model_sha256": models.model_sha256,
        "site": models.session.name,
        "own_share": models.weight,
        "images": len(rows),
        "right": sum(tested.right for _, tested in rows),
        "tested": [asdict(tested) for _, tested in rows],
    }
    write_atomically(out / "test.json", json.dumps(table, indent=1).encode(), mode=0o600)
    page = rendered(
        "held_out.html",
        found=table,
        rows=list(_pictures(predictor, rows[:MOST_SHOWN])),
        left_out=max(0, len(rows) - MOST_SHOWN),
        telling=TELLING,
    )
    write_atomically(out / "page.html", page.encode(), mode=0o600)
    return table


def _pictures(predictor: Predictor, rows: list[tuple[Record, Tested]]) -> Iterator[dict[str, Any]]:
    """What the page shows of each image."""
    for record, tested in track(rows, "drawing the page", len(rows)):
        row = {"said": tested, "regions": "", "map": ""}
        try:
            pixels, masks = predictor.models.pixels(record)
        except DataError:  # it has gone since
            yield row
            continue
        number = predictor.names.index(tested.predicted)
        likeness = predictor.models.class_map(pixels, number)
        row["regions"] = jpeg_uri(outlined(pixels, masks, MAP_SIDE))
        row["map"] = jpeg_uri(resized(heat_map(pixels, likeness), MAP_SIDE))
        yield row


def show_held_out(found: dict[str, Any], out: Path, console: Console) -> None:
    """What the held-out images came to, for people."""
    title = f"{found['right']} of {found['images']} right: {out / 'page.html'}"
    table = Table(title=title, title_justify="left")
    for name in ("wrong", "label", "predicted", "probability"):
        table.add_column(name, overflow="fold")
    wrong = [each for each in found["tested"] if not each["right"]]
    for each in wrong[:LISTED]:
        share = f"{100 * each['confidence']:.0f} %"
        words = (each["image"], each["label"], each["predicted"], share)
        table.add_row(*map(printable, words))
    console.print(table)
    if len(wrong) > LISTED:
        console.print(f"and {len(wrong) - LISTED} more, all on the page and in test.json")
