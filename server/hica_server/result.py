"""`result.json`: what a finished run leaves beside its model."""

import importlib.metadata
from pathlib import Path
from typing import Any

from hica.study import Study
from hica_server.state import RunState


def make_result(study: Study, state: RunState, checkpoint: Path) -> dict[str, Any]:
    """`result.json` of a run; simulations add the baselines only they can compute."""
    evaluations = state.learnt.evaluations
    final = evaluations["final"]
    wanted = ("labelled", "unlabelled", "test", "classes", "notes")
    return {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "seed": study.study.seed,
        "sites": {
            site: {key: said[key] for key in wanted} | {"withdrawn": state.withdrawn.get(site)}
            for site, said in state.sites.items()
        },
        "rounds": state.rounds,
        "final": final["overall"],
        "per_site": final["per_site"],
        "gain": final["gain"],
        "baselines": {
            name: {**evaluation["overall"], "per_site": evaluation["per_site"]}
            for name, evaluation in evaluations.items()
            if name != "final"
        },
        "checkpoint": checkpoint.name,
        "text_bank_sha256": state.text_bank_sha256,
        "versions": {
            name: importlib.metadata.version(name) for name in ("hica", "torch", "flwr", "timm")
        },
        "devices": {site: said["device"] for site, said in state.sites.items()},
    }
