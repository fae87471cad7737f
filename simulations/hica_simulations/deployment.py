"""Deployment: the real commands of a coordinator and its hospitals, run on this machine.

    out/coordinator/       the folder of `hica-server`: study, certificates, database, run
    out/sites/NAME/        the folder of a hospital: site.toml, manifest.csv, key, kit, state
    out/logs/NAME.log      what each of them printed while it ran
    out/simulation/        the same study and seed in one process, to compare with

Only the courier is simulated: public keys and start kits are copied from folder to folder.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import tomli_w

from hica.deployment.keys import public_path
from hica.deployment.supervision import die_with, free_port
from hica.errors import FederationError
from hica.storage import write_atomically
from hica_server.enrolment import read_sites
from hica_server.settings import Folder
from hica_simulations.partitions import build_sites
from hica_simulations.place import Place
from hica_simulations.run import Watching, claim, silently, simulate
from hica_simulations.scenario import Scenario
from hica_simulations.site_files import policy_of, write_site

TOLERANCE = 1e-6
"""Largest difference of a metric between a deployed run and the same run in one process."""
STOP_SECONDS = 30.0
"""What a command gets to stop what it supervises, before it is killed."""
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Comparison:
    """One study and seed, deployed and in one process.

    Attributes:
        deployed, simulated: `result.json` of the real processes, and of the simulation.
        difference: Largest absolute difference between their metrics.
        report: The deployed run's report.
    """

    deployed: dict[str, Any]
    simulated: dict[str, Any]
    difference: float
    report: Path


class Deployment:
    """Folders and processes of one coordinator and its hospitals.

    What `prepare` finds done is kept, so a deployment that was interrupted goes on. Leaving the
    context stops every process.

    Everything is written below `place.out`.
    """

    def __init__(self, scenario: Scenario, place: Place) -> None:
        self.scenario = scenario
        self.place = place
        self.names = [site.name for site in scenario.simulation.sites]
        self.folder = Folder(place.out / COORDINATOR)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def site_file(self, name: str) -> Path:
        """The `site.toml` of a hospital."""
        return self.place.out / "sites" / name / "site.toml"

    def log(self, name: str) -> Path:
        """What the coordinator or a hospital has printed."""
        return self.place.out / "logs" / f"{name}.log"

    def command(self, name: str, *arguments: str | Path) -> None:
        """Run a command to its end.

        Raises:
            FederationError: It failed; holds what it said.
        """
        shown = [name, *map(str, arguments)]
        done = subprocess.run(
            [program(name), *shown[1:]],
            capture_output=True,
            text=True,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            said = f"exit code {done.returncode}:\n{done.stderr.strip()}"
            raise FederationError(f"{' '.join(shown)}: {said}")

    # --- Before the run --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Everything from first contact to approval, in the order in which people do it.

        Raises:
            FederationError: A command failed; holds what it said.
        """
        self._prepare_coordinator()
        place, study = self.place, self.scenario.study
        policy = {"min_count": study.federation.min_count, **policy_of(study)}
        for site in build_sites(self.scenario, place.data, place.out, place.cache):
            write_site(site, place.out, place, policy)
            self._enrol(site.name)
        if not all((self.folder.kits / f"{name}.zip").exists() for name in self.names):
            self.command("hica-server", "provision", self.folder.root, *self.names)
        for name in self.names:
            site_file = self.site_file(name)
            with zipfile.ZipFile(self.folder.kits / f"{name}.zip") as kit:
                kit.extractall(site_file.parent / "kit")
            self.command("hica-client", "approve", site_file, study.sha256, "--yes")

    def _prepare_coordinator(self) -> None:
        """Study, and settings: reached on this machine only, on a port nobody uses."""
        folder = self.folder
        if folder.settings.exists() and folder.study.exists() and folder.ca_certificate.exists():
            return
        if not folder.study.exists():
            self.command("hica-server", "init", folder.root)
        study = self.scenario.study.model_dump(mode="json", exclude_none=True)
        settings = {
            "server": {"name": "localhost", "listen": "127.0.0.1", "port": free_port()},
            "data": {"folder": str(self.place.data.resolve())},
            "ports": {"metrics": 0},
        }
        write_atomically(folder.study, tomli_w.dumps(study).encode())
        write_atomically(folder.settings, tomli_w.dumps(settings).encode())

    def _enrol(self, name: str) -> None:
        site_file = self.site_file(name)
        key = site_file.parent / "keys" / "site"
        if not key.exists():
            self.command("hica-client", "keygen", site_file)
        if name not in read_sites(self.folder):
            public = public_path(key)
            self.command("hica-server", "enroll", self.folder.root, public, "--name", name)

    # --- The run ---------------------------------------------------------------------------------

    def start(self, name: str, more: Mapping[str, str] | None = None) -> None:
        """Start `hica-server run` (name `coordinator`) or a hospital's `hica-client run`.

        `more` is environment beyond our own.
        """
        if name == COORDINATOR:
            command = [program("hica-server"), "run", str(self.folder.root)]
        else:
            command = [program("hica-client"), "run", str(self.site_file(name))]
        self.processes[name] = started(command, self.log(name), environment() | dict(more or {}))

    def run(self) -> None:
        """Start the hospitals and the coordinator, wait for the study's end, and stop them all.

        Raises:
            FederationError: The coordinator failed, or a hospital ended before it.
        """
        with self:
            for name in (*self.names, COORDINATOR):
                self.start(name)
            self.wait()

    def wait(self) -> None:
        """Wait for the coordinator's end, passing on what it prints.

        Raises:
            FederationError: It failed, or a hospital ended before it.
        """
        with self.log(COORDINATOR).open("rb") as log:
            running = True
            while running:
                time.sleep(0.2)
                running = self.processes[COORDINATOR].poll() is None
                sys.stderr.write(log.read().decode(errors="replace"))
                # 0: it was told that the study is over, before the coordinator has ended
                ended = [name for name in self.names if self.processes[name].poll()]
                if running and ended:
                    said = self._tail(ended[0])
                    raise FederationError(f"hica-client run of {ended[0]!r} has ended:\n{said}")
        if code := self.processes[COORDINATOR].returncode:
            tail = self._tail(COORDINATOR)
            raise FederationError(f"{COORDINATOR} ended with exit code {code}:\n{tail}")

    def _tail(self, name: str) -> str:
        """The last lines of a log, and where the rest is."""
        text = self.log(name).read_text(encoding="utf-8", errors="replace")
        return "\n".join([*text.splitlines()[-20:], f"(all of it: {self.log(name)})"])

    def stop(self) -> None:
        """End every process; one that does not end by itself is killed."""
        running = [process for process in self.processes.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def result(self) -> dict[str, Any]:
        """`result.json` of the run."""
        result: dict[str, Any] = json.loads((self.folder.run / "result.json").read_bytes())
        return result


def federate(scenario: Scenario, place: Place, watching: Watching = silently) -> Comparison:
    """Run a study over real processes and then in this one, and compare their metrics.

    Of `place` the engine is not used; `watching` is told of the simulation's progress.

    Raises:
        HicaError: Whatever stops either run; the same call resumes it.
    """
    claim(place.out, scenario)
    deployment = Deployment(scenario, place)
    shutil.rmtree(place.out / "logs", ignore_errors=True)  # of an earlier try
    deployment.prepare()
    deployment.run()
    deployed = deployment.result()
    there = replace(place, out=place.out / "simulation", engine="grid")
    simulated = simulate(scenario, there, watching)
    difference = largest_difference(metrics_of(deployed), metrics_of(simulated))
    return Comparison(deployed, simulated, difference, deployment.folder.run / "report.html")


def metrics_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What must not depend on how a study was run."""
    return {key: result[key] for key in ("final", "per_site", "baselines")}


def largest_difference(one: Any, other: Any) -> float:
    """Largest absolute difference between the numbers of two tables of the same form.

    Returns:
        Infinity where form or texts differ, or one of two numbers is not a number.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(largest_difference, one, other), default=0.0)
    if isinstance(one, int | float) and isinstance(other, int | float):
        difference = abs(float(one) - float(other))
        return math.inf if math.isnan(difference) else difference
    return 0.0 if one == other else math.inf


def started(
    command: Sequence[str], log: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one at the latest, and let it write into a log.

    What it prints is put below what is in the log; `variables` are all of its environment.
    """
    parent = os.getpid()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,  # Ctrl-C is for us, who stop them in order
            preexec_fn=lambda: die_with(parent),
        )


def program(name: str) -> str:
    """Path of a command installed beside this Python."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def environment() -> dict[str, str]:
    """One thread a process: many share this machine, and the simulation computes with one, too."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
