"""Files of a simulated hospital: its settings, its key, and the list of all sites' keys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from hica.deployment.keys import generate, public_path, read_public
from hica.deployment.kit import ROSTER, roster_json
from hica.storage import write_atomically
from hica.study import Study
from hica_simulations.partitions import SiteFolder
from hica_simulations.place import Place

HEAD = "# Written anew by every run, so a change here is lost: change [simulation] of the study.\n"
MOST_EPSILON = 1e6
"""`policy.max_epsilon` of a simulated site."""


def policy_of(study: Study) -> dict[str, Any]:
    """What the policy of a simulated site has to say to take part in a private study.

    No patient stands behind it: the budget is never what ends a run, and noise can be drawn again.
    """
    if not study.privacy.is_private:
        return {}
    return {"max_epsilon": MOST_EPSILON, "delta": study.privacy.delta, "noise": "seeded"}


def write_sites(folders: Sequence[SiteFolder], out: Path, place: Place, study: Study) -> list[Path]:
    """Write `site.toml` of every site, with a policy that lets it take part in `study`."""
    policy = policy_of(study)
    return [write_site(folder, out, place, policy) for folder in folders]


def write_site(
    folder: SiteFolder, out: Path, place: Place, policy: Mapping[str, Any] | None = None
) -> Path:
    """Write `out/sites/NAME/site.toml`, as a hospital would write its own; returns its path.

    Each federation has site files of its own, so that a baseline never shares a site's state.
    """
    path = out / "sites" / folder.name / "site.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "manifest": str(folder.manifest.resolve()),
        "weights": str(place.data.resolve()),
        "cache": str(place.cache.resolve()),
        "prevalence": dict(folder.prevalence),
    }
    table = {"site": {"name": folder.name}, "data": data, "device": {"use": place.device}}
    if policy:
        table["policy"] = dict(policy)
    path.write_text(HEAD + tomli_w.dumps(table), encoding="utf-8")
    return path


def introduce(site_files: Sequence[Path], names: Sequence[str]) -> None:
    """Make every site's key and hand each the list of all, as start kits do; repeatable."""
    roster = {}
    for path, name in zip(site_files, names, strict=True):
        key = path.parent / "keys" / "site"
        roster[name] = read_public(public_path(key)) if key.exists() else generate(key)
    for path in site_files:
        write_atomically(path.parent / "kit" / ROSTER, roster_json(roster))
