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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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


class StockFlower:
    """Processes of one SuperLink and its SuperNodes; leaving the context stops them all.

    Args:
        folder: Where everything is written.
        credentials: Certificates and keys of the server and of the sites.
    """

    def __init__(self, folder: Path, credentials: Credentials) -> None:
        self.folder = folder
        self.credentials = credentials
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def run(self, client: str, rounds: int) -> list[dict[str, float]]:
        """`flwr run` of the app, to its end.

        Args:
            client: Module of `stock_app` with the ClientApp.
            rounds: Number of rounds.

        Returns:
            What `stock_app.server` has left: `seconds` and `training` of each round.

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

    def stop(self) -> None:
        """End every process, last started first, and whatever it has started."""
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):  # nothing is left of its group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start_all(self) -> None:
        """The SuperLink, then a SuperNode for each site."""
        files = self.credentials
        home = self.folder / "flwr-home"
        home.mkdir(exist_ok=True)
        address = f"{LOOPBACK}:{self.port}"
        (home / "config.toml").write_text(_configuration(address, files.ca), encoding="utf-8")
        self._start(
            "flower-superlink",
            "superlink",
            *("--host", LOOPBACK, "--port", str(self.port)),
            *("--ssl-ca-certfile", str(files.ca)),
            *("--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        )
        self._wait_for_port()
        for name, key in files.nodes.items():
            self._flwr("supernode", "register", public_path(key), CONNECTION, "--name", name)
            self._start(
                "flower-supernode",
                name,
                *("--root-certificates", str(files.ca), "--superlink", address),
                *("--auth-supernode-private-key", str(key)),
                *("--host", LOOPBACK, "--port", str(free_port())),
            )

    def _start(self, script: str, name: str, *arguments: str) -> None:
        """Start a process of this context."""
        command = [program(script), *arguments]
        self.processes[name] = started(command, self.folder / f"{name}.log", self._environment())

    def _flwr(self, *arguments: str | Path) -> str:
        """Run `flwr` to its end; returns what it has printed.

        Raises:
            FederationError: It failed; holds what it said.
        """
        done = subprocess.run(
            [program("flwr"), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
        )
        if done.returncode != 0:
            raise FederationError(
                f"flwr {arguments[0]}: exit code {done.returncode}:\n{done.stdout}"
            )
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

    def _wait_for_port(self) -> None:
        """Wait until the SuperLink listens.

        Raises:
            FederationError: It has ended, or does not within `START_SECONDS`.
        """
        ends = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self.processes["superlink"].poll() is not None or time.monotonic() > ends:
                log = (self.folder / "superlink.log").read_text(encoding="utf-8")
                raise FederationError(f"flower-superlink does not start:\n{log}")
            time.sleep(0.1)


def write_app(folder: Path, client: str, config: Mapping[str, Any]) -> None:
    """Write the app as `flwr run` takes it.

    Args:
        folder: Where to; what is there is replaced.
        client: Module of `stock_app` with the ClientApp.
        config: Run configuration of the app; `result`, a path, is named at the start of a run.
    """
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "stock_app"
    package.mkdir(parents=True)
    for source in Path(stock_app.__path__[0]).glob("*.py"):
        shutil.copy(source, package)
    project = {
        "project": {"name": "stock", "version": "1.0.0", "dependencies": []},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "stock",
                    "components": {
                        "serverapp": "stock_app.server:app",
                        "clientapp": f"stock_app.{client}:app",
                    },
                    "config": {**config, "result": ""},
                }
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")


def _configuration(address: str, ca: Path) -> str:
    """Flower's `config.toml`."""
    connection = {"address": address, "root-certificates": str(ca), "insecure": False}
    return tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: connection}})


def _listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
