"""Where the noise of differential privacy comes from."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from torch import Tensor

Numbers = NDArray[np.float64]
Values = TypeVar("Values", Numbers, "Tensor")

GRID = 2.0**-10
"""Grid of what leaves, over the standard deviation of its noise: too fine to matter, and so coarse
that the low bits of a noisy number, which can give it away (Mironov, 2012), are gone."""
CHUNK = 1 << 18
"""Normals made at a time, so that a large model needs no second copy of itself in random bits."""


def on_grid(noisy: Values, deviation: float) -> Values:
    """Noisy numbers rounded to multiples of `GRID` of their noise's deviation, as a power of two.

    Rounding comes after the noise, so it costs no privacy. Without noise nothing is rounded.
    """
    if deviation == 0:
        return noisy
    step = 2.0 ** math.floor(math.log2(deviation * GRID))
    return (noisy / step).round() * step


class NoiseSource(Protocol):
    """A source of independent random numbers, by name `secure` or `seeded`."""

    name: str

    def normal(self, shape: tuple[int, ...]) -> Numbers:
        """Standard normal numbers of this shape."""

    def uniform(self, n: int) -> Numbers:
        """Numbers [n], uniform in [0, 1)."""


class SecureNoise:
    """From the operating system's cryptographically secure generator: what a hospital uses.

    Bits of `os.urandom` become uniforms, and those normals by the inverse of the normal
    distribution. Of a single normal computed like this only some floating-point numbers can come
    out, and which ones differs with what it is added to, so that the low bits of a noisy number
    can give the number away (Mironov, 2012). Each normal is therefore half the sum of four, which
    an attacker would have to tell apart first (Holohan & Braghin, 2021, as in Opacus' secure mode),
    and what leaves is rounded (`on_grid`).
    """

    name = "secure"

    def normal(self, shape: tuple[int, ...]) -> Numbers:
        """Standard normal numbers of this shape."""
        result = np.empty(math.prod(shape))
        for start in range(0, len(result), CHUNK):
            part = result[start : start + CHUNK]
            # A half more than 52 bits is exact in a float64, never 0 and never 1.
            uniforms = (self._integers(4 * len(part), 52) + 0.5) * 2.0**-52
            part[:] = ndtri(uniforms).reshape(4, -1).sum(axis=0) / 2.0
        return result.reshape(shape)

    def uniform(self, n: int) -> Numbers:
        """Numbers [n], uniform over the multiples of 2⁻⁵³ in [0, 1)."""
        return self._integers(n, 53) * 2.0**-53

    def _integers(self, n: int, bits: int) -> Numbers:
        """Whole numbers [n] in 0 .. 2^bits - 1, as float64."""
        words = np.frombuffer(os.urandom(8 * n), dtype=np.uint64)
        return (words >> np.uint64(64 - bits)).astype(np.float64)


class SeededNoise:
    """From a seed, the same in every run (Philox; Salmon et al., 2011).

    For simulations and tests: who knows the seed can take the noise off again.
    """

    name = "seeded"

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(seed))

    def normal(self, shape: tuple[int, ...]) -> Numbers:
        """Standard normal numbers of this shape."""
        return self._generator.standard_normal(shape)

    def uniform(self, n: int) -> Numbers:
        """Numbers [n], uniform in [0, 1)."""
        return self._generator.random(n)
