"""What a run knows after each exchange, and how it lies on disk.

One atomic file per run: whatever instant the coordinator is killed at, the next start finds the
state after some completed exchange and goes on from there.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hica.errors import ConfigurationError
from hica.steps.state import Bank, State, Weights
from hica.wire.checkpoint import has_state, load_state, save_state

STATE_NAME = "state"

ESTIMATES = ("centre", "scale", "bias", "centroids", "means")
"""Arrays of a state, by the names of its fields."""

VERSION = 5
"""Of the plan: raised when `done` of an earlier version would count other steps."""


@dataclass
class RunState:
    """State of a run."""

    study_sha256: str
    """The study it belongs to."""
    learnt: State = field(default_factory=State)
    """What the sites have learnt together so far."""
    done: int = 0
    """Number of completed turns of the plan."""
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each site said it can take part in."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """One entry per exchange, for the report."""
    kept: dict[str, str] = field(default_factory=dict)
    """What sites keep in a study of secure sums, by name: hash of the question that it is of."""
    settled: str = ""
    """Hash of a question of a secure sum whose answer left the state as it was, were it asked."""
    told: list[str] = field(default_factory=list)
    """Sites that know that the study is over."""
    withdrawn: dict[str, int | str | None] = field(default_factory=dict)
    """Patients who have withdrawn in the course of the study, as each site tells at its end."""
    tower: str = ""
    """Fingerprint of the image tower all sites must have."""
    text_bank_sha256: str = ""
    """Hash of the published text bank."""
    preprocess: dict[str, Any] = field(default_factory=dict)
    """The image tower's transform (`hica.towers.preprocessing`), which goes with the weights."""

    def save(self, directory: Path) -> None:
        """Write the state by one atomic rename.

        Raises:
            StorageError: The disk is full; the state before stays whole.
        """
        learnt = self.learnt
        groups = {
            "shared": learnt.shared,
            "bank": learnt.bank._asdict(),
            "texts": learnt.texts._asdict(),
            "optimiser": learnt.optimiser,
        }
        arrays: Weights = {
            f"{group}/{name}": array
            for group, part in groups.items()
            for name, array in part.items()
        }
        arrays |= {name: getattr(learnt, name) for name in ESTIMATES}
        meta = {
            "version": VERSION,
            "study_sha256": self.study_sha256,
            "done": self.done,
            "sites": self.sites,
            "rounds": self.rounds,
            "kept": self.kept,
            "settled": self.settled,
            "told": self.told,
            "withdrawn": self.withdrawn,
            "evaluations": learnt.evaluations,
            "means_of": learnt.sites,
            "tower": self.tower,
            "text_bank_sha256": self.text_bank_sha256,
            "preprocess": self.preprocess,
        }
        save_state(directory, STATE_NAME, arrays, meta)

    @classmethod
    def load(cls, directory: Path, study_sha256: str) -> Self:
        """The state in `directory`, or a fresh one where there is none.

        Raises:
            ConfigurationError: The directory holds a run of another study, or one that was begun
                with another version.
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
        if meta.pop("version", 1) != VERSION:
            raise ConfigurationError(
                f"{directory}: holds a run that was begun with another version of hica, whose plan "
                "has other steps. End it with that version, or use another folder"
            )

        def group(prefix: str) -> Weights:
            return {
                name.removeprefix(f"{prefix}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{prefix}/")
            }

        learnt = State(
            shared=group("shared"),
            bank=Bank(**group("bank")),
            texts=Bank(**group("texts")),
            **{name: arrays[name] for name in ESTIMATES},
            sites=meta.pop("means_of"),
            optimiser=group("optimiser"),
            evaluations=meta.pop("evaluations"),
        )
        return cls(**meta, learnt=learnt)
