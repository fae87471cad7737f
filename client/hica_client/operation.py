"""run: takes part in the approved study, and keeps taking part whatever dies.

Two processes are supervised: Flower's SuperNode, which holds the connection to the coordinator, and
the runner, which does the work. A node that was killed is signed off at the coordinator before it
starts again, so that it is let in at once and nobody waits for what it was asked.
"""

import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import httpx

from hica.deployment.flower_version import require_flower
from hica.deployment.keys import check_pair, read_private
from hica.deployment.kit import CA_CERTIFICATE, Kit, read_kit
from hica.deployment.lockfile import hold
from hica.deployment.supervision import Service, Supervisor, free_port, until_stopped
from hica.errors import INTERRUPTED, ConfigurationError, HicaError
from hica.printable import plain
from hica.steps.result import RESULT
from hica.storage import write_atomically
from hica_client.approval import approved
from hica_client.audit import verify
from hica_client.federation_checks import check_name, check_noise, check_versions
from hica_client.flower_runner import TASK_LOST, deactivate, supernode_arguments
from hica_client.link import SILENT, Link
from hica_client.network_checks import check_clock, meet, refuse_foreign
from hica_client.result import is_told
from hica_client.site import Site, load_site

logger = logging.getLogger("hica.client")

LOOK_SECONDS = 0.5
"""Between two looks at the processes."""

LINGER_SECONDS = 30.0
"""How long a site that knows of the end stays, for a coordinator that has not had its answer."""

QUICK_DEATHS = 10
"""Of the runner in a row, after which it is left to people: some four minutes."""

HALF_RECEIVED = "is not in `RUNNING` status. Ignoring message"
"""What the SuperNode says when a run ends while it receives a message. It forgets that there is a
task for it already: a runner that takes that waits two hours for the rest of the message."""


def run(site_file: Path) -> int:
    """Take part until the study is over, or a signal comes; returns the exit code.

    It is 0 at the end of the study and after SIGTERM, 130 after SIGINT.

    Raises:
        ConfigurationError: Kit, key or approval is missing or does not fit this installation.
        DataError: The audit log was tampered with.
        FederationError: The client of this site runs already, its runner does not start, or who
            answers at the coordinator's address is not of the kit's authority.
        StorageError: The site's state cannot be written.
    """
    require_flower()
    site = load_site(site_file)
    kit = admitted(site_file, site)
    refuse_foreign(kit, site.federation.kit / CA_CERTIFICATE)
    logging.getLogger("hica").setLevel(logging.INFO)
    with hold(lock_file(site), f"the client of {site_file}"), until_stopped() as stop:
        client = Client(site_file.resolve(), site, kit)
        logger.info("%s takes part in study %s", site.site.name, kit.study_sha256[:12])
        with client.supervisor as running:
            while not stop.wait(LOOK_SECONDS):
                running.tick()
                if client.is_done():
                    break
                client.explain_silence()
        client.link.closed()
    if is_told(site, kit.study_sha256):
        name = read_kit(site.federation.kit)[1].study.name
        print(plain(f"the study {name} is over; your result: hica-client result {site_file}"))
        return 0
    return INTERRUPTED if stop.signal is signal.SIGINT else 0


def lock_file(site: Site) -> Path:
    """The lock file that is held while the client of this site runs."""
    return site.service / "lock"


def link_file(site: Site) -> Path:
    """The file that holds what is known of the connection (`hica_client.link`)."""
    return site.service / "node.json"


def processes_file(site: Site) -> Path:
    """The file of the services' process ids (`hica.deployment.supervision`)."""
    return site.service / "processes.json"


def admitted(site_file: Path, site: Site) -> Kit:
    """Read the start kit and check that all is there that taking part needs.

    Raises:
        ConfigurationError: Something is missing or does not fit; names the remedy.
        DataError: The audit log was tampered with.
    """
    kit, study = read_kit(site.federation.kit)
    check_name(site, kit)
    check_noise(site, kit)
    check_versions(kit)
    check_pair(site.federation.key)
    if not approved(site, study.sha256):
        raise ConfigurationError(
            f"the study {study.study.name!r} ({study.sha256[:12]}) is not approved at this site. "
            f"Read what it asks for and approve it: "
            f"hica-client approve {site_file} {study.sha256[:12]}"
        )
    verify(site.audit_log)
    return kit


