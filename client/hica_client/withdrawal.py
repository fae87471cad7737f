"""A patient withdraws: out of manifest, cache and all that is kept, and not taken in again.

The record is written first. It names the images by their hashes, and nobody by name. Whatever is
interrupted after that: a withdrawn image is passed over wherever it comes from, and the next
session of each study takes it out of what the study keeps.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hica.cohort.draw import (
    DRAW,
    Draw,
    hash_of,
    hashed,
    load_draw,
    marks_of,
    or_name,
    save_draw,
)
from hica.errors import gathering
from hica.images.cache import TensorCache
from hica.images.manifest import Record, examine_manifest, take_out
from hica.steps.model_file import NAME as MODEL
from hica.steps.personal import ALONE_MODEL, PERSONAL_MODEL
from hica.storage import cannot_be_written
from hica.wire.checkpoint import load_state, save_state
from hica_client.chain import Chain
from hica_client.patient import Found, draws_of, images_of
from hica_client.site import Site

REMEDY = (
    "Restore it from a backup with its head. Without it a patient who withdrew may be taken in "
    "again; take the rows of all of them out of the manifest, then move both files away together"
)


REMAINS = (
    "What remains: weights and sums that left this site before, and what models have learnt from "
    "them; answers that are kept to be given again, unchanged (sums and weights, no images); the "
    "audit log and the ledger, which name no patient; your image files and backups, and a contact "
    "sheet that was written elsewhere than into the state folder. A round that is being answered "
    "at this moment may still hold the patient. Numbers of images and metrics that left before, "
    "seen beside those that leave later, may tell that a patient has gone, and of which class."
)


Said = dict[str, set[str]]
"""Marks (`hica.cohort.draw.marks_of`) by the SHA-256 of an image's file."""


@dataclass(frozen=True)
class Withdrawal:
    """The images of a patient who has withdrawn: the SHA-256 of each file."""

    time: str
    images: frozenset[str]


def withdraw(site: Site, patient: str, user: str) -> Found:
    """Take a patient out of all that the site still holds, and log it; returns what was found.

    `patient` is as in `images_of`. What is known is recorded first, and holds from then on: that
    something else cannot be read or written does not keep a patient in.

    Raises:
        HicaError: There is no image of the patient, or the record of withdrawals was changed:
            nothing was done. Or the patient is recorded, and something could not be read or
            written: the same command goes on from there.
    """
    found = images_of(site, patient)
    with Chain(site.withdrawals, REMEDY).held() as tail:
        tail.append({"event": "withdrawal", "user": user, "images": sorted(found.images)})
    known = withdrawn(site)
    problems, said, cache = list(found.problems), Said(), TensorCache(site.data.cache)
    if found.rows:
        with gathering(problems):
            rows = examine_manifest(site.data.manifest).records
            _, said = left_in([row for row in rows if row.name in found.rows], known)
    for path in draws_of(site):
        with gathering(problems):
            prune(path.parent, known, said)
    if found.rows:
        with gathering(problems):
            take_out(site.data.manifest, found.rows.keys())
    for image in found.images:
        with gathering(problems):
            cache.forget(image)
    with gathering(problems):
        _delete(site.contact_sheet)
    if problems:
        raise type(problems[0])(
            f"{len(found.images)} images of {patient!r} are recorded as withdrawn, and used no "
            f"more. But not all could be done: {'. '.join(map(str, problems))}. Mend this, then "
            "give the same command again"
        )
    return found


def _delete(path: Path) -> None:
    """Delete a file, if it is there.

    Raises:
        StorageError: It cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def withdrawn(site: Site) -> list[Withdrawal]:
    """All who have withdrawn.

    Raises:
        DataError: The record was changed or cut short.
        StorageError: It cannot be read.
    """
    entries = Chain(site.withdrawals, REMEDY).verify()
    return [Withdrawal(entry["time"], frozenset(entry["images"])) for entry in entries]


def left_in(
    records: Sequence[Record], withdrawals: Sequence[Withdrawal]
) -> tuple[list[Record], Said]:
    """The rows whose image is of nobody who has withdrawn, whatever its name is now.

    And what the other rows say of theirs.
    """
    gone = _images(withdrawals)
    left, said = list[Record](), defaultdict[str, set[str]](set)
    if not gone:
        return list(records), said
    hashes = hashed(records, or_name(hash_of))
    for row in records:
        if hashes[row.name] in gone:
            said[hashes[row.name]] |= marks_of(row)
        else:
            left.append(row)
    return left, said


def prune(folder: Path, withdrawals: Sequence[Withdrawal], said: Said) -> None:
    """Take the images of all who have withdrawn out of what a study keeps in its folder.

    A round that was under way may have written some of them after the draw was pruned. `said` is
    what the manifest says of these images, which a held-out one may be linked to by.

    Raises:
        CheckpointError: What it keeps is damaged.
        StorageError: It cannot be written.
    """
    draw = load_draw(folder / DRAW)
    if draw is None or not withdrawals:
        return
    less = draw_left(draw, withdrawals, said)
    pruned = less.withdrawn > draw.withdrawn
    gone = {*(draw.images.keys() - less.images.keys()), *_images(withdrawals)}
    for path in folder.glob("*.safetensors"):
        if path.stem not in (MODEL, PERSONAL_MODEL, ALONE_MODEL) and not path.name.endswith(
            (".previous.safetensors", ".damaged.safetensors")
        ):
            _prune_state(folder, path.stem, gone, pruned)
    if pruned:
        save_draw(folder / DRAW, less)


def draw_left(draw: Draw, withdrawals: Sequence[Withdrawal], said: Said) -> Draw:
    """A draw without the images of all who have withdrawn, each patient counted once."""
    if not withdrawals:
        return draw
    draw = draw.with_marks({i: said.get(each.sha256, set()) for i, each in draw.images.items()})
    for images in _by_patient(withdrawals):
        draw = draw.without({i for i, each in draw.images.items() if each.sha256 in images})
    return draw


def _images(withdrawals: Sequence[Withdrawal]) -> set[str]:
    """The images of all who have withdrawn."""
    return set[str]().union(*(each.images for each in withdrawals))


def _by_patient(withdrawals: Sequence[Withdrawal]) -> list[set[str]]:
    """The images of each patient: who was recorded twice, the second time perhaps with more."""
    patients: list[set[str]] = []
    for each in withdrawals:
        images = set(each.images).union(*(had for had in patients if had & each.images))
        patients = [*(had for had in patients if not had & each.images), images]
    return patients


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
