"""export_model: the trained part of a finished run as one file to hand on, and its description."""

import hashlib
from pathlib import Path

import safetensors.numpy

from hica.errors import ConfigurationError
from hica.steps.model_file import NAME
from hica.storage import write_atomically
from hica.wire.checkpoint import load_state, write_json
from hica_server.report.run_file import (
    check_one_study,
    read_description,
    read_result,
    study_hash,
)


def export_model(run: Path, to: Path, overwrite: bool = False) -> Path:
    """Write trained weights, text bank and centre to `to`, a `.safetensors` file.

    Existing files are left alone, unless `overwrite`.

    The frozen part of the image tower is not in it: whoever uses the file loads the tower that the
    study names (`study.model` in the JSON), then these weights over it. The JSON beside it, whose
    path is returned, holds the study, its hash, the names of the classes, how images are prepared
    (`preprocess`), the final metrics, and the file's SHA-256.

    Raises:
        ConfigurationError: `run` is not a finished run, its files are of different studies, `to`
            has another suffix, or one of the two files exists.
        CheckpointError: The run's model is missing or damaged.
        StorageError: The disk is full or the folder may not be written.
    """
    if to.suffix != ".safetensors":
        raise ConfigurationError(f"--to {to}: give the file the suffix .safetensors")
    beside = to.with_suffix(".json")
    for path in (to, beside):
        if path.exists() and not overwrite:
            raise ConfigurationError(
                f"{path}: exists and is left alone; choose another name, or add --force"
            )
    result, sidecar = read_result(run), read_description(run)
    arrays, meta = load_state(run, NAME)
    hashes = {
        "result.json": result["study_sha256"],
        "model.json": sidecar["study_sha256"],
        "study in model.json": study_hash(sidecar["study"]),
        "model.safetensors": meta["study_sha256"],
    }
    check_one_study(run, hashes)
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
    write_json(beside, described)
    return beside