class Client:
    """The two processes of a site, and what is done when one of them dies."""

    def __init__(self, site_file: Path, site: Site, kit: Kit) -> None:
        self.site = site
        self.kit = kit
        self.link = Link(link_file(site), kit.address)
        self._ends_supernode = False
        self._told_at: float | None = None
        runtime = f"127.0.0.1:{free_port()}"
        secret = site.service / "secret"
        write_atomically(secret, secrets.token_bytes(32), mode=0o600)
        arguments = supernode_arguments(
            kit.address, self._ca_certificate, site.federation.key, runtime, secret
        )
        runner = [str(site_file), "--runtime", runtime, "--secret", str(secret)]
        self.supervisor = Supervisor(
            [
                Service(
                    "supernode",
                    [sys.executable, "-m", "hica_client.supernode", *arguments],
                    environment(site),
                    site.service / "logs" / "supernode.log",
                    port=int(runtime.rpartition(":")[2]),
                    before_restart=lambda _service, _code: self.supernode_ended(),
                ),
                Service(
                    "runner",
                    [sys.executable, "-m", "hica_client.flower_runner", *runner],
                    environment(site),
                    site.service / "logs" / "runner.log",
                    fatal_after=QUICK_DEATHS,
                    before_restart=lambda _service, code: self.runner_ended(code),
                ),
            ],
            processes_file(site),
            on_line=self._heard,
        )
        self._sign_off()  # of a node that a killed client has left behind

    @property
    def _ca_certificate(self) -> Path:
        return self.site.federation.kit / CA_CERTIFICATE

    def is_done(self) -> bool:
        """Whether the study is over and the coordinator knows that this site has been told.

        An answer may be lost, and be asked for again: that is waited for, but not long.
        """
        if not is_told(self.site, self.kit.study_sha256):
            return False
        now = time.monotonic()
        self._told_at = self._told_at or now
        return self.link.answered == RESULT.kind or now - self._told_at > LINGER_SECONDS

    def _heard(self, service: str, line: str) -> None:
        if service == "supernode":
            self.link.heard(line)
            if HALF_RECEIVED in line:
                self._end_supernode()
        else:
            level, _, words = line.partition(" ")
            if level in ("WARNING", "ERROR"):
                logger.warning("runner: %s", words)

    def supernode_ended(self) -> None:
        """Say why the SuperNode ended, and have it let in again at once."""
        if self._ends_supernode:
            self.link.closed()
        else:
            self.link.ended(self._network_trouble())
        self._ends_supernode = False
        self._sign_off()

    def runner_ended(self, code: int) -> None:
        """Have the SuperNode start anew, too.

        It may hold a message that the runner has taken and not answered, or half of an answer,
        and would wait for the rest for a minute or for ever. As it leaves, the coordinator learns
        at once that no answer will come.
        """
        if code != TASK_LOST:
            self._end_supernode()

    def _end_supernode(self) -> None:
        """End it, so that the supervisor starts it anew."""
        pid = self.supervisor.pids()["supernode"]
        if pid is not None:
            self._ends_supernode = True
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGTERM)

    def explain_silence(self) -> None:
        """Say once why the coordinator cannot be reached, as far as this machine can see it."""
        if self.link.state.trouble == SILENT:
            self.link.explained(self._network_trouble())

    def _network_trouble(self) -> str:
        """What keeps this machine from the coordinator, whatever the SuperNode says."""
        try:
            check_clock(meet(self.kit, self._ca_certificate).clock_ahead)
        except HicaError as error:
            return str(error)
        return ""

    def _sign_off(self) -> None:
        """Tell the coordinator that the node is gone; where that fails it finds out in a minute."""
        node = self.link.state.node
        if node is None:
            return
        key = read_private(self.site.federation.key)
        try:
            deactivate(self.kit.address, self._ca_certificate, key, node)
        except (httpx.HTTPError, OSError, ValueError) as error:
            logger.debug("node %d is not signed off: %s", node, error)


def environment(site: Site) -> dict[str, str]:
    """What the services are started with: nothing calls home, and loopback needs no proxy."""
    loopback = "127.0.0.1,localhost"
    others = os.environ.get("NO_PROXY", os.environ.get("no_proxy", ""))
    exempt = f"{others},{loopback}" if others else loopback
    return {
        "FLWR_LOG_LEVEL": "INFO",  # the link reads its lines
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(site.service / "flwr-home"),
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "PYTHONUNBUFFERED": "1",
    }
