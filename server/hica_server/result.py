"""What a finished run leaves: `result.json` and the model as safetensors with a JSON sidecar."""

import importlib.metadata
from pathlib import Path
from typing import Any

from hica.study import Study
from hica.wire.checkpoint import save_state, write_json
from hica_server.state import RunState


def make_result(study: Study, state: RunState, checkpoint: Path) -> dict[str, Any]:
    """`result.json` of a run; simulations add the baselines only they can compute."""
    evaluations = state.learnt.evaluations
    final = evaluations["final"]
    wanted = ("labelled", "unlabelled", "test", "classes")
    return {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "seed": study.study.seed,
        "sites": {site: {key: said[key] for key in wanted} for site, said in state.sites.items()},
        "rounds": state.rounds,
        "final": final["overall"],
        "per_site": final["per_site"],
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


def save_model(out: Path, study: Study, state: RunState) -> Path:
    """Write weights, bank, centre and intercepts to `model.safetensors`, `model.json` beside it.

    Raises:
        StorageError: The disk is full.
    """
    learnt = state.learnt
    arrays = {**learnt.shared, "centre": learnt.centre, "scale": learnt.scale, "bias": learnt.bias}
    arrays |= {f"anchor.{name}": value for name, value in learnt.bank._asdict().items()}
    sidecar = {
        "study": study.model_dump(mode="json"),
        "study_sha256": study.sha256,
        "classes": study.class_names,
        "findings": study.finding_names,
        "text_bank_sha256": state.text_bank_sha256,
    }
    write_json(out / "model.json", sidecar)
    return save_state(out, "model", arrays, {"study_sha256": study.sha256})
