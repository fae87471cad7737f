"""contact_sheet: a picture of what the model will see, for the person who knows the images.

A sample of each class and of what has no label, and first of all what looks wrong. With a study
each image is the square that the study's tower is given, with the regions of the study's method
drawn in; without one it is the whole image, with the outline of its mask. The sheet shows patients:
only its owner may read the file, it stays at the site, and `withdraw` deletes it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record
from hica.images.pixels import pixels_of
from hica.images.preprocess import Preprocess
from hica.progress import track
from hica.regions import RegionMethod, extract
from hica.storage import write_atomically
from hica_client.preflight_images import Seen
from hica_client.sheet_layout import SIDE, Section, Tile, draw_sheet, is_sheet, outlined
from hica_client.site import Site
from hica_client.withdrawal import left_in, withdrawn

OF_A_CLASS = 8
"""Images of each class; one row."""
FLAGGED = 16
"""Images that look wrong."""
CLASSES = 12
"""Classes that are shown, the most frequent ones; so the sheet has 120 squares at most."""
SLOW_METHOD = 4
"""Images that a region method is run on where it takes half a minute each."""
LOOKS_WRONG, UNLABELLED = "looks wrong", "without label"
HALF = (0.5, 0.5, 0.5)
PLAIN = Preprocess(SIDE, HALF, HALF, resize="longest")
"""How an image is shown without a study: all of it."""


@dataclass(frozen=True)
class Shown:
    """How the model of a study is shown an image."""

    study: str
    preprocess: Preprocess
    method: RegionMethod
    count: int
    """Regions of an image."""
    name: str
    """`regions.method`, in the study's words."""

    @property
    def is_slow(self) -> bool:
        """Whether the regions of one image take half a minute without a GPU."""
        return self.name in ("sam", "hf-sam")


def check_place(path: Path) -> None:
    """Check that a contact sheet may be written to `path`.

    Raises:
        ConfigurationError: It is no PNG, or a file that is no contact sheet is there.
    """
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"--sheet {path}: give the file the suffix .png")
    if path.exists() and not is_sheet(path):
        raise ConfigurationError(
            f"--sheet {path}: another file is there and is left alone; give another name"
        )


def write_sheet(
    path: Path, site: Site, seen: Sequence[Seen], marks: Mapping[str, str], shown: Shown | None
) -> Path:
    """Write the contact sheet of a site's images; memory and size do not grow with their number.

    `marks` is what is wrong with single images beside their looks, by their names.

    Raises:
        DataError: The record of withdrawals was changed.
        StorageError: The file cannot be written.
    """
    chosen = sample(seen, marks)
    rows = [each.record for rows in chosen.values() for each in rows]
    left = {id(row) for row in left_in(rows, withdrawn(site))[0]}
    draw = _Drawing(shown, marks)
    work = [(title, each) for title, rows in chosen.items() for each in rows]
    tiles: defaultdict[str, list[Tile]] = defaultdict(list)
    for title, each in track(work, "drawing the contact sheet", len(work)):
        tile = draw.tile(each) if id(each.record) in left else None
        if tile is not None:
            tiles[title].append(tile)
    sections = [
        Section(f"{title}: {len(tiles[title])} of {_number(seen, marks, title):,}", tiles[title])
        for title in chosen
    ]
    title = f"{site.site.name}: {len(seen):,} images, {_seen_as(shown)}"
    lines = _legend(shown)
    hidden = len({each.record.label for each in seen} - {None}) - CLASSES
    if hidden > 0:
        lines.append(f"{hidden} more classes are not shown.")
    write_atomically(path, draw_sheet(title, lines, sections), mode=0o600)
    return path


