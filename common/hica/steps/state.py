"""State: what the federation knows after a step, and what every request carries to the sites."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
Weights = dict[str, NDArray[Any]]

WEIGHTS = "shared."
"""Before the name of every trained weight, in a message."""


class Bank(NamedTuple):
    """The text bank: all of a fixed one; where a trained one starts and what it is pulled to."""

    classes: Matrix
    """[C, D] float32, unit rows."""
    findings: Matrix
    """[M, D] float32, unit rows."""


@dataclass(frozen=True)
class State:
    """What the sites have learnt together so far; NumPy only, as the coordinator has no torch.

    Attributes:
        shared: Weights that are trained and averaged, by name.
        bank: The text bank.
        centre: [2, D] mean of features of whole images (row 0) and of regions (row 1).
        scale: [2, D] what they are divided by after it is subtracted.
        bias: [C] intercepts of the classes, float64.
        centroids: [k, D] of stage 1, float64; empty before it.
        optimiser: State of the aggregation rule.
        evaluations: Metrics by name: `zero_shot`, `final`.
        texts: The text bank before anything was learnt.
        means: [C, D] float32, means of all shots by class before stage 2; empty without them.
        sites: How many sites those are of.
    """

    shared: Weights = field(default_factory=dict)
    bank: Bank = field(default_factory=lambda: Bank(*np.zeros((2, 0, 0), np.float32)))
    centre: Matrix = field(default_factory=lambda: np.zeros((2, 0), np.float32))
    scale: Matrix = field(default_factory=lambda: np.ones((2, 0), np.float32))
    bias: Matrix = field(default_factory=lambda: np.zeros(0))
    centroids: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    optimiser: Weights = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: Bank = field(default_factory=lambda: Bank(*np.zeros((2, 0, 0), np.float32)))
    means: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    sites: int = 0

    @property
    def width(self) -> int:
        """D, the width of a feature."""
        return int(self.centre.shape[1])

    def arrays(self) -> Weights:
        """What every request carries, by its name in a message: all that makes the model."""
        return {
            **{f"{WEIGHTS}{name}": value for name, value in self.shared.items()},
            "anchor.classes": self.bank.classes,
            "anchor.findings": self.bank.findings,
            "centre": self.centre,
            "scale": self.scale,
            "bias": self.bias,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The state that a request carries; the inverse of `arrays`."""
        return cls(
            shared=dict(weights_of(arrays)),
            bank=Bank(arrays["anchor.classes"], arrays["anchor.findings"]),
            centre=arrays["centre"],
            scale=arrays["scale"],
            bias=arrays["bias"],
        )


class weights_of(Mapping[str, NDArray[Any]]):  # noqa: N801  reads as the function that it stands for
    """The weights among a message's arrays, by their own names; each is read when it is needed.

    Large updates wait on disk, and only one of their arrays at a time has room in memory.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self._names = [name for name in arrays if name.startswith(WEIGHTS)]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[WEIGHTS + name]

    def __iter__(self) -> Any:
        return (name.removeprefix(WEIGHTS) for name in self._names)

    def __len__(self) -> int:
        return len(self._names)
