"""Folder: where a coordinator's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """A coordinator's folder. Weights and corpus lie where `ServerSettings.data` says.

    Attributes:
        root: What `hica-server init` made.
    """

    root: Path

    @property
    def study(self) -> Path:
        """The study (TOML)."""
        return self.root / "study.toml"

    @property
    def settings(self) -> Path:
        """`ServerSettings` (TOML)."""
        return self.root / "server.toml"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the federation's own authority; in every start kit."""
        return self.root / "federation" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Private key of the authority: needed by `provision` only, never by a running server."""
        return self.root / "federation" / "ca.key"

    @property
    def roster(self) -> Path:
        """The sites' public keys, as they are in every start kit; for secure aggregation."""
        return self.root / "federation" / "keys.json"

    @property
    def certificate(self) -> Path:
        """The server's certificate, signed by the authority."""
        return self.root / "federation" / "server.crt"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.root / "federation" / "server.key"

    @property
    def sites(self) -> Path:
        """Enrolled sites: written by `hica_server.enrolment`."""
        return self.root / "federation" / "sites.json"

    @property
    def kits(self) -> Path:
        """Start kits, one zip a site."""
        return self.root / "kits"

    @property
    def run(self) -> Path:
        """Run directory: state, result, report, events."""
        return self.root / "run"

    @property
    def outcome(self) -> Path:
        """How the last Flower run ended."""
        return self.run / "outcome.json"

    @property
    def progress(self) -> Path:
        """Where the run stands."""
        return self.run / "progress.json"

    @property
    def run_lock(self) -> Path:
        """Held by the one process that writes the run directory."""
        return self.run / "lock"

    @property
    def service(self) -> Path:
        """What the running processes keep; nothing in it outlives the study."""
        return self.root / "service"

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.service / "superlink.db"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder (FLWR_HOME)."""
        return self.service / "flwr-home"

    @property
    def secret(self) -> Path:
        """Shared by SuperLink and superexec."""
        return self.service / "secret"

    @property
    def logs(self) -> Path:
        """Logs, one for each process."""
        return self.service / "logs"

    @property
    def lock(self) -> Path:
        """Held by the running `hica-server run`."""
        return self.service / "lock"

    @property
    def connected(self) -> Path:
        """Which enrolled sites are connected (JSON); missing until the SuperLink knows them all."""
        return self.service / "connected.json"

    @property
    def processes(self) -> Path:
        """Processes of the running server and their ports (JSON)."""
        return self.service / "processes.json"
