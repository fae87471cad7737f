"""Stock Flower over real processes: `flwr run` of a small app with stock SuperLink and SuperNodes.

As its documentation has it: TLS, nodes with keys, a new process for every message (isolation
`subprocess`, the default), state in memory. Its dependencies are not installed anew.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hica.deployment.keys import public_path
from hica.deployment.supervision import free_port
from hica.errors import FederationError
from hica_simulations.deployment import environment, program, started
from hica_simulations.experiments.benchmarks import stock_app

LOOPBACK = "127.0.0.1"
CONNECTION = "stock"
"""What Flower's configuration calls our SuperLink."""
START_SECONDS = 60.0
"""What the SuperLink gets to open its port."""
STOP_SECONDS = 20.0
"""What a process gets to end by itself."""


@dataclass(frozen=True)
class Credentials:
    """Certificates and keys, PEM and OpenSSH files.

    Attributes:
        ca: Certificate of the authority.
        certificate: The server's, for `localhost` and loopback.
        key: Private key of the server.
        nodes: Private key of each site; the public one lies beside it.
    """

    ca: Path
    certificate: Path
    key: Path
    nodes: Mapping[str, Path]


@contextmanager
def stock_flower(folder: Path, credentials: Credentials) -> Iterator["StockFlower"]:
    """One SuperLink and its SuperNodes, which write into `folder`; all end with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        flower = StockFlower(folder, credentials, ends)
        flower.start()
        yield flower


class StockFlower:
    """Processes of one SuperLink and its SuperNodes; `ends` stops them, the last started first."""

    def __init__(self, folder: Path, credentials: Credentials, ends: ExitStack) -> None:
        self.folder = folder
        self.credentials = credentials
        self.ends = ends

    def run(self, client: str, rounds: int) -> list[dict[str, float]]:
        """`flwr run` of the app to its end; `client` is the module of `stock_app` with a ClientApp.

        Gives what `stock_app.server` has left: `seconds` and `training` of each round.

        Raises:
            FederationError: The run has failed.
        """
        app, result = self.folder / "app", self.folder / "result.json"
        write_app(app, client, {"sites": len(self.credentials.nodes), "rounds": rounds})
        said = self._flwr("run", app, CONNECTION, "--stream", "-c", f'result="{result}"')
        if not result.exists():  # the command succeeds even if the run has failed
            raise FederationError(f"the run of stock Flower has failed:\n{said}")
        measured: list[dict[str, float]] = json.loads(result.read_text(encoding="utf-8"))
        return measured

    def start(self) -> None:
        """Start the SuperLink, then a SuperNode for each site.

        Raises:
            FederationError: The SuperLink does not start, or refuses a site.
        """
        files, port = self.credentials, free_port()
        home = self.folder / "flwr-home"
        home.mkdir(exist_ok=True)
        address = f"{LOOPBACK}:{port}"
        connection = {"address": address, "root-certificates": str(files.ca), "insecure": False}
        settings = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
        (home / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
        superlink = self._start(
            "flower-superlink",
            "superlink",
            *("--host", LOOPBACK, "--port", str(port)),
            *("--ssl-ca-certfile", str(files.ca)),
            *("--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        )
        self._wait_for_port(superlink, port)
        for name, key in files.nodes.items():
            self._flwr("supernode", "register", public_path(key), CONNECTION, "--name", name)
            self._start(
                "flower-supernode",
                name,
                *("--root-certificates", str(files.ca), "--superlink", address),
                *("--auth-supernode-private-key", str(key)),
                *("--host", LOOPBACK, "--port", str(free_port())),
            )

    def _start(self, script: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [program(script), *arguments]
        process = started(command, self.folder / f"{name}.log", self._environment())
        self.ends.callback(_end, process)
        return process

    def _flwr(self, *arguments: str | Path) -> str:
        """Run `flwr` to its end; returns what it has printed."""
        done = subprocess.run(
            [program("flwr"), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
        )
        if done.returncode != 0:
            said = f"exit code {done.returncode}:\n{done.stdout}"
            raise FederationError(f"flwr {arguments[0]}: {said}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Flower's own folder, its programs, and no calls home."""
        scripts = str(Path(program("flwr")).parent)
        return environment() | {
            "FLWR_HOME": str(self.folder / "flwr-home"),
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
            "NO_PROXY": f"{LOOPBACK},localhost",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }

    def _wait_for_port(self, superlink: subprocess.Popen[bytes], port: int) -> None:
        ends = time.monotonic() + START_SECONDS
        while not _listens(port):
            if superlink.poll() is not None or time.monotonic() > ends:
                log = (self.folder / "superlink.log").read_text(encoding="utf-8")
                raise FederationError(f"flower-superlink does not start:\n{log}")
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # nothing is left of its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_app(folder: Path, client: str, config: Mapping[str, Any]) -> None:
    """Write the app as `flwr run` takes it, with a ClientApp of a module of `stock_app`.

    What lies in `folder` is replaced. The configuration's `result`, a path, is named at the start
    of a run.
    """
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "stock_app"
    package.mkdir(parents=True)
    for source in Path(stock_app.__path__[0]).glob("*.py"):
        shutil.copy(source, package)
    components = {
        "serverapp": "stock_app.server:app",
        "clientapp": f"stock_app.{client}:app",
    }
    app = {"publisher": "stock", "components": components, "config": {**config, "result": ""}}
    project = {
        "project": {"name": "stock", "version": "1.0.0", "dependencies": []},
        "tool": {"flwr": {"app": app}},
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
