"""A hospital's client against Flower's own SuperLink, with the tests in the ServerApp's place.

One coordinator and one client are started for all of these tests; each leaves them connected.
"""

import io
import json
import os
import signal
import subprocess
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import ErrorCode
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from PIL import Image
from tests.coordinator import KEY, PUBLIC

from hica.cohort.draw import DRAW
from hica.deployment.bundle import APP_ID, BUNDLE_FOLDER, BUNDLE_SHA256, build
from hica.deployment.keys import read_public
from hica.deployment.kit import Kit, study_text
from hica.deployment.supervision import free_port
from hica.study import Study, apply_overrides, validated
from hica.wire.messages import Kind, Request
from hica.wire.records import decode_reply, encode_request
from hica_client.approval import approve
from hica_client.audit import verify
from hica_client.link import REVOKED, UNKNOWN_KEY
from hica_client.site import load_site
from hica_server.provision import make_authority, make_certificate
from hica_server.settings import Folder
from hica_server.superlink.control import Control
from hica_server.superlink.grid import PromptGrid
from hica_server.superlink.processes import environment, superlink_command

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

PATIENCE = 240.0
"""Seconds after which what does not come fails its test."""

STUDY = {
    "study": {"name": "smoke"},
    "model": {"train": "adapter", "adapter_width": 8},
    "classes": [
        {"name": "round", "prompts": ["a round mass"], "findings": ["smooth margin"]},
        {"name": "square", "prompts": ["a square mass"], "findings": ["straight margin"]},
    ],
    "text": {"epochs": 0},
    "alignment": {"rounds": 1, "shots": 2},
    "regions": {"method": "grid", "count": 2},
    "federation": {"min_count": 3},
}


def study(*overrides: str) -> Study:
    return validated(Study, apply_overrides(STUDY, list(overrides)), "study")


