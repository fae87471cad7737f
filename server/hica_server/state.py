"""What a run knows after each exchange, and how it lies on disk.

One atomic file per run: whatever instant the coordinator is killed at, the next start finds the
state after some completed exchange and goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import ConfigurationError
from hica.wire.checkpoint import has_state, load_state, save_state

Arrays = dict[str, NDArray[Any]]

STATE_NAME = "state"


@dataclass
class RunState:
    """State of a run.

    Attributes:
        study_sha256: The study it belongs to.
        done: Number of completed steps of the plan.
        shared: Weights that are trained and averaged.
        anchor: Text bank (`classes`, `findings`) a trained bank is pulled to.
        centre: [2, D] mean of features.
        scale: [2, D] what they are divided by after it is subtracted.
        centroids: [k, D] of stage 1; empty before it.
        bias: [C] intercepts of the classes.
        optimiser: State of the aggregation rule.
        sites: What each site said it can take part in.
        rounds: One entry per exchange, for the report.
        evaluations: Named results: `zero_shot`, `final`.
        tower: Fingerprint of the image tower all sites must have.
        text_bank_sha256: Hash of the published text bank.
    """

    study_sha256: str
    done: int = 0
    shared: Arrays = field(default_factory=dict)
    anchor: Arrays = field(default_factory=dict)
    centre: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 0), np.float32))
    scale: NDArray[np.float32] = field(default_factory=lambda: np.ones((2, 0), np.float32))
    centroids: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    bias: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    optimiser: Arrays = field(default_factory=dict)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    tower: str = ""
    text_bank_sha256: str = ""

    def save(self, directory: Path) -> None:
        """Write the state by one atomic rename.

        Raises:
            StorageError: The disk is full; the state before stays whole.
        """
        groups = {"shared": self.shared, "anchor": self.anchor, "optimiser": self.optimiser}
        arrays: Arrays = {
            f"{group}/{name}": array
            for group, part in groups.items()
            for name, array in part.items()
        }
        arrays |= {"centre": self.centre, "scale": self.scale, "bias": self.bias}
        arrays["centroids"] = self.centroids
        meta = {
            "study_sha256": self.study_sha256,
            "done": self.done,
            "sites": self.sites,
            "rounds": self.rounds,
            "evaluations": self.evaluations,
            "tower": self.tower,
            "text_bank_sha256": self.text_bank_sha256,
        }
        save_state(directory, STATE_NAME, arrays, meta)

    @classmethod
    def load(cls, directory: Path, study_sha256: str) -> RunState:
        """The state in `directory`, or a fresh one where there is none.

        Raises:
            ConfigurationError: The directory holds a run of another study.
            CheckpointError: The file is damaged and so is the one before it.
        """
        if not has_state(directory, STATE_NAME):
            return cls(study_sha256)
        arrays, meta = load_state(directory, STATE_NAME)
        if meta["study_sha256"] != study_sha256:
            raise ConfigurationError(
                f"{directory}: holds a run of another study ({meta['study_sha256'][:12]}, asked "
                f"for {study_sha256[:12]}). Use another folder, or delete that one"
            )

        def group(prefix: str) -> Arrays:
            return {
                name.removeprefix(f"{prefix}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{prefix}/")
            }

        return cls(
            **meta,
            shared=group("shared"),
            anchor=group("anchor"),
            optimiser=group("optimiser"),
            centre=arrays["centre"],
            scale=arrays["scale"],
            centroids=arrays["centroids"],
            bias=arrays["bias"],
        )
