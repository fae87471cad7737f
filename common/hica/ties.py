"""Choices among equals that do not depend on rounding.

BLAS and LAPACK round otherwise on another processor, so that of scores that are equal in exact
arithmetic any may come out largest.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_largest(scores: NDArray[np.float64], tolerance: float = 1e-9) -> NDArray[Any]:
    """Index [...] of the largest score in each row: of those equal but for rounding, the first.

    Scores [..., n] are finite; equal ones may differ by a share `tolerance` of the row's largest
    magnitude.
    """
    rounding = tolerance * np.abs(scores).max(axis=-1, keepdims=True)
    return np.asarray((scores >= scores.max(axis=-1, keepdims=True) - rounding).argmax(axis=-1))
