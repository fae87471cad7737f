"""Reach: how far training can move a weight, whatever the images are.

AdamW divides a gradient by its own size, so that a step is about as long as the learning rate
(Kingma & Ba 2015, section 2.1), and a study names its rates, batches and rounds. What has moved
further was not trained.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.study.sections import FederationSection

BETAS = 0.9, 0.999
"""PyTorch's, of AdamW."""
ROUNDING = {"float32": 1e-6, "float16": 2e-3}
"""Of weights as they travel, relative to their size."""
STEP_ROUNDING = 2.0**-23
"""Of a float32 weight to which a step is added, relative."""
SMALLEST = {"float32": 0.0, "float16": 6e-8}
"""Of weights about zero, absolute."""
SERVER_RULES = "adam", "yogi"
SERVER_STEP = 12.0
"""How far these go in a round, in server learning rates: |m| / √v ≤ Σ 0.9ᵏ / 0.995ᵏ = 10.5, as v
falls by a hundredth a round at most and holds a hundredth of the newest square."""


class Rates(NamedTuple):
    """AdamW's, where a stage begins."""

    tower: float
    bank: float
    decay: float
    """Of the tower alone."""


@lru_cache
def adamw_steps(steps: int) -> float:
    """How far AdamW moves a weight in so many steps, in learning rates, decay left out.

    By Cauchy and Schwarz step t is at most √(1 - β₂ᵗ) / (1 - β₁ᵗ) · (1 - β₁) / √(1 - β₂) ·
    √(Σ (β₁² / β₂)ᵏ over k < t).
    """
    first, second = BETAS
    t = np.arange(1, steps + 1, dtype=np.float64)
    ratio = first**2 / second
    sums = np.sqrt((1 - ratio**t) / (1 - ratio)) * (1 - first) / math.sqrt(1 - second)
    return float((sums * np.sqrt(1 - second**t) / (1 - first**t)).sum())


class Reach(NamedTuple):
    """How far weights are moved: every number by `tower` or `bank`, and by a share of its size."""

    tower: float = 0.0
    bank: float = 0.0
    share: float = 0.0

    @classmethod
    def of_steps(cls, rates: Rates, rate: float, steps: int, dtype: str) -> Self:
        """Of so many steps at `rate` times the rates, in weights that travel as `dtype`."""
        length = rate * adamw_steps(steps)
        share = steps * (rate * rates.tower * rates.decay + STEP_ROUNDING)
        moved = cls(length * rates.tower, length * rates.bank, share)
        return moved.plus(cls.of_rounding(dtype))

    @classmethod
    def of_rounding(cls, dtype: str) -> Self:
        """Of what is not trained, and travels as `dtype`."""
        return cls(SMALLEST[dtype], SMALLEST[dtype], ROUNDING[dtype])

    def by_rule(self, federation: FederationSection) -> Self:
        """Of what an aggregation rule makes of such updates: no further, but by its own step."""
        if federation.aggregation not in SERVER_RULES:
            return self
        step = SERVER_STEP * federation.server_learning_rate
        return type(self)(step, step, self.share)

    def plus(self, other: Self) -> Self:
        """Of one after the other."""
        return type(self)(*(mine + its for mine, its in zip(self, other, strict=True)))

    def of(self, name: str) -> float:
        """Of a weight of this name."""
        return self.bank if name.startswith("bank.") else self.tower

    def check(self, name: str, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Refuse a weight that has moved further.

        Raises:
            MessageError: Names the weight, how far it has moved and how far it can.
        """
        old = before.astype(np.float64)
        moved = np.abs(after - old)
        possible = self.of(name) + self.share * (np.abs(old) + self.of(name))
        if not (moved <= possible).all():
            worst = int(np.argmax(moved - possible))
            raise MessageError(
                f"weight {name!r} has moved by {moved.flat[worst]:.3g}, training can move it by "
                f"{possible.flat[worst]:.3g} at most"
            )