def program(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Coordinator:
    """A SuperLink over TLS with node authentication and process isolation."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        make_authority(self.folder)
        make_certificate(self.folder, "localhost", days=30)
        self.folder.service.mkdir()
        self.folder.secret.write_bytes(os.urandom(32))
        self.port = free_port()
        with (root / "superlink.log").open("wb") as log:
            self.process = subprocess.Popen(
                superlink_command(self.folder, self.port, free_port()),
                env=os.environ | environment(self.folder),
                stdout=log,
                stderr=log,
            )
        self.control = Control(self.folder, self.port)
        wait_until(self._answers, "the SuperLink")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder.root / "superlink.log").read_text()
        try:
            self.control.nodes()
        except Exception:
            return False
        return True

    @property
    def ca(self) -> bytes:
        return self.folder.ca_certificate.read_bytes()

    def is_online(self, node: int) -> bool:
        return any(other.id == node and other.online for other in self.control.nodes())

    @contextmanager
    def run(self, bundle: bytes, **config: str) -> Iterator[PromptGrid]:
        """Start a run and be its ServerApp."""
        fab = fab_to_proto(Fab(BUNDLE_SHA256, bundle, {}))
        request = StartRunRequest(fab=fab, override_config=user_config_to_proto(config))
        run = self.control._client.StartRun(request).run_id
        proof = SuperExecAuthHttpInterceptor(
            master_secret=self.folder.secret.read_bytes(),
            protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}),
        )
        address = f"127.0.0.1:{self.port}"
        with RuntimeHttpClient.from_server_address(address, False, self.ca, [proof]) as client:
            task = AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
            token = client.AcquireTask(task).token
        grid = HttpGrid(address, False, self.ca, token=token)
        started = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = started.task_id, run
        TaskIdentity.node_id = started.context.node_id
        grid.set_run(run_from_proto(started.run))
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(grid._runtime_client))
        heartbeat.start()
        yield PromptGrid(grid, KEY)
        heartbeat.stop()
        grid.close()
        self.control.stop_run(run)


class Hospital:
    """A site of eight images, its start kit, and `hica-client run`."""

    def __init__(self, root: Path, coordinator: Coordinator) -> None:
        self.file = root / "site.toml"
        self.coordinator = coordinator
        self._write_images()
        self.file.write_text(
            f'[site]\nname = "{root.name}"\n[data]\nmanifest = "manifest.csv"\n'
            '[device]\nuse = "cpu"\n[policy]\nmin_count = 3\n'
        )
        self._unpack_kit()
        self.do("keygen")
        self.do("approve", study().sha256[:12], "--yes")
        self.site = load_site(self.file)
        self.process: subprocess.Popen | None = None
        self.log = root / "client.log"

    def _write_images(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32), dtype=np.uint8)
        rows = ["image,label,patient_id,split"]
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(self.file.parent / f"{number}.png")
            label, side = ("round", "square")[number % 2], ("train", "test")[number // 4]
            rows.append(f"{number}.png,{label},p{number},{side}")
        self.manifest.write_text("\n".join(rows) + "\n")

    def _unpack_kit(self) -> None:
        folder = self.file.parent / "kit"
        folder.mkdir()
        kit = Kit(
            site=self.file.parent.name,
            address=f"localhost:{self.coordinator.port}",
            study_sha256=study().sha256,
            bundle_sha256=BUNDLE_SHA256,
            hica=version("hica"),
            flwr=version("flwr"),
            coordinator_key=PUBLIC,
        )
        (folder / "kit.json").write_text(kit.model_dump_json())
        (folder / "ca.crt").write_bytes(self.coordinator.ca)
        (folder / "study.json").write_text(study().canonical_json())
        (folder / "study.toml").write_text(study_text(study()))

    @property
    def manifest(self) -> Path:
        return self.file.parent / "manifest.csv"

    def do(self, verb: str, *arguments: str) -> str:
        command = [program("hica-client"), verb, str(self.file), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def register(self) -> int:
        public = read_public(self.file.parent / "keys" / "site.pub")
        return self.coordinator.control.register(self.file.parent.name, public.pem)

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [program("hica-client"), "run", str(self.file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def status(self) -> dict:
        return json.loads(self.do("status", "--json"))

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.log.read_text(), f"{words!r} in\n{self.log.read_text()}")

    def pid(self, service: str) -> int | None:
        processes = json.loads((self.site.service / "processes.json").read_text())
        return processes[service]["pid"]

    def wait_for_another(self, service: str, pid: int) -> None:
        """Wait until a service has been started again."""
        wait_until(lambda: self.pid(service) not in (None, pid), f"another {service}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait()

    @contextmanager
    def blocked_runner(self, node: int, seed: int) -> Iterator[tuple[PromptGrid, list[str]]]:
        """Keep the runner in the middle of a task: it reads a draw that has no end.

        Args:
            node: The hospital's.
            seed: Makes a study of its own, which the runner has not drawn yet.

        Yields:
            The grid and the ids of the messages that are not answered.
        """
        asked = study(f"study.seed={seed}")
        approve(self.site, asked, "tester", datetime.now(UTC))
        draw = self.site.study_folder(asked.sha256) / DRAW
        draw.parent.mkdir()
        with self.coordinator.run(build(), study=asked.sha256) as grid:
            os.mkfifo(draw)
            ids = list(grid.push_messages([question(node, asked)]))
            end = self._opened(draw)
            draw.unlink()
            yield grid, ids
            os.close(end)

    def _opened(self, pipe: Path) -> int:
        """The other end of a pipe, once the runner has opened it."""
        ends: list[int] = []

        def is_read() -> bool:
            try:
                ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_until(is_read, "a runner that reads its draw")
        return ends[0]


def question(node: int, asked: Study) -> Message:
    """What any site can answer, and fast."""
    request = Request(Kind.CAPABILITIES, asked)
    return Message(encode_request(request), node, request.kind.value)


def ask(grid: PromptGrid, node: int) -> Message:
    """Ask a node for its capabilities and wait for the answer."""
    (answer,) = grid.send_and_receive([question(node, study())], timeout=PATIENCE)
    return answer


def assert_answered(answer: Message) -> None:
    assert not answer.has_error(), answer.error.reason
    assert decode_reply(answer.content, Kind.CAPABILITIES, 0, {}).site == "north"


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path_factory.mktemp("coordinator"))
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory, coordinator) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospitals") / "north"
    folder.mkdir()
    made = Hospital(folder, coordinator)
    made.node = made.register()
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def south(tmp_path, coordinator) -> Iterator[Hospital]:
    """Another hospital, which nobody has enrolled."""
    folder = tmp_path / "south"
    folder.mkdir()
    made = Hospital(folder, coordinator)
    yield made
    assert made.stop(signal.SIGINT) == 130


@pytest.fixture
def node(coordinator, hospital) -> int:
    """The hospital's node, which is connected."""
    wait_until(lambda: coordinator.is_online(hospital.node), "the hospital")
    return hospital.node


def test_the_installed_app_answers_over_tls(coordinator, hospital, node):
    with coordinator.run(build(), study=study().sha256) as grid:
        assert_answered(ask(grid, node))
    found = hospital.status()
    assert (found["running"], found["connected"], found["node"]) == (True, True, node)
    assert found["last_message"]["decision"] == "sent"
    assert found["services"]["runner"]["pid"] == hospital.pid("runner")
    assert verify(hospital.site.audit_log)[-1]["kind"] == "query.capabilities"


def foreign_bundle(folder: Path, files: dict[str, str]) -> bytes:
    """Our bundle's pyproject with code beside it, all of which leaves a mark once it is run."""
    pyproject = (BUNDLE_FOLDER / "pyproject.toml").read_bytes()
    mark = f"open({str(folder / 'executed')!r}, 'w')\n"
    code = {name: (mark + text).encode() for name, text in files.items()}
    return build_fab_from_files({"pyproject.toml": pyproject, **code})[0]


APP = "from flwr.clientapp import ClientApp\napp = ClientApp()\n"


@pytest.mark.parametrize(
    "files",
    [
        {"hica_client/__init__.py": "", "hica_client/app.py": APP},
        {"wave.py": "", "json.py": "", "torch/__init__.py": ""},
        {"hica_client.py": APP},
    ],
    ids=["its own hica_client", "names of the standard library", "a module of our name"],
)
def test_a_bundle_with_code_is_refused_and_not_executed(
    tmp_path, coordinator, hospital, node, files
):
    bundle = foreign_bundle(tmp_path, files)
    assert set(files) < set(zipfile.ZipFile(io.BytesIO(bundle)).namelist())
    processes = hospital.pid("supernode"), hospital.pid("runner")
    with coordinator.run(bundle, study=study().sha256) as grid:
        answer = ask(grid, node)
        assert answer.error.code == ErrorCode.INVALID_FAB
        assert f"the bundle {APP_ID!r}" in answer.error.reason
    with coordinator.run(build(), study=study().sha256) as grid:
        assert_answered(ask(grid, node))
    assert not (tmp_path / "executed").exists()
    assert (hospital.pid("supernode"), hospital.pid("runner")) == processes
    entry = verify(hospital.site.audit_log)[-2]
    assert (entry["event"], entry["decision"]) == ("application", "refused")


def test_another_run_configuration_is_refused(coordinator, node):
    with coordinator.run(build(), study="0" * 64) as grid:
        reply = ask(grid, node)
        with pytest.raises(Exception, match="not with the approved study alone"):
            decode_reply(reply.content, Kind.CAPABILITIES, 0, {})


def gone(grid: PromptGrid, ids: list[str]) -> Message:
    """Wait until Flower says that no answer will come."""
    found: list[Message] = []
    wait_until(lambda: found.extend(grid.pull_messages(ids)) or bool(found), "word of the node")
    assert found[0].error.code == ErrorCode.NODE_UNAVAILABLE
    return found[0]


@pytest.mark.parametrize(("service", "seed"), [("runner", 1), ("supernode", 2)])
def test_kill_9_in_the_middle_of_a_task(coordinator, hospital, node, service, seed):
    with hospital.blocked_runner(node, seed) as (grid, ids):
        pids = {name: hospital.pid(name) for name in ("supernode", "runner")}
        os.kill(pids[service], signal.SIGKILL)
        gone(grid, ids)
        for name, pid in pids.items():
            hospital.wait_for_another(name, pid)
    wait_until(lambda: coordinator.is_online(node), "the hospital")
    with coordinator.run(build(), study=study().sha256) as grid:
        assert_answered(ask(grid, node))


def test_kill_9_of_the_whole_client_which_is_started_again_at_once(coordinator, hospital, node):
    with hospital.blocked_runner(node, 3) as (grid, ids):
        children = [hospital.pid(name) for name in ("supernode", "runner")]
        hospital.process.kill()
        hospital.process.wait()
        wait_until(lambda: not any(map(is_alive, children)), "the end of its services")
        assert not hospital.status()["running"]
        hospital.start()
        gone(grid, ids)
    wait_until(lambda: coordinator.is_online(node), "the hospital")
    with coordinator.run(build(), study=study().sha256) as grid:
        assert_answered(ask(grid, node))


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_sigterm_signs_off_and_ends_well(coordinator, hospital, node):
    assert hospital.stop() == 0
    assert not coordinator.is_online(node)
    assert not hospital.status()["running"]
    hospital.start()
    wait_until(lambda: coordinator.is_online(node), "the hospital")


def test_a_second_client_of_the_same_site_is_refused(hospital, node):
    command = [program("hica-client"), "run", str(hospital.file)]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 6
    assert f"is running already: process {hospital.process.pid}" in second.stderr


def test_a_site_that_is_enrolled_late_and_revoked_hears_about_both(south, coordinator):
    south.start()
    south.wait_for(UNKNOWN_KEY)
    assert south.status()["trouble"] == UNKNOWN_KEY
    node = south.register()
    south.wait_for(f"connected as node {node}")
    coordinator.control.unregister(node)
    south.wait_for(REVOKED)
