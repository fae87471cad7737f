"""A patient withdraws: out of manifest, cache and all that is kept, and not taken in again.

The record is written first. It names the images by their hashes, and nobody by name. Whatever is
interrupted after that: a withdrawn image is passed over wherever it comes from, and the next
session of each study takes it out of what the study keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hica.cohort.draw import DRAW, hash_of, load_draw, or_name, patient_mark, save_draw
from hica.errors import DataError
from hica.images.cache import TensorCache, file_sha256
from hica.images.manifest import Record, names_of, take_out
from hica.wire.checkpoint import load_state, save_state
from hica_client.chain import Chain
from hica_client.site import Site

REMEDY = (
    "Restore it from a backup with its head. Without it a patient who withdrew may be taken in "
    "again; take the rows of all of them out of the manifest, then move both files away together"
)


REMAINS = (
    "What remains: weights and sums that left this site before, and what models have learnt from "
    "them; answers that are kept to be given again, unchanged (sums and weights, no images); the "
    "audit log and the ledger, which name no patient; your image files and backups. A round that "
    "is being answered at this moment may still hold the patient."
)


@dataclass(frozen=True)
class Withdrawal:
    """The images of a patient who has withdrawn: the SHA-256 of each file."""

    time: str
    images: frozenset[str]


def withdraw(site: Site, patient: str, user: str) -> int:
    """Take a patient out of all that the site still holds, and log it; returns how many images.

    `patient` is a `patient_id` of the manifest; for an image without one, what stands in its column
    `image`.

    Raises:
        DataError: There is no image of the patient, one cannot be read, or the record of
            withdrawals was changed.
        StorageError: A file cannot be written; the same command goes on from there.
    """
    names, images = images_of(site, patient)
    with Chain(site.withdrawals, REMEDY).held() as tail:
        tail.append({"event": "withdrawal", "user": user, "images": sorted(images)})
    take_out(site.data.manifest, names)
    cache = TensorCache(site.data.cache)
    for image in images:
        cache.forget(image)
    known = withdrawn(site)
    for path in site.data.state.glob(f"*/{DRAW}"):
        prune(path.parent, known)
    return len(images)


def images_of(site: Site, patient: str) -> tuple[set[str], set[str]]:
    """Names in the manifest and SHA-256 of a patient's images, also of those drawn and since gone.

    Raises:
        DataError: There is none, or the manifest or an image cannot be read.
    """
    names = names_of(site.data.manifest, patient)
    files = (site.data.manifest.parent / name for name in names)
    images = {file_sha256(file) for file in files if file.is_file()}
    for path in site.data.state.glob(f"*/{DRAW}"):
        draw = load_draw(path)
        drawn = draw.images.values() if draw else ()
        images |= {each.sha256 for each in drawn if patient_mark(patient) in each.marks}
    if not images:
        raise DataError(
            f"{site.data.manifest}: no image of the patient {patient!r}: give the patient_id as it "
            "stands there; for an image without one, what stands in its column image"
        )
    return names, images


def withdrawn(site: Site) -> list[Withdrawal]:
    """All who have withdrawn.

    Raises:
        DataError: The record was changed or cut short.
        StorageError: It cannot be read.
    """
    entries = Chain(site.withdrawals, REMEDY).verify()
    return [Withdrawal(entry["time"], frozenset(entry["images"])) for entry in entries]


def left_in(records: Sequence[Record], withdrawals: Sequence[Withdrawal]) -> list[Record]:
    """The rows whose image is of nobody who has withdrawn, whatever its name is now."""
    gone = set().union(*(each.images for each in withdrawals))
    if not gone:
        return list(records)
    read = or_name(hash_of)
    return [row for row in records if read(row) not in gone]


def prune(folder: Path, withdrawals: Sequence[Withdrawal]) -> None:
    """Take the images of all who have withdrawn out of what a study keeps in its folder.

    A round that was under way may have written some of them after the draw was pruned.

    Raises:
        CheckpointError: What it keeps is damaged.
        StorageError: It cannot be written.
    """
    draw = load_draw(folder / DRAW)
    if draw is None or not withdrawals:
        return
    less, gone = draw, set[str]().union(*(each.images for each in withdrawals))
    for each in withdrawals:
        ids = {name for name, drawn in draw.images.items() if drawn.sha256 in each.images}
        less, gone = less.without(ids), gone | ids
    for path in folder.glob("*.safetensors"):
        if not path.name.endswith((".previous.safetensors", ".damaged.safetensors")):
            _prune_state(folder, path.stem, gone, less is not draw)
    if less is not draw:
        save_draw(folder / DRAW, less)


def _prune_state(folder: Path, name: str, gone: set[str], always: bool) -> None:
    """Take images out of a state that has a row for each (`images`, see `SiteData.images`).

    `always`: also where it has none of them, as the state before it may.
    """
    arrays, meta = load_state(folder, name)
    if "images" not in arrays:
        return
    left = np.array([bytes(row).hex() not in gone for row in arrays["images"]], dtype=bool)
    if left.all() and not always:
        return
    for _ in range(2):  # the state before it, too
        save_state(folder, name, {key: value[left] for key, value in arrays.items()}, meta)
