"""Real federations on this machine, small enough for tests, and the things that happen to them."""

import json
import os
import resource
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

import hica_client.cli
import hica_server.cli
from hica.deployment.lockfile import holder
from hica.errors import FederationError
from hica.steps.plan import plan
from hica.steps.result import RESULT
from hica_client.site import load_site
from hica_server.progress import read_progress
from hica_server.settings import load_settings
from hica_simulations.deployment import (
    COORDINATOR,
    TOLERANCE,
    Deployment,
    largest_difference,
    metrics_of,
)
from hica_simulations.run import Place, simulate
from hica_simulations.scenario import Scenario, load_scenario

SCENARIO = """
[study]
name = "deployed"
[model]
train = "adapter"
adapter_width = 8
[[classes]]
name = "normal"
healthy = true
prompts = ["normal tissue"]
findings = ["parallel tissue layers"]
[[classes]]
name = "smooth"
prompts = ["an oval mass with a smooth margin"]
findings = ["oval shape", "smooth margin"]
[[classes]]
name = "spiculated"
prompts = ["an irregular mass with spicules"]
findings = ["taller than wide", "spiculated margin"]
[text]
epochs = 0
[pretraining]
rounds = 0
[alignment]
rounds = 2
shots = 3
views = 2
bank_start = "text"
centring = "none" # fewer exchanges
[calibration]
rounds = 0
[personal]
epochs = 2
[federation]
quorum = 2
min_count = 4
deadline = 120 # what is lost on its way is asked for again then
[regions]
method = "masks"
count = 2
[simulation]
test_fraction = 0.5
[simulation.phantoms]
modality = "ultrasound"
per_class = 8
size = 32
[[simulation.sites]]
name = "north"
[[simulation.sites]]
name = "south"
shift = { gain = 1.2 }
"""

PATIENCE = 240.0
"""Seconds without a new step after which a condition that does not come true fails its test."""
SHORT_DEADLINE = "federation.deadline=90"
"""For tests in which a site keeps silent: over before `PATIENCE` is, and no site that answers on a
busy machine is late."""
MARK = "HICA_TEST_FEDERATION"
"""Environment variable by which all processes of a federation are known, orphans too."""


