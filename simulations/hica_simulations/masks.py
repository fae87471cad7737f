"""Masks that are damaged on purpose: how much does a study depend on what experts drew?

A damaged mask is a 1-bit PNG whose name is a hash of all that it is drawn from, so that it is
drawn once, and never taken for one of other settings.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, shift

from hica.errors import ConfigurationError
from hica.images.cache import key_of
from hica.images.decode import read_image, read_mask, stored_size
from hica.images.manifest import Record
from hica.progress import track
from hica.seeds import derived_seed
from hica.storage import write_atomically

Mask = NDArray[np.bool_]
MaskDamage = Literal["as drawn", "dilated", "shifted", "replaced", "none"]

VERSION = 1
"""To be raised whenever the same settings would draw another mask."""


def with_damaged_masks(
    records: Sequence[Record],
    site: Sequence[Record],
    damage: MaskDamage,
    share: float,
    seed: int,
    folder: Path,
) -> list[Record]:
    """Records that name damaged masks, drawn into `folder` where they are not there yet.

    Rows without a mask stay without. `replaced` draws from the masks of all rows of the `site`, not
    of `records` alone: what an image gets would depend on which others are kept. `share` is how far
    masks are `dilated` and `shifted`, as a share of the image's shorter side. Draws of the same
    seed and image name are the same.

    Raises:
        ConfigurationError: There is no other mask to replace one by.
        DataError: An image or mask cannot be read, or their sizes differ.
        StorageError: A mask cannot be written.
    """
    if damage == "as drawn":
        return list(records)
    if damage == "none":
        return [replace(record, mask=None) for record in records]
    donors = sorted((row for row in site if row.mask), key=lambda row: row.name)
    masked = [record for record in records if record.mask]
    sources = {
        record.name: _another(record, donors, seed, folder) if damage == "replaced" else record
        for record in masked
    }
    files = {
        name: folder / f"{key_of(VERSION, damage, share, seed, name, source.name)[:32]}.png"
        for name, source in sources.items()
    }
    missing = [record for record in masked if not files[record.name].is_file()]
    if missing:
        for record in track(missing, f"{folder}: drawing masks, {damage}"):
            mask = _damaged(record, sources[record.name], damage, share, seed)
            write_atomically(files[record.name], _png(mask))
    return [replace(r, mask=files[r.name]) if r.mask else r for r in records]


def dilated(mask: Mask, share: float) -> Mask:
    """`mask` [H, W] with all pixels within `share` of the shorter side of it (Euclidean)."""
    if not mask.any():  # the distance to nothing is undefined
        return mask
    return np.asarray(distance_transform_edt(~mask) <= round(share * min(mask.shape)))


def shifted(mask: Mask, share: float, angle: float) -> Mask:
    """`mask` [H, W] moved by `share` of the shorter side, below 0.5; what leaves the frame is lost.

    `angle` is in radians, from the right downwards. A mask that would be lost as a whole goes the
    opposite way, else to one of the two sides: one of the four ways leads towards the centre, where
    some of it remains.
    """
    distance = share * min(mask.shape)
    right, down = round(distance * math.cos(angle)), round(distance * math.sin(angle))
    ways = [(down, right), (-down, -right), (right, -down), (-right, down)]
    moved = [shift(mask, way, order=0) for way in ways]
    return next((each for each in moved if each.any()), moved[0])


def resized(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """`mask` as `[H, W]` of `shape`, by the nearest neighbour."""
    # Pixel i of n has its centre at (i + 1/2) / n of the side; in whole numbers, to be exact.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _damaged(record: Record, source: Record, damage: MaskDamage, share: float, seed: int) -> Mask:
    """The mask of `source`, damaged for the image of `record`."""
    mask = _read(source)
    if damage == "dilated":
        return dilated(mask, share)
    if damage == "shifted":
        turn = derived_seed(seed, "shifted mask", record.name) / 2**56
        return shifted(mask, share, math.tau * turn)
    return resized(mask, _read(record).shape)


def _another(record: Record, donors: Sequence[Record], seed: int, folder: Path) -> Record:
    """The row of `donors`, sorted by name, whose mask takes the place of the record's own."""
    if len(donors) < 2:
        raise ConfigurationError(
            f'simulation.masks = "replaced": {record.name} has the only mask at site '
            f'{folder.parent.name}; choose another damage, for example "shifted", or give the site '
            "more images with masks"
        )
    place = derived_seed(seed, "replaced mask", record.name) % (len(donors) - 1)
    return donors[place + (donors[place].name >= record.name)]  # passes over its own


def _read(record: Record) -> Mask:
    """The mask of a record, checked against its image: a damaged one would hide what is wrong."""
    assert record.mask is not None
    image = read_image(record.image)
    return read_mask(record.mask, image.size, stored_size(image))


def _png(mask: Mask) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()
