"""`hica-server status`: what a coordinator is doing, from the files it keeps."""

from pathlib import Path
from typing import Any

from hica.deployment.lockfile import holder
from hica_server.enrolment import EnrolledSite, read_sites
from hica_server.progress import read_progress, read_table
from hica_server.settings import Folder


def status(root: Path) -> dict[str, Any]:
    """State of a coordinator's folder, as JSON.

    It has `running`, `pid`; `finished`; `services` with process id, start, restarts and port, empty
    where nothing runs; `run`, see `hica_server.progress`; `sites` by name: whether enrolled,
    whether online, since when.
    """
    folder = Folder(root.resolve())
    process = holder(folder.lock)
    connected = read_table(folder.connected) if process is not None else {}
    return {
        "running": process is not None,
        "pid": process,
        "finished": (folder.run / "result.json").exists(),
        "services": read_table(folder.processes) if process is not None else {},
        "run": read_progress(folder),
        "sites": {
            name: _site(site, connected.get(name, {})) for name, site in read_sites(folder).items()
        },
    }


def _site(site: EnrolledSite, connection: dict[str, Any]) -> dict[str, Any]:
    return {
        "enrolled": site.revoked is None,
        "online": connection.get("online", False),
        "since": connection.get("since") or None,
    }


def lines(told: dict[str, Any]) -> list[str]:
    """What `status` found, in lines for a person."""
    state = "finished" if told["finished"] else "not running"
    found = [f"running      process {told['pid']}" if told["running"] else state]
    for name, service in told["services"].items():
        process = f"process {service['pid']}" if service["pid"] else "waiting to be restarted"
        port = f", port {service['port']}" if service["port"] else ""
        found.append(f"{name:<11}  {process}{port}, {service['restarts']} restarts")
    if run := told["run"]:
        steps = f"{run.get('done', 0)} of {run['of']} steps done, " if run.get("of") else ""
        failed = f"{run.get('failures', 0)} answers failed"
        found.append(f"run          {steps}at: {run['step']}; {failed}")
    return found + [f"site {name}: {_connection(site)}" for name, site in told["sites"].items()]


def _connection(told: dict[str, Any]) -> str:
    if not told["enrolled"]:
        return "revoked"
    state = "connected" if told["online"] else "not connected"
    return f"{state} since {told['since'][:19]}" if told["since"] else state
