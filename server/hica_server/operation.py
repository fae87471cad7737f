"""`hica-server run`: one coordinator from its start to the end of its study.

This process supervises three others and, in the same loop, conducts the study:

    superlink   Flower's server, on loopback
    superexec   starts the ServerApp (`hica_server.deployed`) of a Flower run
    gateway     the one public port; lets nothing but SuperNodes through to the superlink

Killed at any instant, it takes them along; started again, it goes on after the last completed step.
"""

import logging
import os
import secrets
import signal
import sys
from pathlib import Path

from hica.deployment.flower_version import require_flower
from hica.deployment.lockfile import hold
from hica.deployment.supervision import Service, Supervisor, free_port, until_stopped
from hica.storage import open_to_others, write_atomically
from hica.study import Study, load_study
from hica_server.console import Display
from hica_server.handed_out import check_kits
from hica_server.metrics_endpoint import serving_metrics
from hica_server.orchestrator import Orchestrator
from hica_server.provision import require_provisioned, require_valid_certificate
from hica_server.settings import Folder, ServerSettings, load_settings
from hica_server.superlink.control import Control
from hica_server.superlink.processes import (
    TELL_VARIABLE,
    environment,
    superexec_command,
    superlink_command,
)

logger = logging.getLogger("hica.server")

TICK_SECONDS = 0.5
TELL_SECONDS = 30.0
"""How long sites that are away at the end are waited for."""
QUICK_DEATHS = 5
"""Of a service in a row: then it is not bad luck."""


def run(root: Path, tell: float | None = None) -> signal.Signals | None:
    """Start or resume the study of a coordinator's folder, and see it to its end.

    Sites that are away at the end are waited for, `tell` seconds (default: `TELL_SECONDS`), to tell
    them that the study is over. With `tell` that is also done for a study that was over before.

    Returns the signal that ended it before; None at the end of the study, when `result.json` and
    `report.html` lie in the run directory.

    Raises:
        HicaError: What has to be mended before the same command can go on.
    """
    require_flower()
    folder = Folder(root.resolve())
    study = load_study(folder.study)
    require_provisioned(folder)
    require_valid_certificate(folder)
    check_kits(folder, study, load_settings(folder.root))
    for private in (folder.key.parent, folder.kits, folder.run, folder.service):
        if words := open_to_others(private):
            logger.warning(words)
    with hold(folder.lock, f"the coordinator of {folder.root}"):
        # Also for this process, which must not look for its own services behind a proxy.
        seconds = TELL_SECONDS if tell is None else tell
        os.environ.update(environment(folder) | {TELL_VARIABLE: str(seconds)})
        over = _has_result(folder, study) and not tell
        stopped = None if over else _serve(folder, study)
        if stopped is None and not (folder.run / "report.html").exists():
            from hica_server.report.run_report import write_run_report  # imports torch

            write_run_report(folder.run)
    return stopped


def _serve(folder: Folder, study: Study) -> signal.Signals | None:
    """Supervise and conduct until the study is at its end or a signal comes."""
    # Made anew at each start: what an earlier one has left running is shut out.
    write_atomically(folder.secret, secrets.token_hex(32).encode(), mode=0o600)
    folder.connected.unlink(missing_ok=True)  # until it is there again, the gateway lets nobody in
    port, settings = free_port(), load_settings(folder.root)
    with (
        until_stopped() as stop,
        serving_metrics(folder, settings.ports.metrics),
        Supervisor(_services(folder, settings, port), folder.processes) as supervisor,
        Control(folder, port) as control,
        Display(folder) as display,
    ):
        orchestrator = Orchestrator(folder, study, control)
        while not stop.wait(TICK_SECONDS):
            supervisor.tick()
            if orchestrator.advance():
                return None
            display.refresh()
        orchestrator.stop()
        return stop.signal


def _services(folder: Folder, settings: ServerSettings, port: int) -> list[Service]:
    """What is supervised, in the order of its start."""
    gateway = [sys.executable, "-m", "hica_server.gateway", str(folder.root), str(port)]
    services = {
        "superlink": (superlink_command(folder, port, settings.ports.health), port),
        "superexec": (superexec_command(folder, port), None),
        "gateway": (gateway, settings.server.port),
    }
    return [
        Service(name, command, {}, folder.logs / f"{name}.log", listens, QUICK_DEATHS)
        for name, (command, listens) in services.items()
    ]


def _has_result(folder: Folder, study: Study) -> bool:
    """Whether the run directory holds the result of this very study."""
    if not (folder.run / "result.json").exists():
        return False
    from hica_server.report.run_file import read_result  # imports matplotlib

    return bool(read_result(folder.run)["study_sha256"] == study.sha256)
