"""status: whether a site's client runs and is connected, and what it last answered.

Nothing is asked of the running processes, so it answers while they are busy or dead.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hica.deployment.kit import read_kit
from hica.deployment.lockfile import holder
from hica.errors import HicaError
from hica.wire.messages import shown_round
from hica_client.approval import decisions
from hica_client.audit import verify
from hica_client.link import read_link
from hica_client.operation import link_file, lock_file, processes_file
from hica_client.result import gain_words, result_file
from hica_client.site import Site, load_site

SHOWN = ("time", "event", "kind", "round", "decision", "reason", "bytes")
"""What of the last entry of the audit log is of interest while a study runs."""


def status(site_file: Path) -> dict[str, Any]:
    """What is known of a site's client; JSON.

    Raises:
        ConfigurationError: The site file or the record of approvals cannot be used.
        DataError: The audit log was tampered with.
    """
    site = load_site(site_file)
    pid = holder(lock_file(site))
    link = read_link(link_file(site))
    entries = verify(site.audit_log)
    return {
        "site": site.site.name,
        "running": pid is not None,
        "pid": pid,
        "services": _services(processes_file(site)) if pid is not None else {},
        "coordinator": _coordinator(site),
        "connected": pid is not None and link.connected,
        "since": link.since,
        "trouble": link.trouble if pid is not None else "",
        "node": link.node,
        "messages": len(entries),
        "gain": _gain(site),
        "last_message": _last(entries[-1]) if entries else None,
        "approved": [
            {"study": decision.study, "name": decision.name, "user": decision.user}
            for decision in decisions(site).values()
            if decision.approved
        ],
    }


def describe(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `status` found, as (name, words) for people, in the order of interest."""
    yield "site", found["site"]
    yield "client", f"running (process {found['pid']})" if found["running"] else "not running"
    for name, service in found["services"].items():
        words = f"process {service['pid']}" if service["pid"] else "about to be started again"
        yield name, f"{words}, restarted {service['restarts']} times"
    yield "coordinator", found["coordinator"] or "no start kit yet"
    if found["running"]:
        link = f"connected since {found['since']}" if found["connected"] else "not connected"
        yield "link", f"{link}: {found['trouble']}" if found["trouble"] else link
    last = found["last_message"]
    if last is not None:
        words = f"{last['time']}: {last['kind']}, round {last['round']}, {last['decision']}"
        yield "last message", f"{words} ({last['reason']})" if last["reason"] else words
    if found["gain"] is not None:
        yield "joining gave", ", ".join(found["gain"].values())
    for study in found["approved"]:
        yield "approved", f"{study['name']} ({study['study'][:12]}), by {study['user']}"
    if not found["approved"]:
        yield "approved", "no study"


def _last(entry: dict[str, Any]) -> dict[str, Any]:
    """What is of interest of an entry, its round as people count it."""
    return {name: entry[name] for name in SHOWN} | {"round": shown_round(entry["round"])}


def _services(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):  # the client has only just started
        return {}
    return table


def _gain(site: Site) -> dict[str, str] | None:
    """What joining the kit's study gave, by metric; None where that is not known."""
    try:
        table = json.loads(result_file(site, read_kit(site.federation.kit)[1].sha256).read_bytes())
        return gain_words(table["gain"]) if table["gain"] else None
    except (HicaError, OSError, ValueError, LookupError, TypeError):
        return None


def _coordinator(site: Site) -> str | None:
    """The coordinator's address; None before there is a kit."""
    try:
        return read_kit(site.federation.kit)[0].address
    except HicaError:
        return None
