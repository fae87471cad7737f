"""The orchestrator: lets enrolled sites in, and starts Flower runs until the study is at its end.

A Flower run is one life of the ServerApp. Whatever ended it, the next one goes on after the last
step that is on disk; a step is written whole or not at all, and by one process only, so no round
counts twice. What stops the server is an error that somebody has to mend, and one death after the
other without a step between them.
"""

import contextlib
import json
import logging
import os
import signal
from time import monotonic, sleep
from typing import Any

from hica import errors
from hica.deployment.lockfile import holder
from hica.errors import FederationError, HicaError
from hica.storage import write_atomically
from hica.study import Study
from hica_server.enrolment import let_in
from hica_server.progress import Progress, read_progress
from hica_server.provision import require_valid_certificate
from hica_server.settings import Folder
from hica_server.superlink.control import Control, Node, UnreachableError

logger = logging.getLogger("hica.server")

LOOK_SECONDS = 2.0
"""Between two looks at the SuperLink."""
PATIENCE_SECONDS = 300.0
"""How long the SuperLink may be silent: one that died is restarted, one that hangs is not."""
FUTILE_RUNS = 5
"""Flower runs in a row that may die without completing a step."""


class Orchestrator:
    """Keeps the study of one folder going."""

    def __init__(self, folder: Folder, study: Study, control: Control) -> None:
        self._folder = folder
        self._study = study
        self._control = control
        self._answered = self._due = monotonic()
        self._connected: dict[str, Any] | None = None
        self._before: dict[int, Node] | None = None
        self._unwelcome: set[bytes] = set()
        self._run: int | None = None
        self._lived = False
        self._verdict: str | None = None
        self._futile = 0
        self._done = 0

    def advance(self) -> bool:
        """Do what is to be done now, about twice a second; whether the study is at its end.

        Raises:
            HicaError: What stopped the run, or why it cannot go on.
        """
        try:
            if monotonic() >= self._due:
                self._look()
            if self._run is None:
                self._start()
        except UnreachableError as error:
            self._bear(error)
        return self._run is not None and self._has_ended(self._run)

    def stop(self) -> None:
        """End the present Flower run; the same command goes on with the study another time."""
        try:
            if self._run is not None:
                self._control.stop_run(self._run)
        except (UnreachableError, FederationError) as error:
            logger.warning("%s", error)

    # --- The SuperLink ---------------------------------------------------------------------------

    def _look(self) -> None:
        """Bring the SuperLink's list of sites up to date, and see what it says of the run."""
        require_valid_certificate(self._folder)
        self._keep_sites()
        if self._run is not None:
            status = self._control.run_status(self._run)
            self._verdict = (status.details or "ended") if status.finished else None
        self._answered = monotonic()
        self._due = self._answered + LOOK_SECONDS

    def _keep_sites(self) -> None:
        """Register who was enrolled, unregister who was revoked, note who is connected."""
        wanted = {site.key.pem: name for name, site in let_in(self._folder).items()}
        nodes = {node.public_key: node for node in self._control.nodes()}
        for key in nodes.keys() - wanted.keys():
            logger.warning("%s is no longer enrolled and is let in no more", nodes[key].name)
            self._control.unregister(nodes[key].id)
        for key in wanted.keys() - nodes.keys() - self._unwelcome:
            self._register(wanted[key], key)
        self._note_connected([node for key, node in nodes.items() if key in wanted])

    def _register(self, name: str, key: bytes) -> None:
        """Let a site in; the SuperLink takes no key that it once has let go."""
        try:
            self._control.register(name, key)
        except FederationError as error:
            self._unwelcome.add(key)
            logger.error(
                "%s cannot be let in: %s. Enroll it with a new key; or stop the server, delete %s* "
                "and run it again, which registers every site anew",
                name,
                error,
                self._folder.database,
            )

    def _note_connected(self, nodes: list[Node]) -> None:
        """Keep `connected.json` for status and metrics, and for the gateway the sign to open.

        Before that sign nobody can connect. Who is online then is so by the database of an earlier
        server, and does not count until it has been heard of.
        """
        if self._before is None:
            self._before = {node.id: node for node in nodes if node.online}
        heard = [node for node in nodes if self._before.get(node.id) != node]
        table = {node.name: {"online": False, "since": ""} for node in nodes}
        table |= {node.name: {"online": node.online, "since": node.since} for node in heard}
        if table != self._connected:
            write_atomically(self._folder.connected, json.dumps(table, indent=2).encode())
            self._connected = table

    def _bear(self, error: UnreachableError) -> None:
        """Let the SuperLink be silent for a time, and no longer."""
        silent = monotonic() - self._answered
        if silent > PATIENCE_SECONDS:
            raise FederationError(
                f"the SuperLink has not answered for {silent:.0f} s ({error}); see "
                f"{self._folder.logs / 'superlink.log'}, then run the same command again"
            )

    # --- The run ---------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start a Flower run, once nothing is left of those before."""
        for run in self._control.unfinished_runs():
            with contextlib.suppress(FederationError):  # it has ended by itself meanwhile
                self._control.stop_run(run)
        end_leftover(self._folder)
        self._folder.outcome.unlink(missing_ok=True)
        Progress(self._folder)  # says `starting`; that it can be written at all is seen here
        self._done = read_progress(self._folder).get("done", 0)
        self._lived, self._verdict = False, None
        self._run = self._control.start_run(self._study.sha256)

    def _has_ended(self, run: int) -> bool:
        """Whether a run has brought the study to its end; one that died is given up."""
        death = self._death()  # looked at first: an outcome is left before the process ends
        outcome = self._outcome(run)
        if outcome is not None and not outcome["ok"]:
            _raise_again(outcome)
            death = f"{outcome['kind']}: {outcome['error']}"
        elif outcome is not None:
            return True
        if death is not None:
            self._give_up(death)
        return False

    def _death(self) -> str | None:
        """Why the ServerApp does not live; None while it does, or has yet to start.

        The SuperLink notices that it is gone after a minute; its lock is free at once.
        """
        lives = holder(self._folder.run_lock) is not None
        self._lived = self._lived or lives
        if self._lived and not lives:
            return self._verdict or "its process is gone"
        return self._verdict

    def _outcome(self, run: int) -> dict[str, Any] | None:
        """What a run has left that ended by itself."""
        try:
            outcome: dict[str, Any] = json.loads(self._folder.outcome.read_bytes())
        except FileNotFoundError:
            return None
        return outcome if outcome["run_id"] == run else None

    def _give_up(self, death: str) -> None:
        """Leave a dead run to the next `_start`, unless that has come to nothing too often."""
        done = read_progress(self._folder).get("done", 0)
        self._futile = 0 if done > self._done else self._futile + 1
        self._run = None
        if self._futile >= FUTILE_RUNS:
            raise FederationError(
                f"the ServerApp died {self._futile} times in a row without completing a step, last "
                f"because: {death}. The state of {done} steps is on disk; mend what "
                f"{self._folder.logs / 'serverapp.log'} says and run the same command again"
            )
        logger.warning("the ServerApp died (%s); going on after step %d", death, done)


def end_leftover(folder: Folder) -> None:
    """Kill a ServerApp that has outlived its run or its server; what it has saved is whole."""
    while (process := holder(folder.run_lock)) is not None:
        os.kill(process, signal.SIGKILL)
        sleep(0.05)


def _raise_again(outcome: dict[str, Any]) -> None:
    """Raise the error that a run ended with, if it is one that a user can mend."""
    kind = getattr(errors, outcome["kind"], None)
    if isinstance(kind, type) and issubclass(kind, HicaError):
        raise kind(outcome["error"])
