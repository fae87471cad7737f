"""Facts: what the page says of the site's study: what left, what it cost, what it gave."""

from collections.abc import Callable
from typing import Any

from hica.errors import HicaError
from hica.printable import percent, size_words
from hica_client.audit_summary import summarise
from hica_client.result import METRICS, TITLES, gain_words, is_told, kept_result
from hica_client.review.desk import Desk
from hica_client.spending import spending


def facts(desk: Desk) -> dict[str, Any]:
    """What is known; where a record cannot be read, why."""
    site, study = desk.site, desk.study
    private = study.privacy.is_private
    return {
        "site": site.site.name,
        "study": study.study.name,
        "hash": study.sha256,
        "left": _or_why(lambda: _left(desk)),
        "privacy": _or_why(lambda: _spent(desk)) if private or site.ledger.exists() else None,
        "result": _or_why(lambda: _result(desk)) if is_told(site, study.sha256) else None,
    }


def _left(desk: Desk) -> dict[str, Any]:
    found = summarise(desk.site.audit_log)
    kinds = [
        {"kind": kind, **{name: row[name] for name in ("sent", "failed", "refused")}}
        | {"size": size_words(row["bytes"])}
        for kind, row in found["kinds"].items()
    ]
    told = {name: found[name] for name in ("entries", "first", "last", "hash")}
    return {**told, "size": size_words(found["bytes"]), "kinds": kinds}


def _spent(desk: Desk) -> dict[str, Any]:
    policy = desk.site.policy
    found = spending(desk.site.ledger, policy.max_epsilon, policy.delta)
    names = ("epsilon", "delta", "max_epsilon", "left", "unit")
    return {name: found[name] for name in names}


def _result(desk: Desk) -> dict[str, Any]:
    """What was measured on the site's held-out images: joined against alone."""
    found = kept_result(desk.site, desk.study)
    gain = found["gain"]
    measured = {name: found[name] for name in ("zero_shot", "federated")}
    if gain:
        measured |= {name: gain[name] for name in ("alone", "shared")}
    models = [
        {"model": title, "metrics": [percent(measured[name][metric]) for metric in METRICS]}
        for name, title in TITLES.items()
        if measured.get(name) is not None
    ]
    return {
        "metrics": list(METRICS.values()),
        "models": models,
        "gain": list(gain_words(gain).values()) if gain else [],
        "why": found["why_none"],
    }


def _or_why(tell: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is told, or why nothing can be."""
    try:
        return tell()
    except HicaError as error:
        return {"error": str(error)}
