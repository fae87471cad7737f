"""A small study over real processes, for benchmarks: its scenario, its run, when its steps began.

As little is computed as a study allows: the first shots of three classes of drawn phantoms, one
pass over them a round, no stage 1, no intercepts, texts as they are.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError
from hica.study import Study, validated
from hica_server.settings import Folder
from hica_simulations.deployment import Deployment
from hica_simulations.place import Place
from hica_simulations.scenario import Scenario, Simulation

PER_CLASS = 4
"""Phantoms of each class at a site; half of them are for the test."""
CLASSES = [
    {"name": "normal", "healthy": True, "prompts": ["parallel layers of normal tissue"]},
    {"name": "smooth", "prompts": ["an oval mass with a smooth margin"]},
    {"name": "spiculated", "prompts": ["an irregular tumour with spicules"]},
]
STEP = re.compile(r"^(\S+ \S+) INFO hica\.server: \[\d+/\d+\] (.+)$", re.MULTILINE)
"""What the ServerApp writes into its log when a step begins."""
ROUND = re.compile(r"alignment (\d+)/\d+")


def small_scenario(
    name: str, sites: int, rounds: int, model: Mapping[str, Any], **federation: Any
) -> Scenario:
    """A study of `rounds` alignment rounds in which every site must answer.

    Nothing is centred, so each round is one exchange. `model` and `federation` are the study's
    `[model]` and more of its `[federation]`.
    """
    study = {
        "study": {"name": name},
        "model": dict(model),
        "classes": CLASSES,
        "text": {"epochs": 0},
        "pretraining": {"rounds": 0},
        "alignment": {
            "rounds": rounds,
            "shots": 1,
            "local_epochs": 1,
            "views": 1,
            "local_weight": 0.0,
            "cross_weight": 0.0,
            "train_text_bank": False,
            "centring": "none",
            "flip_at_test": False,
        },
        "calibration": {"rounds": 0},
        "personal": {"epochs": 0},
        "regions": {"method": "grid", "count": 1},
        "federation": {"quorum": sites, "min_count": 1, **federation},
    }
    simulation = {
        "test_fraction": 0.5,
        "phantoms": {"modality": "ultrasound", "per_class": PER_CLASS, "size": 32},
        "sites": [{"name": f"site-{number + 1}"} for number in range(sites)],
    }
    return Scenario(validated(Study, study, name), validated(Simulation, simulation, name))


def new_deployment(scenario: Scenario, out: Path) -> Deployment:
    """A deployment that is ready to run, in a folder of its own that is made here.

    Raises:
        ConfigurationError: The folder is there already: an earlier run would be resumed.
        FederationError: A command failed; holds what it said.
    """
    if out.exists():
        raise ConfigurationError(f"{out}: exists already; use another --out, or delete it")
    out.mkdir(parents=True)
    deployment = Deployment(scenario, Place(out, out, out / "cache", "cpu"))
    deployment.prepare()
    return deployment


def step_starts(log: str) -> list[tuple[str, float]]:
    """Name of every step and when it began, in seconds since 1970, from the ServerApp's log."""
    return [
        (name, datetime.strptime(time, "%Y-%m-%d %H:%M:%S,%f").timestamp())
        for time, name in STEP.findall(log)
    ]


def round_seconds(starts: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds of the alignment rounds, from each one's start to the next step's."""
    return [
        ended - began for (name, began), (_, ended) in pairwise(starts) if name.startswith("align")
    ]


def serverapp_log(folder: Folder) -> str:
    """What the ServerApp has logged."""
    return (folder.logs / "serverapp.log").read_text(encoding="utf-8")


def round_of(progress: Mapping[str, Any]) -> int | None:
    """The alignment round, from 1, that `progress.json` tells; None between the rounds."""
    match = ROUND.fullmatch(progress.get("step", ""))
    return int(match[1]) if match else None
