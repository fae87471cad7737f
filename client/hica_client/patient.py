"""Which images are a patient's: by today's manifest, and by what was drawn before.

Where both speak of an image, today's manifest decides: a patient_id may have been put right.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from hica.cohort.draw import (
    DRAW,
    Drawn,
    hash_of,
    hashed,
    load_draw,
    or_name,
    patient_mark,
    unreadable,
)
from hica.errors import DataError, HicaError, gathering
from hica.images.manifest import Record, patients_by_image
from hica.printable import listed
from hica_client.site import Site


@dataclass(frozen=True)
class Found:
    """A patient's images."""

    images: frozenset[str]
    """The SHA-256 of each file, also of those that are in the manifest no more."""
    rows: dict[str, str]
    """Those that are in the manifest: as it writes them, with their SHA-256."""
    others: list[str]
    """Rows of another patient today, whose images were once said to be this one's: left alone."""
    problems: list[HicaError]
    """What could not be read, and may tell of more images."""

    @property
    def words(self) -> str:
        """How many images, and which rows."""
        words = f"{len(self.images)} images; rows of the manifest: {named(self.rows)}"
        if self.others:
            words += f"; left alone, as they are of another patient now: {named(self.others)}"
        return words


def images_of(site: Site, patient: str) -> Found:
    """Look for a patient's images; what cannot be read is passed over, and told.

    `patient` is a `patient_id` of the manifest; for an image without one, what stands in its column
    `image`.

    Raises:
        HicaError: There is none. Or the file of a row of theirs is away, and no draw knows what it
            held: names the rows.
    """
    problems: list[HicaError] = []
    patients: dict[str, str] = {}
    with gathering(problems):
        patients = patients_by_image(site.data.manifest)
    drawn: list[Drawn] = []
    for path in draws_of(site):
        with gathering(problems):
            draw = load_draw(path)
            images = draw.images.values() if draw else ()
            drawn += [each for each in images if each.sha256 != unreadable(each.name)]
    folder = site.data.manifest.parent
    own = {name for name, given in patients.items() if patient == (given or name)}
    rows = _hashes(folder, own)
    once = {each.name: each.sha256 for each in drawn if _is_theirs(each, patient, rows)}
    rows |= {name: once[name] for name in own - rows.keys() if name in once}
    if away := own - rows.keys():
        raise DataError(
            f"{site.data.manifest}: the files of these rows of {patient!r} cannot be read: "
            f"{named(away)}. Nothing was done, as an image is known by its content only: bring the "
            "files back, or, if they are gone for good, take these rows out; then give the same "
            "command again"
        )
    known = {*rows.values(), *(each.sha256 for each in drawn if _is_theirs(each, patient, rows))}
    others: list[str] = []
    if unsaid := known - set(rows.values()):
        here = {each.name: each.sha256 for each in drawn}
        here |= _hashes(folder, patients.keys() - own)
        moved = [name for name in patients.keys() - own if here.get(name) in unsaid]
        others = [name for name in moved if patients[name]]
        known -= {here[name] for name in others}
        rows |= {name: here[name] for name in moved if here[name] in known}
    if not known and problems:
        raise problems[0]
    if not known:
        also = f" Of another patient now: {named(others)}." if others else ""
        raise DataError(
            f"{site.data.manifest}: no image of the patient {patient!r}: give the patient_id as it "
            "stands there; for an image without one, what stands in its column image. Who has "
            f"withdrawn already is in it no more.{also}"
        )
    return Found(frozenset(known), rows, sorted(others), problems)


def draws_of(site: Site) -> list[Path]:
    """The draws of all studies that the site keeps."""
    return sorted(site.data.state.glob(f"*/{DRAW}"))


def named(rows: Iterable[str]) -> str:
    """Rows of a manifest by their images, in words."""
    return listed(sorted(rows)) or "none"


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files of a manifest's images, of those that can be read."""
    rows = [Record(folder / name, name=name) for name in sorted(names)]
    hashes = hashed(rows, or_name(hash_of))
    return {name: image for name, image in hashes.items() if image != unreadable(name)}


def _is_theirs(drawn: Drawn, patient: str, readable: Container[str]) -> bool:
    """Whether an image was ever said to be the patient's; one of no patient is known by its name.

    Unless another image may have that name now, which can be read.
    """
    if patient_mark(patient) in drawn.marks:
        return True
    nobody = not any(mark.startswith(patient_mark("")) for mark in drawn.marks)
    return nobody and drawn.name == patient and patient not in readable
