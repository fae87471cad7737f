"""Figure, alternate, ratio: how every benchmark measures and what it hands back."""

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Figure:
    """One measured number and, where it has one, its target.

    Attributes:
        value: A median over the repeats.
        unit: `s`, `ms`, `MB`, `%`, or `×` for a ratio.
        below, at_least: The value should be less than the one, and not less than the other.
    """

    name: str
    value: float
    unit: str
    below: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """`< 1.15`, `≥ 5`, or nothing."""
        if self.below is not None:
            return f"< {self.below:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.below is not None:
            return self.value < self.below
        return self.value >= self.at_least if self.at_least is not None else None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {key: getattr(self, key) for key in ("name", "value", "unit", "target", "met")}


def clock(work: Callable[[], object]) -> float:
    """Seconds `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(
    ways: Mapping[str, Callable[[], float]], repeat: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Take the ways in turn, `repeat` times.

    Every other turn is taken backwards, so that a machine which slows down or speeds up meanwhile
    favours none of them.

    Each way returns what it measured, in seconds. With `warm_up` one turn that does not count goes
    before the others.

    Returns:
        For each way its `repeat` measurements; those at the same place were taken side by side.
    """
    if warm_up:
        for way in ways.values():
            way()
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            measured[name].append(ways[name]())
    return measured


def alternate_clocked(
    works: Mapping[str, Callable[[], object]], repeat: int
) -> dict[str, list[float]]:
    """The seconds that each work takes, measured as `alternate` does."""
    return alternate({name: partial(clock, work) for name, work in works.items()}, repeat)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios of measurements taken side by side."""
    pairs = zip(numerators, denominators, strict=True)
    return median(above / below for above, below in pairs)


def machine() -> dict[str, Any]:
    """What the figures depend on; the load tells how much else was going on."""
    packages = ("hica", "torch", "flwr", "timm", "ray")
    present = [name for name in packages if importlib.util.find_spec(name) is not None]
    known = hasattr(os, "sched_getaffinity")
    return {
        "cores": len(os.sched_getaffinity(0)) if known else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in present},
    }
