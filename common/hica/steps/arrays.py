"""Arrays of a step: what a request and an answer hold, declared before anything is sent.

Both sides read the declarations: the coordinator refuses answers by them and a site refuses
requests, before it touches an image. Ranges also say how finely a secure sum counts, and `moves`
how much noise a private one needs.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hica.errors import MessageError
from hica.study import Study

LARGEST_FEATURE = 4096.0
"""Of any feature of an image or region."""
LARGEST_CHANGE = 8.0
"""Of a single weight in a round, times its share of the most examples; a weight that moves further
has diverged. At 20 sites the mean is then exact to 6e-8, as float32 is near 1."""
LARGEST_UNIT = 1.01
"""Of any number in a row of norm 1, rounding included."""
COUNT_SCALE = 0.25
"""Counts get four times the noise of sums: they only weigh what the sums say."""


@dataclass(frozen=True)
class Array:
    """An array in a request or an answer.

    Attributes:
        name: In the message; `shared.*` stands for all trained weights.
        shape: Sizes, or names of sizes (`Sizes`).
        dtype: NumPy's name.
        low: Smallest value that can be right.
        high: Largest.
        moves: The most that one patient changes it, as L2 norm; None: without bound.
        each: Of counts, the most that one image adds to all of them together; of sums, the largest
            number, without sign, in the row of anything that is counted; None: not said.
    """

    name: str
    shape: tuple[str | int, ...]
    dtype: str
    low: float
    high: float
    moves: float | None = None
    each: float | None = None

    @property
    def largest(self) -> float:
        """Of its values, without sign."""
        return max(-self.low, self.high)

    def check(self, values: NDArray[Any], times: int = 1) -> None:
        """Refuse values outside the range; of a sum over `times` sites it is as much wider.

        Raises:
            MessageError: Names array and range.
        """
        if values.size and not (
            values.min() >= times * self.low and values.max() <= times * self.high
        ):
            raise MessageError(
                f"array {self.name!r} holds values from {values.min():.4g} to {values.max():.4g}, "
                f"possible are {times * self.low:g} to {times * self.high:g}"
            )


WEIGHTS_ARRAY = "shared.*"


def sums(
    shape: tuple[str | int, ...],
    largest: float,
    moves: float | None = None,
    each: float = LARGEST_UNIT,
) -> Array:
    """Sums over a site's images, of unit rows where nothing else is said."""
    return Array("sums", shape, "float64", -largest, largest, moves, each)


def counts(
    groups: str | int, largest: float, moves: float | None = None, each: float = 1.0
) -> Array:
    """How many images are in each sum."""
    return Array("counts", (groups,), "float64", 0.0, largest, moves, each)


CENTROIDS = Array("centroids", ("clusters", "width"), "float64", -LARGEST_UNIT, LARGEST_UNIT)
"""[k, D] of stage 1: means of unit rows."""

STATE_ARRAYS = (
    Array("anchor.classes", ("classes", "width"), "float32", -LARGEST_UNIT, LARGEST_UNIT),
    Array("anchor.findings", ("findings", "width"), "float32", -LARGEST_UNIT, LARGEST_UNIT),
    Array("centre", (2, "width"), "float32", -LARGEST_FEATURE, LARGEST_FEATURE),
    Array("scale", (2, "width"), "float32", 1e-12, LARGEST_FEATURE),
    Array("bias", ("classes",), "float64", -1e6, 1e6),
)
"""What every request carries beside the weights (`State.arrays`)."""
LARGEST_WEIGHT = 1e6
"""Of a trained weight in a request: beyond it features overflow."""


@dataclass(frozen=True)
class Sizes:
    """What the names in the shapes of arrays stand for, in one study and at one moment.

    `width` is D, of a feature; `clusters` is k, of the centroids there are, or the study's number
    before there are any.
    """

    study: Study
    width: int
    clusters: int

    def of(self, array: Array) -> tuple[int, ...]:
        """The shape of an array in numbers."""
        named = {
            "classes": len(self.study.classes),
            "findings": len(self.study.finding_names),
            "width": self.width,
            "clusters": self.clusters,
            "subspace": subspace_size(self.study, self.width),
        }
        return tuple(named[size] if isinstance(size, str) else size for size in array.shape)


def subspace_size(study: Study, width: int) -> int:
    """Dimensions in which clusters are found: of a private study those it names, else all."""
    wanted = study.privacy.cluster_dimensions if study.privacy.is_private else 0
    return wanted if 0 < wanted < width else width