def sample(seen: Sequence[Seen], marks: Mapping[str, str]) -> dict[str, list[Seen]]:
    """The images of each section by its title: what looks wrong, each class, what has no label."""
    of_class: defaultdict[str, list[Seen]] = defaultdict(list)
    of_kind: defaultdict[str, list[Seen]] = defaultdict(list)
    for each in seen:
        warning = warning_of(each, marks)
        of_class[_title(each.record)] += [] if warning else [each]
        if warning:
            of_kind[warning].append(each)
    unlabelled = of_class.pop(UNLABELLED, [])
    frequent = sorted(of_class, key=lambda title: -len(of_class[title]))[:CLASSES]
    kinds = sorted(of_kind.values(), key=lambda rows: not rows[0].look.blank)
    flagged = zip_longest(*kinds)  # some of each kind
    wrong = [each for row in flagged for each in row if each is not None]
    sections = {LOOKS_WRONG: wrong[:FLAGGED]}
    sections |= {title: spread(of_class[title], OF_A_CLASS) for title in sorted(frequent)}
    return sections | {UNLABELLED: spread(unlabelled, OF_A_CLASS)}


def warning_of(seen: Seen, marks: Mapping[str, str]) -> str:
    """What is wrong with an image, in a few words; empty where nothing is."""
    mark = marks.get(seen.record.name)
    return ", ".join([flag.name for flag in seen.look.flags] + ([mark] if mark else []))


def spread(rows: Sequence[Seen], count: int) -> list[Seen]:
    """At most `count` rows, evenly over all of them: the same at every call."""
    if len(rows) <= count:
        return list(rows)
    return [rows[number * len(rows) // count] for number in range(count)]


class _Drawing:
    """Draws images as a study's model is shown them."""

    def __init__(self, shown: Shown | None, marks: Mapping[str, str]) -> None:
        self.shown, self.marks = shown, marks
        self.runs = SLOW_METHOD if shown and shown.is_slow else 2**31

    def tile(self, seen: Seen) -> Tile | None:
        """The square of an image with its class and file; None where it can be read no more."""
        try:
            found = pixels_of(seen.record, self.shown.preprocess if self.shown else PLAIN)
        except DataError:
            return None
        warning = warning_of(seen, self.marks)
        mask = None if found.mask is None else found.mask.numpy()
        image = Image.fromarray(found.pixels.permute(1, 2, 0).numpy())
        regions: list[npt.NDArray[np.bool_]] = [] if mask is None else [mask]
        if self.shown:
            regions = []
            if self.runs > 0 and not (warning and self.shown.is_slow):
                self.runs -= 1
                method, count = self.shown.method, self.shown.count
                regions = list(extract(method, found.pixels, found.mask, count).numpy())
        lines = [_title(seen.record), seen.record.image.name]
        return Tile(outlined(image, regions), lines, warning)


def _title(record: Record) -> str:
    return f"class {record.label}" if record.label else UNLABELLED


def _number(seen: Sequence[Seen], marks: Mapping[str, str], title: str) -> int:
    """How many images there are of a section."""
    if title == LOOKS_WRONG:
        return sum(bool(warning_of(each, marks)) for each in seen)
    return sum(_title(each.record) == title for each in seen)


def _seen_as(shown: Shown | None) -> str:
    if shown is None:
        return "each as a whole"
    return f"as the model of {shown.study} is shown them"


def _legend(shown: Shown | None) -> list[str]:
    """Lines under the title."""
    lines = ["This sheet shows patients. It is for this hospital only: do not send it on."]
    if shown is None:
        return [
            *lines,
            "Outlines: the masks of the manifest. With --study the squares are those that the "
            "study's model is given, with its regions.",
        ]
    some = f", of {SLOW_METHOD} images only, as it is slow" if shown.is_slow else ""
    size = shown.preprocess.size
    how = {
        "squash": "both sides made equal",
        "shortest": "the middle cut out",
        "longest": "the whole image, the rest black",
    }[shown.preprocess.resize]
    return [
        *lines,
        f"Each square is {size} × {size} px to the model: {how}. Outlines: up to {shown.count} "
        f"regions by the method {shown.name}{some}; the largest is yellow.",
    ]