class Federation(Deployment):
    """A deployment whose processes can be found, stopped and killed."""

    def __init__(self, scenario: Scenario, place: Place) -> None:
        super().__init__(scenario, place)
        self.mark = uuid.uuid4().hex
        self.steps = [turn.title for turn in plan(scenario.study)]

    def command(self, name: str, *arguments: str | Path) -> None:
        """In this process: eight new ones would take as long as the whole run."""
        main = {"hica-server": hica_server.cli.main, "hica-client": hica_client.cli.main}[name]
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 0

    def start(self, name: str = COORDINATOR, more: dict[str, str] | None = None) -> None:
        super().start(name, {MARK: self.mark, **(more or {})})

    def start_all(self) -> None:
        for name in (*self.names, COORDINATOR):
            self.start(name)

    # --- What is seen ----------------------------------------------------------------------------

    def progress(self) -> dict:
        """What `progress.json` says; empty before the run."""
        return read_progress(self.folder)

    def _step(self) -> int:
        """The step that has begun last, -1 before the run."""
        return self.progress().get("number", -1)

    def _seen(self) -> tuple[int, int]:
        """What shows that the coordinator goes on: its step, and how often a ServerApp has died."""
        there = COORDINATOR in self.processes and self.log(COORDINATOR).exists()
        return self._step(), self.said().count("died (") if there else 0

    def done(self) -> int:
        """Number of steps on disk."""
        return self.progress().get("done", 0)

    def said(self, name: str = COORDINATOR) -> str:
        """All that a command has printed."""
        return self.log(name).read_text(errors="replace")

    def report(self) -> str:
        return (self.folder.run / "report.html").read_text()

    def online(self, name: str) -> bool:
        """Whether the coordinator takes a site for connected."""
        return json.loads(self.folder.connected.read_text())[name]["online"]

    def ended(self, name: str = COORDINATOR) -> bool:
        return self.processes[name].poll() is not None

    def pid(self, name: str, service: str) -> int:
        """Of a service of the coordinator or of a hospital, waiting until it runs."""
        if (name, service) == (COORDINATOR, "serverapp"):
            self.wait_until(lambda: holder(self.folder.run_lock) is not None, "a ServerApp")
            return int(holder(self.folder.run_lock))
        folder = self.folder.service if name == COORDINATOR else self.site(name).service
        processes = folder / "processes.json"

        def pid() -> int | None:
            known = json.loads(processes.read_text()) if processes.exists() else {}
            number = known.get(service, {}).get("pid")
            return number if Path(f"/proc/{number}").exists() else None

        self.wait_until(lambda: pid() is not None, f"{service} of {name}")
        return int(pid())

    def site(self, name: str):
        return load_site(self.site_file(name))

    def alive(self) -> list[int]:
        """Every process of this federation, whoever its parent is now."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_ours(path)]

    def _is_ours(self, process: Path) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes()
        except OSError:  # another user's, or just gone
            return False

    # --- What is waited for ----------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; what does not come fails the test with everyone's last words.

        As long as the run comes to new steps, or the coordinator starts again what has died, it is
        waited for: a busy machine is slow, not wrong.
        """
        seen, deadline = self._seen(), time.monotonic() + PATIENCE
        while not condition():
            if self._seen() != seen:
                seen, deadline = self._seen(), time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                words = "\n\n".join(self._tail(name) for name in self.processes)
                raise AssertionError(f"not within {PATIENCE:g} s of a step: {what}\n\n{words}")
            time.sleep(0.05)

    def wait_for_step(self, name: str) -> None:
        """Wait until a step has begun."""
        number = self.steps.index(name)
        self.wait_until(lambda: self._step() >= number, f"step {name}")

    def finish(self) -> dict:
        """Wait for the run's end, which must be a good one; returns `result.json`."""
        self.wait_until(self.ended, "the end of the run")
        assert self.processes[COORDINATOR].returncode == 0, self._tail(COORDINATOR)
        return self.result()

    def finish_by_trying(self, tries: int = 4) -> dict:
        """`finish`, doing what too few answers ask for: run the same command again."""
        for _ in range(tries):
            self.start(COORDINATOR)
            if self.wait_for_exit() != FederationError.exit_code:
                break
        return self.finish()

    def wait_for_exit(self, name: str = COORDINATOR) -> int:
        """Wait for the end of a command; returns its exit code."""
        self.wait_until(lambda: self.ended(name), f"the end of {name}")
        return self.processes[name].returncode

    @contextmanager
    def recovery(self, row: str) -> Iterator[None]:
        """Around a fault: waits until the step it hit is done, and keeps how long that took."""
        before, started = self.done(), time.monotonic()
        yield
        self.wait_until(lambda: self.done() > before, f"recovery from: {row}")
        note_recovery(row, time.monotonic() - started)

    # --- What happens ----------------------------------------------------------------------------

    def kill_service(self, name: str, service: str) -> None:
        os.kill(self.pid(name, service), signal.SIGKILL)

    def kill(self, name: str) -> None:
        """kill -9 of `hica-server` or of a `hica-client` itself."""
        self.processes[name].kill()
        self.processes[name].wait()

    def terminate(self, name: str) -> int:
        """SIGTERM, as systemd ends it; returns its exit code."""
        self.processes[name].terminate()
        return self.wait_for_exit(name)

    def hold(self, name: str, round_: int, of: int = 2) -> None:
        """Hold a round of alignment open: the site has been asked, and its runner is stopped."""
        self.wait_for_step(f"alignment {round_}/{of}")
        self._held = self.pid(name, "runner")
        os.kill(self._held, signal.SIGSTOP)
        asked = "asks for train.align"
        self.wait_until(lambda: self.said(name).count(asked) >= round_, f"{name} being asked")

    def release(self) -> None:
        with suppress(ProcessLookupError):  # it may be what was killed
            os.kill(self._held, signal.SIGCONT)

    def fill_disk(self, pid: int, size: int) -> None:
        """No file of a process may grow beyond `size` bytes: small ones still fit on the disk."""
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free_disk(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    def reach_through(self, name: str, port: int) -> None:
        """Let a hospital connect to another port of this machine than the coordinator's own."""
        file = self.site(name).federation.kit / "kit.json"
        kit = json.loads(file.read_text())
        file.write_text(json.dumps({**kit, "address": f"localhost:{port}"}))

    def kill_all(self) -> None:
        """Nothing of this federation is left, whatever a test has done to it."""
        while pids := self.alive():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.processes.values():
                process.wait()


def note_recovery(row: str, seconds: float) -> None:
    """Append to the file named in HICA_RECOVERY_LOG: the table of the operating guide."""
    if path := os.environ.get("HICA_RECOVERY_LOG"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"row": row, "seconds": round(seconds, 1)}) + "\n")


