"""The ServerApp of a deployed study, as named by the bundle: `run_study` over Flower's real grid.

Flower starts a process for every run of it, and `hica_server.orchestrator` starts a new run when
one has died. Only one of them may write the run directory: a lock says which. How a run ended is
left in `outcome.json`, as Flower reports no more than success or failure.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from logging.handlers import RotatingFileHandler
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hica.deployment.keys import PublicKey
from hica.deployment.kit import read_roster
from hica.deployment.lockfile import hold
from hica.deployment.supervision import die_with
from hica.errors import ConfigurationError, FederationError, HicaError, StorageError
from hica.printable import PlainFormatter
from hica.storage import write_atomically
from hica.study import Study, load_study
from hica.study.sections import FederationSection
from hica_server.asked import note_asked
from hica_server.enrolment import let_in
from hica_server.progress import Progress
from hica_server.provision import signing_key
from hica_server.settings import Folder, load_settings
from hica_server.superlink.grid import PromptGrid
from hica_server.superlink.processes import HOME_VARIABLE, TELL_VARIABLE

if TYPE_CHECKING:  # imported late: see `conduct`
    from hica_server.participants import Roster

logger = logging.getLogger("hica.server")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the study of the coordinator's folder."""
    folder = Folder(Path(os.environ[HOME_VARIABLE]))
    log = folder.logs / "serverapp.log"  # Flower throws away what a ServerApp prints
    # Who holds the lock is noticed at once when it dies, so nothing slow comes before.
    with hold(folder.run_lock, f"the run in {folder.run}"), logging_to(log):
        logger.info("Flower run %d", context.run_id)
        with leaving_outcome(folder.outcome, context.run_id):
            signed = PromptGrid(grid, signing_key(folder), partial(note_asked, folder.asked))
            study, seconds = (
                str(context.run_config.get("study")),
                os.environ.get(TELL_VARIABLE, "0"),
            )
            conduct(folder, signed, study, float(seconds))


def conduct(folder: Folder, grid: PromptGrid, study_sha256: str, tell_seconds: float = 0.0) -> None:
    """Run or resume the study and write its report; `study_sha256` is what the run was started for.

    Sites that are away at its end are waited for, `tell_seconds`.

    Raises:
        HicaError: Whatever stops the run.
    """
    from hica_server.app import Watcher, run_study
    from hica_server.report.run_report import write_run_report

    study = load_study(folder.study)
    if study.sha256 != study_sha256:
        raise ConfigurationError(
            f"{folder.study}: was changed while the server ran (is {study.sha256[:12]}, was "
            f"{study_sha256[:12]}). Undo the change, or end the server and provision the new study"
        )
    data = load_settings(folder.root).data
    progress = Progress(folder)
    roster = make_roster(folder, grid)
    run_study(
        grid,
        study,
        folder.run,
        lambda: publish_apart(study, folder.run, data.folder, data.hubs),
        Watcher(progress.step, progress.entry, progress.saved),
        roster=roster,
        gather=lambda: gather(roster, study.federation, progress.waiting),
        registered=registered_keys(folder, study),
        tell_seconds=tell_seconds,
    )
    write_run_report(folder.run)


def registered_keys(folder: Folder, study: Study) -> dict[str, PublicKey] | None:
    """The keys by which sites know each other, as in the start kits; None where they need not.

    Raises:
        ConfigurationError: The study needs them, and no kit was made since.
    """
    if not study.privacy.secure_aggregation:
        return None
    if not folder.roster.exists():
        raise ConfigurationError(
            f"{folder.roster}: missing, and the study asks for secure aggregation: hand out start "
            f"kits with the sites' keys, made by: hica-server provision {folder.root} SITE..."
        )
    return read_roster(folder.roster.parent)


def publish_apart(study: Study, out: Path, data: Path, hubs: bool = False) -> None:
    """Make what the run starts from in a process of its own, which takes the towers with it.

    It is left in the run directory `out`; checkpoints and corpus are in the folder `data`. `hubs`
    is whether what is pinned may be fetched from a hub.

    Raises:
        HicaError: As raised there: a checkpoint is missing, class texts cannot be told apart.
        FederationError: That process was killed.
    """
    parent = os.getpid()
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=die_with, initargs=(parent,)
    ) as process:
        try:
            process.submit(_publish, study, out, data, hubs).result()
        except BrokenProcessPool:
            raise FederationError(
                "the process that loads the towers was killed: has this machine enough memory?"
            ) from None


def _publish(study: Study, out: Path, data: Path, hubs: bool) -> None:
    """Within that process, which alone loads torch."""
    from hica.device import repeatable
    from hica_server.publication import make_bank, publish

    repeatable()
    publish(study, out, data, lambda study, dim: make_bank(study, dim, data, hubs), hubs)


def make_roster(folder: Folder, grid: PromptGrid) -> Roster:
    """The enrolled sites, revoked ones left out, with the nodes of those that are connected."""

    def roster() -> dict[str, int | None]:
        connected = grid.connected()
        return {name: connected.get(name) for name in let_in(folder)}

    return roster


def gather(roster: Roster, terms: FederationSection, tell: Callable[[Sequence[str]], None]) -> None:
    """Wait for all sites `federation.gather` seconds; for the quorum as long as for a round.

    Without the quorum it ends, too: the first exchange then says who is missing. `tell` is called
    with those not connected, first and whenever they change.
    """
    started = time.monotonic()
    told = None
    while True:
        sites = roster()
        absent = [name for name, node in sites.items() if node is None]
        quorum = len(sites) - len(absent) >= terms.quorum
        waited = time.monotonic() - started
        if (quorum and not absent) or waited >= (terms.gather if quorum else terms.deadline):
            return
        if absent != told:
            tell(absent)
            told = absent
        time.sleep(0.5)


@contextmanager
def leaving_outcome(path: Path, run: int) -> Iterator[None]:
    """Leave `outcome.json` of a Flower run that ends by itself; one that is killed leaves none."""
    outcome = {"run_id": run, "ok": True, "kind": None, "error": None, "exit_code": 0}
    try:
        yield
    except Exception as error:
        logger.exception("the run has failed")
        code = error.exit_code if isinstance(error, HicaError) else 1
        told = {"ok": False, "kind": type(error).__name__, "error": str(error), "exit_code": code}
        with contextlib.suppress(StorageError):  # the disk is full: the coordinator finds out, too
            write_atomically(path, json.dumps(outcome | told).encode())
        raise
    write_atomically(path, json.dumps(outcome).encode())


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Keep what HiCA and Flower log in this process: five files of 5 MB at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=4, encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    logging.getLogger("hica").setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
