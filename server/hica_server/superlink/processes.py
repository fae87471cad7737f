"""Commands and environment of the processes of Flower that a coordinator runs."""

import os
import sys
import sysconfig
from pathlib import Path

from hica_server.settings import Folder

LOOPBACK = "127.0.0.1"
HOME_VARIABLE = "HICA_FOLDER"
"""Tells the ServerApp whose coordinator it is."""
TELL_VARIABLE = "HICA_TELL_SECONDS"
"""Tells it how long sites that are away at the end are waited for."""


def superlink_command(folder: Folder, port: int, health_port: int) -> list[str]:
    """Command of the SuperLink: all on loopback, its state on disk, nodes authenticated.

    With process isolation it starts no ServerApp itself, so that a run outlives it; without the
    secret nobody else can take one over. It installs nothing, whatever a bundle asks for.
    `port` is for all its HTTP interfaces, `health_port` for Flower's gRPC health service; 0: none.
    """
    health = ["--health-server-address", f"{LOOPBACK}:{health_port}"] if health_port else []
    return [
        *(sys.executable, "-m", "hica_server.superlink"),
        *("--host", LOOPBACK, "--port", str(port)),
        *health,
        *("--ssl-ca-certfile", str(folder.ca_certificate)),
        *("--ssl-certfile", str(folder.certificate)),
        *("--ssl-keyfile", str(folder.key)),
        "--enable-supernode-auth",
        *("--database", str(folder.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.secret)),
        "--disable-runtime-dependency-installation",
    ]


def superexec_command(folder: Folder, port: int) -> list[str]:
    """Command of the superexec, which starts a ServerApp for every run of the SuperLink."""
    return [
        str(Path(sysconfig.get_path("scripts")) / "flower-superexec"),
        *("--runtime-api-address", f"{LOOPBACK}:{port}"),
        *("--root-certificates", str(folder.ca_certificate)),
        *("--superexec-auth-secret-file", str(folder.secret)),
    ]


def environment(folder: Folder) -> dict[str, str]:
    """Environment variables of SuperLink, superexec and ServerApp beside those of this process."""
    scripts = sysconfig.get_path("scripts")
    exempt = ",".join(filter(None, [os.environ.get("NO_PROXY"), LOOPBACK, "localhost"]))
    return {
        HOME_VARIABLE: str(folder.root),
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),  # flwr-serverapp
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "FLWR_HOME": str(folder.flower_home),
        # Memory of the pieces of an update goes back to the system, not to a heap of each thread.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(2**18),
        "FLWR_LOG_LEVEL": "WARNING",  # below, the SuperLink logs every look we take at it
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
