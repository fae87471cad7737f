"""Numbers as integers modulo 2^32 or 2^64, so that masks hide them wholly and sums are exact.

Fixed point: a value is clipped to ±limit and rounded to a multiple of a step. The step is the
smallest that lets the sum of all sites lie below half the modulus, whatever they send.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("hica")

Integers = NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True)
class Range:
    """Which values of an array can be summed; public, and the same at all sites.

    Attributes:
        limit: Values beyond ±limit are clipped; a power of two, so that scaling is exact.
        bits: Of the integers that travel.
    """

    limit: float
    bits: Literal[32, 64]

    def __post_init__(self) -> None:
        if not self.limit > 0 or math.frexp(self.limit)[0] != 0.5:
            raise ValueError(f"limit {self.limit} is no power of two")

    @property
    def dtype(self) -> str:
        """NumPy's name of the integers."""
        return f"uint{self.bits}"

    def step(self, sites: int) -> float:
        """Distance of two neighbouring values; at most 2·limit·sites / 2^(bits − 1).

        A site's value is off by at most step / 2, a sum of n sites by n·step / 2 (and by
        float64's 2⁻⁵³ of it).
        """
        levels = (2 ** (self.bits - 1) - 1) // sites
        return float(self.limit / 2 ** (levels.bit_length() - 1))


def range_for(largest: float, bits: Literal[32, 64]) -> Range:
    """The narrowest range that holds ±`largest`."""
    return Range(2.0 ** math.ceil(math.log2(largest)), bits)


def quantise(values: NDArray[Any], range_: Range, sites: int, name: str = "values") -> Integers:
    """Values of any shape as integers: the same for the same values, as a repeated round must be.

    Negative ones are 2^bits − |q|. `sites` is how many may be in the sum; `name` is that of the
    array, for the log. A value that is not finite counts as zero: a refusal would tell of this
    site alone.
    """
    exact = np.asarray(values, dtype=np.float64)
    if not np.isfinite(exact).all():
        logger.error("%s: values that are not finite count as zero in the sum", name)
        exact = np.nan_to_num(exact, nan=0.0, posinf=0.0, neginf=0.0)
    clipped = exact.clip(-range_.limit, range_.limit)
    beyond = int((clipped != exact).sum())
    if beyond:
        logger.warning("%s: %d values beyond ±%g were clipped", name, beyond, range_.limit)
    signed = np.rint(clipped / range_.step(sites)).astype(f"int{range_.bits}", order="C")
    integers: Integers = signed.view(range_.dtype)
    return integers


def restore(total: Integers, range_: Range, sites: int) -> NDArray[np.float64]:
    """The sum of what was quantised, from the sum of the integers modulo 2^bits.

    `sites` is as given to `quantise`, however many are in the sum.
    """
    signed = np.ascontiguousarray(total).view(f"int{range_.bits}")
    values: NDArray[np.float64] = signed.astype(np.float64) * range_.step(sites)
    return values
