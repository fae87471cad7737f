"""model.safetensors and model.json: a trained model, the same at the coordinator and at a site."""

from pathlib import Path
from typing import Any

from hica.steps.state import Bank, State, Weights
from hica.study import Study
from hica.wire.checkpoint import load_state, save_state, write_json

NAME = "model"


def model_path(folder: Path) -> Path:
    """The file of the weights; `model.json` lies beside it."""
    return folder / f"{NAME}.safetensors"


def save_model(folder: Path, study: Study, learnt: State, **more: Any) -> Path:
    """Write weights, bank, centre, scale and intercepts, and beside them what they belong to.

    `more` is added to `model.json`. Gives the file of the weights.

    Raises:
        StorageError: The disk is full.
    """
    sidecar = {
        "study": study.model_dump(mode="json"),
        "study_sha256": study.sha256,
        "classes": study.class_names,
        "findings": study.finding_names,
        **more,
    }
    write_json(folder / f"{NAME}.json", sidecar)
    return save_state(folder, NAME, arrays_of(learnt), {"study_sha256": study.sha256})


def load_model(folder: Path) -> State:
    """What was learnt, of a run's folder or of a site's.

    Raises:
        CheckpointError: There is no model, or none of its files is whole.
    """
    arrays, _ = load_state(folder, NAME)
    bank = Bank(*(arrays.pop(f"anchor.{name}") for name in Bank._fields))
    centre, scale, bias = (arrays.pop(name) for name in ("centre", "scale", "bias"))
    return State(shared=arrays, bank=bank, centre=centre, scale=scale, bias=bias)


def arrays_of(learnt: State) -> Weights:
    """The arrays of a model by their names in its file."""
    arrays = {**learnt.shared, "centre": learnt.centre, "scale": learnt.scale, "bias": learnt.bias}
    return arrays | {f"anchor.{name}": value for name, value in learnt.bank._asdict().items()}
