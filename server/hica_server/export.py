"""export_model: the trained part of a finished run as one file to hand on, and its description."""

import hashlib
from pathlib import Path

import safetensors.numpy

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.wire.checkpoint import load_state, write_json
from hica_server.report.run_file import read_run_file


def export_model(run: Path, to: Path) -> Path:
    """Write trained weights, text bank and centre to `to`, a `.safetensors` file.

    The frozen part of the image tower is not in it: whoever uses the file loads the tower that the
    study names (`study.model` in the JSON), then these weights over it. The JSON beside it, whose
    path is returned, holds the study, its hash, the names of the classes, the final metrics, and
    the file's SHA-256.

    Raises:
        ConfigurationError: `run` is not a finished run, or `to` has another suffix.
        CheckpointError: The run's model is missing or damaged.
        StorageError: The disk is full or the folder may not be written.
    """
    if to.suffix != ".safetensors":
        raise ConfigurationError(f"--to {to}: give the file the suffix .safetensors")
    result, sidecar = read_run_file(run, "result.json"), read_run_file(run, "model.json")
    arrays, meta = load_state(run, "model")
    data = safetensors.numpy.save(arrays, {"study_sha256": meta["study_sha256"]})
    write_atomically(to, data)
    described = {
        **sidecar,
        "file": to.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "final": result["final"],
        "versions": result["versions"],
    }
    beside = to.with_suffix(".json")
    write_json(beside, described)
    return beside
