"""Masks: integers that nobody without the key can tell from random ones.

The keystream of ChaCha20 (RFC 8439) under a key of 32 bytes that is used once. Flower's own
`secure_aggregation.secaggplus_utils.pseudo_rand_gen` is not used: it folds the shared key to 32
bits, seeds NumPy's Mersenne Twister with them, and so makes masks whose seed can be searched, and
which tell the rest of themselves after 624 words; its range also leaves out the largest number.
"""

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from hica.secure_sum.quantise import Integers

BLOCK = 2**20
"""Bytes of keystream made at a time: they stay in the processor's cache."""

KEY_BYTES = 32


def add_mask(arrays: Mapping[str, Integers], key: bytes, sign: int) -> None:
    """Add (`sign` 1) or take off (-1) the mask of a key, in place.

    Two calls with equal names, shapes and types use equal masks. The key has 32 bytes and is for
    one mask only.

    Raises:
        ValueError: Another sign, a key of another length, or an array that is not contiguous, of
            which only a copy would be masked.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign is {sign}")
    if not all(array.flags.c_contiguous for array in arrays.values()):
        raise ValueError("an array is not contiguous")
    # The nonce may be fixed as no key is used twice; its first half is the counter of blocks.
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    zeros = bytes(BLOCK)
    for name in sorted(arrays):
        flat = arrays[name].reshape(-1)
        little_endian = flat.dtype.newbyteorder("<")
        entries = BLOCK // flat.itemsize
        for start in range(0, len(flat), entries):
            part = flat[start : start + entries]
            mask = np.frombuffer(stream.update(zeros[: part.nbytes]), little_endian)
            (np.add if sign == 1 else np.subtract)(part, mask, out=part, casting="unsafe")
