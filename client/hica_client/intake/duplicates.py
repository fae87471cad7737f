"""Pictures that are nearly the same, by perceptual hash: they never lie on both sides of a test."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16
"""Of the hash, in bits: 256 of them."""
NEAR = 28
"""Bits in which two pictures may differ. Of the near-duplicates known in BUSI 9 of 10 differ in 26
or fewer; two films of 3,300 different chests differ in 44 at least."""
BLOCK = 1024
"""Pictures that are compared with as many others at a time."""


def perceptual_hash(image: Image.Image) -> bytes:
    """Of a picture, 32 bytes: the signs of the low frequencies of its cosine transform."""
    return np.packbits(imagehash.phash(image.convert("L"), SIDE).hash).tobytes()


def groups_of(hashes: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """The number of the group of each picture; pictures that are linked by others are one group."""
    blocks = [hashes[start : start + BLOCK] for start in range(0, len(hashes), BLOCK)]
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for (i, rows), (j, columns) in combinations_with_replacement(enumerate(blocks), 2):
        # ±1 for each bit: their product is 256 less twice the bits that differ.
        near = _signs(rows) @ _signs(columns).T >= 8 * len(hashes[0]) - 2 * NEAR
        left, right = np.nonzero(near)
        first.append(left + i * BLOCK)
        second.append(right + j * BLOCK)
    left, right = np.concatenate(first), np.concatenate(second)
    links = coo_array((np.ones(len(left), bool), (left, right)), (len(hashes), len(hashes)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _signs(hashes: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """`[n, bits]` of -1 and 1."""
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1)
    return bits.astype(np.float32) * 2 - 1