class Proxy:
    """Passes TCP connections on to a port of this machine, until its cable is pulled.

    Pulled, it neither passes on nor refuses: what is sent waits in buffers, as it would wait to be
    sent again, and goes on when the cable is back.
    """

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connected = threading.Event()
        self.connected.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.connected.clear()

    def mend(self) -> None:
        self.connected.set()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
                self.connected.wait()
                far = socket.create_connection(self.target)
            except OSError:
                if self.listener.fileno() < 0:
                    return
                near.close()  # the coordinator is down
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.connected.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Phantoms and features, the same for all federations."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scenario_file(tmp_path) -> Path:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO)
    return file


@pytest.fixture
def make_federation(tmp_path, scenario_file, cache) -> Iterator[Callable[..., Federation]]:
    """Makes a federation of `north` and `south`, prepared and not started."""
    made = []

    def make(*overrides: str) -> Federation:
        scenario = load_scenario(scenario_file, list(overrides))
        federation = Federation(scenario, Place(tmp_path, tmp_path / "federation", cache, "cpu"))
        made.append(federation)
        federation.prepare()
        return federation

    yield make
    for federation in made:
        federation.kill_all()


@pytest.fixture
def federation(make_federation) -> Federation:
    """A federation that needs both its sites."""
    return make_federation()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[Federation], Proxy]]:
    """Makes a proxy to a federation's coordinator."""
    made = []

    def make(federation: Federation) -> Proxy:
        made.append(Proxy(load_settings(federation.folder.root).server.port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, cache) -> Iterator[Callable[[Federation], dict]]:
    """`result.json` of the same study and seed in one process, where nothing happens."""
    results: dict[str, dict] = {}

    def result_of(federation: Federation) -> dict:
        text = federation.scenario.as_toml()
        if text not in results:
            folder = tmp_path_factory.mktemp("undisturbed")
            place = Place(folder, folder / "run", cache, "cpu")
            results[text] = simulate(federation.scenario, place)
            torch.use_deterministic_algorithms(False)
        return results[text]

    yield result_of


@pytest.fixture
def assert_as_if_undisturbed(undisturbed) -> Callable[[Federation, dict], None]:
    """The same metrics as without the fault, and every round once."""

    def check(federation: Federation, result: dict) -> None:
        expected = undisturbed(federation)
        assert largest_difference(metrics_of(result), metrics_of(expected)) <= TOLERANCE
        assert exchanges(result) == exchanges(expected)
        assert not missed(result)

    return check


def learnt_in(result: dict) -> list[dict]:
    """The rounds that the model was learnt in: all but the telling of the end, which is for all."""
    return [entry for entry in result["rounds"] if entry["stage"] != RESULT.name]


def exchanges(result: dict) -> list[tuple[str, int]]:
    """Stage and round of every exchange; sites are asked what they can at every start anew."""
    rounds = [(entry["stage"], entry["round"]) for entry in result["rounds"]]
    return [each for each in rounds if each[0] != "capabilities"]


def missed(result: dict) -> dict[str, list[tuple[str, int]]]:
    """Which rounds each site missed, or had its answer refused in."""
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in result["rounds"]:
        for name in (*entry["missing"], *entry["refused"]):
            found.setdefault(name, []).append((entry["stage"], entry["round"]))
    return found
