"""The ServerApp: publish what a run starts from, meet the sites, walk the plan, leave a result.

The round loop is ours (`hica.steps.plan`), because Flower's `Strategy.start` waits for ever for
missing nodes, cannot resume and keeps no list of who took part.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hica.deployment.keys import PublicKey
from hica.steps.model_file import save_model
from hica.steps.plan import plan
from hica.study import Study
from hica.wire.checkpoint import write_json
from hica_server.coordinator import Coordinator
from hica_server.disk_offload import offloaded
from hica_server.participants import Roster
from hica_server.result import make_result
from hica_server.state import RunState

logger = logging.getLogger("hica.server")

Publish = Callable[[], None]
"""Leaves what the run starts from in its directory; see `hica_server.publication.publish`."""


@dataclass(frozen=True)
class Watcher:
    """Where a run reports while it goes on; every part may stay silent."""

    step: Callable[[str, int, int], None] = lambda *_: None
    """Called with (name of the step, number of it, number of all)."""
    entry: Callable[[dict[str, Any]], None] = lambda *_: None
    """Called with each exchange as it is recorded."""
    saved: Callable[[RunState], None] = lambda *_: None
    """Called with the state as it lies on disk: at the start, and after every step."""


def make_server_app(
    study: Study,
    out: Path,
    publish: Publish,
    watcher: Watcher | None = None,
    zero_shot: bool = True,
) -> ServerApp:
    """A ServerApp that calls `run_study`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001  Flower's signature
        run_study(grid, study, out, publish, watcher or Watcher(), zero_shot)

    return app


def run_study(
    grid: Grid,
    study: Study,
    out: Path,
    publish: Publish,
    watcher: Watcher,
    zero_shot: bool = True,
    roster: Roster | None = None,
    gather: Callable[[], None] = lambda: None,
    registered: Mapping[str, PublicKey] | None = None,
    tell_seconds: float = 0.0,
) -> dict[str, Any]:
    """Run or resume a study to its end in the run directory `out`, and return `result.json`.

    The directory holds `study.json`, `state`, `model` and `result.json`. `publish` is called where
    a run starts, and `gather` once all is ready for the sites: it waits until they have connected.
    `zero_shot` says whether the texts alone are evaluated first. For `roster` and `registered` see
    `Participants` and `secure_exchange`. With `tell_seconds` also the sites that a finished study
    has not told of its end are told, see `Coordinator`.

    Raises:
        HicaError: Whatever stops the run; the state of the last completed step is on disk.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = RunState.load(out, study.sha256)
    write_json(out / "study.json", study.model_dump(mode="json"))
    if not state.learnt.shared:
        publish()
        state = RunState.load(out, study.sha256)
    watcher.saved(state)
    coordinator = Coordinator(
        grid,
        study,
        state,
        watcher.entry,
        roster,
        partial(offloaded, folder=out),
        registered,
        tell_seconds,
    )
    turns = [turn for turn in plan(study) if zero_shot or not turn.optional]
    if all(turn.step.best_effort for turn in turns[state.done :]):
        coordinator.sites.meet(state.tower, quorum=0, gone=state.told)
    else:
        gather()
        coordinator.sites.meet(state.tower)
    for number, turn in enumerate(turns):
        if number < state.done and not (turn.step.best_effort and tell_seconds):
            continue
        watcher.step(turn.title, number, len(turns))
        coordinator.take(turn)
        state.done = number + 1
        state.save(out)
        watcher.saved(state)
    more = {"text_bank_sha256": state.text_bank_sha256, "preprocess": state.preprocess}
    checkpoint = save_model(out, study, state.learnt, **more)
    result = make_result(study, state, checkpoint)
    write_json(out / "result.json", result)
    return result
