"""A run over small sites, one of which lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.unit.hica_server.conftest import STUDY, FakeSite, SmallRun

from hica.study import Study, apply_overrides, validated
from hica_server.state import RunState

PRIVATE = ["privacy.mechanism=dp-sgd", "privacy.epsilon=3.0", "privacy.delta=1e-3"]
PRIVATE += ["calibration.rounds=0"]


def study_of(*overrides) -> Study:
    return validated(Study, apply_overrides(STUDY, list(overrides)), "toy")


def run_of(*sites, overrides=(), **more) -> SmallRun:
    return SmallRun(study_of(*overrides), sites, **more).meet()


def sites_with_liar(kind, change, step=1.0, **more):
    """Three sites, of which the second spoils its replies of a kind."""
    sites = [FakeSite(name, step, **more) for name in "abc"]
    sites[1].changes[kind] = change
    return sites


def arrays(**changed):
    """A change of a reply's arrays; a number fills one."""

    def change(reply):
        new = {n: np.full_like(reply.arrays[n], v) for n, v in changed.items() if n in reply.arrays}
        return replace(reply, arrays={**reply.arrays, **new})

    return change


def details(**changed):
    return lambda reply: replace(reply, details={**reply.details, **changed})


def is_finite(state: RunState) -> bool:
    learnt = state.learnt
    parts = [*learnt.arrays().values(), learnt.centroids, *learnt.optimiser.values()]
    return all(np.isfinite(each).all() for each in parts)


def resumed(state: RunState, folder: Path) -> RunState:
    """The state as another process finds it."""
    folder.mkdir(exist_ok=True)
    state.save(folder)
    return RunState.load(folder, state.study_sha256)


def honest(names):
    return [FakeSite(name, 1.0) for name in names]
