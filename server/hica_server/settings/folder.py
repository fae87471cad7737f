"""Folder: where a coordinator's files lie."""

from dataclasses import dataclass
from pathlib import Path


class _Place:
    """A path below the root of a `Folder`."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, folder: "Folder", _: type["Folder"]) -> Path:
        return folder.root.joinpath(*self._parts)


@dataclass(frozen=True)
class Folder:
    """A coordinator's folder. Weights and corpus lie where `ServerSettings.data` says."""

    root: Path
    """What `hica-server init` made."""

    study = _Place("study.toml")
    """The study (TOML)."""
    settings = _Place("server.toml")
    """`ServerSettings` (TOML)."""
    ca_certificate = _Place("federation", "ca.crt")
    """Certificate of the federation's own authority; in every start kit."""
    ca_key = _Place("federation", "ca.key")
    """Private key of the authority: needed by `provision` only, never by a running server."""
    roster = _Place("federation", "keys.json")
    """The sites' public keys, as they are in every start kit; for secure aggregation."""
    certificate = _Place("federation", "server.crt")
    """The server's certificate, signed by the authority."""
    key = _Place("federation", "server.key")
    """The server's private key."""
    signing_key = _Place("federation", "signing.key")
    """Private key that requests are signed with; its public key is in every start kit."""
    sites = _Place("federation", "sites.json")
    """Enrolled sites: written by `hica_server.enrolment`."""
    kits = _Place("kits")
    """Start kits, one zip a site."""
    run = _Place("run")
    """Run directory: state, result, report, events."""
    outcome = _Place("run", "outcome.json")
    """How the last Flower run ended."""
    progress = _Place("run", "progress.json")
    """Where the run stands."""
    run_lock = _Place("run", "lock")
    """Held by the one process that writes the run directory."""
    service = _Place("service")
    """What the running processes keep; nothing in it outlives the study."""
    database = _Place("service", "superlink.db")
    """The SuperLink's database."""
    flower_home = _Place("service", "flwr-home")
    """Flower's own folder (FLWR_HOME)."""
    secret = _Place("service", "secret")
    """Shared by SuperLink and superexec."""
    logs = _Place("service", "logs")
    """Logs, one for each process."""
    lock = _Place("service", "lock")
    """Held by the running `hica-server run`."""
    connected = _Place("service", "connected.json")
    """Which enrolled sites are connected (JSON); missing until the SuperLink knows them all."""
    asked = _Place("service", "asked.json")
    """How many bytes each site was asked for: written by `hica_server.asked`."""
    processes = _Place("service", "processes.json")
    """Processes of the running server and their ports (JSON)."""
