"""Audit: all attacks in all settings, one after the other, each kept as it is done.

What lies in the run directory afterwards:

    scenario.toml                          what was asked for, every default written out
    scores/SETTING-SEEN-ATTACKER.*         scores of the trials, where a stopped audit goes on
    reconstruction/SETTING.json            what was rebuilt in a setting, kept for the same reason
    active/SETTING.json                    what crafted requests told in it; not of the control
    audit.json, audit.md, audit.csv        the result
    audit.png                              ROC curves and bounds
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hica.device import repeatable
from hica.errors import ConfigurationError
from hica.wire.checkpoint import has_state, load_state, save_state, write_json
from hica_simulations.experiments.audit.active import attack_actively
from hica_simulations.experiments.audit.membership import (
    ATTACKERS,
    Attacker,
    Trials,
    prototype_trials,
    update_trials,
)
from hica_simulations.experiments.audit.plot import plot
from hica_simulations.experiments.audit.reconstruction import reconstruct
from hica_simulations.experiments.audit.report import write_tables
from hica_simulations.experiments.audit.roc import likelihood_ratio, roc, verdict
from hica_simulations.experiments.audit.settings import Seen, Setting, settings_of
from hica_simulations.experiments.audit.world import CANARIES, World, make_world
from hica_simulations.place import Place
from hica_simulations.run import claim
from hica_simulations.scenario import Scenario

PROTOTYPE_TRIALS = 25
"""Trials of class sums for each one that trains: they cost next to nothing."""
FEWEST = 40
"""Trials below which a half may lack a member."""

Curves = dict[str, Any]
Attack = Callable[[World, Setting, Attacker, int], Trials]
ATTACKS: dict[Seen, Attack] = {"prototypes": prototype_trials, "update": update_trials}


def audit(scenario: Scenario, place: Place, trials: int) -> dict[str, Any]:
    """Run or resume an audit; returns its `audit.json`.

    `trials` are the trainings for each setting and attacker.

    Raises:
        ConfigurationError: Too few trials, or the folder holds another audit.
        HicaError: Whatever is wrong with the data; the same call resumes.
    """
    if trials < FEWEST:
        raise ConfigurationError(f"--trials {trials}: give {FEWEST} or more")
    claim(place.out, scenario)
    repeatable()
    world = make_world(scenario, place)
    settings = settings_of(scenario.study)
    rows: list[dict[str, Any]] = []
    curves: Curves = {}
    rebuilt: list[dict[str, Any]] = []
    active: list[dict[str, Any]] = []
    for setting in settings:
        for seen in ATTACKS:
            for attacker in ATTACKERS:
                done = _kept_trials(place.out, world, setting, seen, attacker, trials)
                rows += _judged(world, setting, seen, attacker, done, curves)
        rebuilt += _kept(
            place.out / "reconstruction", setting, partial(reconstruct, world, setting)
        )
        if setting.name != "control":  # of crafted requests it says nothing more
            crafted = partial(attack_actively, world, place, setting)
            active += _kept(place.out / "active", setting, crafted)
    result = {
        "study": scenario.study.study.name,
        "study_sha256": scenario.study.sha256,
        "delta": settings[0].delta,
        "trials": trials,
        "prototype_trials": trials * PROTOTYPE_TRIALS,
        "settings": {each.name: each.title for each in settings},
        "membership": rows,
        "reconstruction": rebuilt,
        "active": active,
        **conclusion(rows),
    }
    write_json(place.out / "audit.json", result)
    write_tables(result, place.out)
    plot(result, curves, place.out / "audit.png")
    return result


def conclusion(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the claims hold as far as was seen, and whether the audit would have noticed.

    Returns:
        `refuted`: settings with noise whose claim a bound passes, the control left out;
        `catches_control`: whether the control's claim is refuted, from each thing seen;
        `finds_members`: whether the odd patient is found (AUC > 0.9) where nothing protects it.
    """
    decisive = [row for row in rows if row["decisive"]]
    refuted = {row["setting"] for row in decisive if row["refuted"] and row["setting"] != "control"}
    control = {row["seen"]: row["refuted"] for row in decisive if row["setting"] == "control"}
    open_ = [row["auc"] for row in rows if row["setting"] == "none" and row["canary"] == "odd"]
    return {
        "refuted": sorted(refuted),
        "catches_control": {seen: bool(caught) for seen, caught in control.items()},
        "finds_members": bool(open_) and max(open_) > 0.9,
    }


def _judged(
    world: World, setting: Setting, seen: Seen, attacker: Attacker, done: Trials, curves: Curves
) -> list[dict[str, Any]]:
    """A row for each score and canary; the ROC curves for the picture go into `curves`.

    One row for each setting and thing seen decides about its claim: the insider's, of the odd
    patient. It is named in advance, for the largest of many bounds would hold less surely. The
    Gaussian bound counts where every unit takes part in every release.
    """
    claimed = setting.claimed(seen, world.units)
    gaussian = setting.is_gaussian(seen, world.units)
    rows = []
    for score, values in done.scores.items():
        for column, canary in enumerate(CANARIES):
            inside, scores = done.inside[:, column], values[:, column]
            if score == "model":
                scores = likelihood_ratio(scores, inside)
            found = verdict(scores, inside, setting.delta)
            decisive = attacker == "insider" and canary == "odd" and score == seen
            proven = max(found.bound, found.gaussian_bound if gaussian else 0.0)
            rows.append(
                {
                    "setting": setting.name,
                    "seen": score,
                    "attacker": attacker,
                    "canary": canary,
                    "claimed": claimed,
                    **asdict(found),
                    "decisive": decisive,
                    "refuted": decisive and claimed is not None and proven > claimed,
                }
            )
            half = len(scores) // 2
            curve = roc(scores[half:], inside[half:])
            curves[f"{setting.name}/{score}/{attacker}/{canary}"] = curve
    return rows


def _kept_trials(
    out: Path, world: World, setting: Setting, seen: Seen, attacker: Attacker, trials: int
) -> Trials:
    """Trials as they lie on disk, or made and put there."""
    folder, name = out / "scores", f"{setting.name}-{seen}-{attacker}"
    count = trials * (PROTOTYPE_TRIALS if seen == "prototypes" else 1)
    if has_state(folder, name):
        arrays, meta = load_state(folder, name)
        if meta["trials"] == count:
            return Trials(arrays.pop("inside").astype(bool), arrays)
    done = ATTACKS[seen](world, setting, attacker, count)
    arrays = {"inside": done.inside.astype(np.uint8), **done.scores}
    save_state(folder, name, arrays, {"trials": count})
    return done


def _kept(
    folder: Path, setting: Setting, make: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows of a setting as they lie on disk, or made and put there."""
    path = folder / f"{setting.name}.json"
    if not path.exists():
        write_json(path, make())
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
