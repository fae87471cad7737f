"""Second pass of an import: pictures that were chosen are decoded and written, pixels only.

A picture is written as the model would see it: 8 bits, window and orientation applied, as PNG
without any text. Its name is a pseudonym and a keyed hash of what it shows.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hica.errors import DataError
from hica.images.decode import decode_picture, read_bytes
from hica.progress import track
from hica.storage import write_atomically
from hica_client.intake import reasons
from hica_client.intake.burned_in import looks_lettered
from hica_client.intake.dicom import Area, quiet
from hica_client.intake.duplicates import perceptual_hash
from hica_client.intake.medmnist import Entry, entries
from hica_client.intake.pseudonyms import Pseudonyms
from hica_client.intake.register import CHOSEN, Register
from hica_client.intake.scan import key_of, stamp_of
from hica_client.intake.walk import Found, walk

UNKNOWN = "unknown"
"""Folder of the pictures of which nobody knows whose they are."""
ANYONE = Path("picture")
"""In messages, in place of a path."""
MOST_BYTES = 2 * 2**30
"""Of a file."""
MOST_KINDS = 10
"""Of decoding errors that are told apart."""


class Chosen(NamedTuple):
    """What the header says of a picture that is to be written."""

    owner: str
    burned_in: bool
    areas: list[Area]


class Taken(NamedTuple):
    """A decoded picture, and by which way it came to 8 bits."""

    image: Image.Image
    """8-bit RGB."""
    way: str


@dataclass
class Taker:
    """Decodes and writes pictures into a folder."""

    folder: Path
    register: Register
    pseudonyms: Pseudonyms
    withdrawn: frozenset[str]
    """SHA-256 of the files that are never taken in again."""
    skip_burned_in: bool = False
    failures: Counter[str] = field(default_factory=Counter)
    """What was said of pictures that cannot be decoded."""

    def take(self, source: Path) -> None:
        """Decode and write every picture that is chosen and is not there yet.

        Raises:
            StorageError: The disk is full or the folder may not be written.
        """
        total = self.register.value("SELECT count(*) FROM sources WHERE run = ?", self.register.run)
        for found, entry in track(self._steps(source), "decoding and writing pictures", total):
            key = key_of(found, self.pseudonyms, entry.name if entry else "")
            chosen = self._chosen(key, stamp_of(found))
            if chosen is None:
                continue
            try:
                taken = _of_entry(entry) if entry else _decoded(found)
            except DataError as error:
                self._fail(key, str(error).removeprefix(f"{ANYONE}: "))
                continue
            self._keep(key, chosen, taken)
        self.register.change(
            f"UPDATE sources SET left_out = ? WHERE run = ? AND picture = '' AND {CHOSEN}",
            *(reasons.GONE, self.register.run),
        )
        self.register.commit()

    def _steps(self, source: Path) -> Iterator[tuple[Found, Entry | None]]:
        """The files, and the pictures of those that hold several."""
        for found in walk(source):
            inside = f"SELECT count(*) FROM sources WHERE key = ? AND run = {self.register.run}"
            alone = found.reason or self.register.value(inside, key_of(found, self.pseudonyms))
            if alone or not found.name.lower().endswith(".npz"):
                yield found, None
                continue
            try:
                for entry in entries(found.path):
                    yield found, entry
            except ValueError as error:
                self.failures[f"MedMNIST file cut short or damaged ({error}): copy it again"] += 1

    def _chosen(self, key: str, stamp: str) -> Chosen | None:
        """What a header says of a picture that is to be written; None where it is not."""
        row = next(
            self.register.rows(
                "SELECT owner, burned, areas, sources.picture, bytes, sha256 FROM sources "
                "LEFT JOIN pictures USING (picture) WHERE key = ? AND stamp = ? AND run = ? "
                f"AND {CHOSEN}",
                *(key, self.register.stamp(stamp), self.register.run),
            ),
            None,
        )
        if row is None:
            return None
        owner, burned, areas, picture, size, sha256 = row
        if picture.startswith(f"{owner or UNKNOWN}/") and (
            sha256 in self.withdrawn or self._is_there(picture, size)
        ):
            return None
        self.register.change("UPDATE sources SET picture = '' WHERE key = ?", key)
        return Chosen(owner, bool(burned), json.loads(areas or "[]"))

    def _is_there(self, picture: str, size: int | None) -> bool:
        try:
            return (self.folder / f"{picture}.png").stat().st_size == size
        except OSError:
            return False

    def _fail(self, key: str, message: str) -> None:
        """Note a picture that cannot be decoded; what was said of it is kept in memory only."""
        kinds = self.failures
        kinds[message if message in kinds or len(kinds) < MOST_KINDS else "and others"] += 1
        self.register.change("UPDATE sources SET left_out = ? WHERE key = ?", reasons.DECODING, key)

    def _keep(self, key: str, chosen: Chosen, taken: Taken) -> None:
        """Write a picture and note what is to be known of it."""
        pixels = np.asarray(taken.image)
        grey = np.asarray(taken.image.convert("L"))
        if (pixels == grey[..., None]).all():
            pixels = grey
        lettered = looks_lettered(grey, chosen.areas)
        if self.skip_burned_in and (lettered or chosen.burned_in):
            self.register.change(
                "UPDATE sources SET left_out = ? WHERE key = ?", reasons.BURNED, key
            )
            return
        image = Image.fromarray(np.ascontiguousarray(pixels))  # without what a file has beside it
        name = self.pseudonyms.picture(pixels.shape, pixels.tobytes())
        picture = f"{chosen.owner or UNKNOWN}/{name}"
        out = io.BytesIO()
        image.save(out, "PNG")
        data = out.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        # Not durable: after a power cut the next import finds a picture of another size.
        if sha256 not in self.withdrawn:
            write_atomically(self.folder / f"{picture}.png", data, mode=0o600, durable=False)
        self.register.change(
            "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(picture, chosen.owner, sha256, len(data)),
            *(perceptual_hash(taken.image), int(lettered), taken.way),
        )
        self.register.change("UPDATE sources SET picture = ? WHERE key = ?", picture, key)


def _of_entry(entry: Entry) -> Taken:
    return Taken(Image.fromarray(entry.pixels).convert("RGB"), entry.way)


def _decoded(found: Found) -> Taken:
    """Decode a file.

    Raises:
        DataError: It cannot be read or decoded; says nothing of its path.
    """
    if found.size > MOST_BYTES:
        raise DataError(
            f"{ANYONE}: is too large: more than {MOST_BYTES:,} bytes; export it smaller"
        )
    try:
        with quiet():
            image, way, _ = decode_picture(read_bytes(found.path), ANYONE)
    except DataError as error:
        raise DataError(str(error).replace(str(found.path), str(ANYONE))) from None
    return Taken(image, way)
