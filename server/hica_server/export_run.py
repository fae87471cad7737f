"""export_run: the final model of a finished run as a folder that others use and verify."""

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hica.study import Study, validated
from hica_server.enrolment import let_in
from hica_server.provision import signing_key
from hica_server.report.run_file import (
    check_one_study,
    read_description,
    read_result,
    study_hash,
)
from hica_server.settings import Folder, load_settings
from hica_server.state import RunState

AUDIT = ("audit.md", "audit.json")
"""What `hica-sim audit` leaves, where it was put beside the run."""


def export_run(run: Path, to: Path, data: Path | None = None, hubs: bool = False) -> dict[str, Any]:
    """Write the folder `to`; returns its card.

    `data` is the folder of weights, by default that of the coordinator's settings. A run in a
    coordinator's folder is signed with the key that signs its requests; another one is not signed.

    Raises:
        ConfigurationError: `run` is not a finished run, its files are of different studies, or
            something is at `to`.
        CheckpointError: The run's model, or a tower's weights, are missing or damaged.
        StorageError: The disk is full or the folder may not be written.
    """
    from hica.export.build import model_of
    from hica.export.classifier import Classifier, Exported
    from hica.export.folder import VERSIONS, check_free, check_libraries, export_folder
    from hica.steps.model_file import load_model

    check_libraries()
    check_free(to)
    result, sidecar = read_result(run), read_description(run)
    hashes = {
        "result.json": result["study_sha256"],
        "model.json": sidecar["study_sha256"],
        "study in model.json": study_hash(sidecar["study"]),
    }
    check_one_study(run, hashes)
    study = validated(Study, sidecar["study"], str(run / "model.json"))
    folder = _coordinator(run)
    if folder is not None:
        settings = load_settings(folder.root).data
        data, hubs = data or settings.folder, hubs or settings.hubs
    learnt = load_model(run)
    fingerprint = RunState.load(run, hashes["result.json"]).tower
    model = model_of(study, learnt, data or Path(), hubs, fingerprint)
    mirrored = study.alignment.flip_at_test
    exported = Exported(
        Classifier(model, study.alignment.temperature, mirrored),
        study,
        {
            "exported_by": "coordinator",
            "model": "the model that its hospitals share",
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": result["sites"],
            "measured": _measured(result),
            "approvals": _approvals(folder, result),
            "audit": [name for name in AUDIT if (run / name).is_file()],
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        },
    )
    beside = {name: run / name for name in ("result.json", *exported.facts["audit"])}
    key = None if folder is None else signing_key(folder)
    more = {"preprocess": sidecar.get("preprocess", {}), "final": result["final"]}
    return export_folder(to, exported, learnt, key, beside, **more)


def _coordinator(run: Path) -> Folder | None:
    """The coordinator's folder that a run is in; None: it is a simulation's, which has no key."""
    folder = Folder(run.resolve().parent)
    return folder if folder.signing_key.exists() and folder.run == run.resolve() else None


def _measured(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for all sites and one for each."""
    rows = [{"of": "all hospitals", **result["final"]}]
    rows += [{"of": site, **said} for site, said in result["per_site"].items()]
    rows += [
        {"of": name.replace("_", " "), **said}
        for name, said in result["baselines"].items()
        if said is not None
    ]
    kept = ("of", "n", "accuracy", "balanced_accuracy", "auroc")
    return [{name: row.get(name) for name in kept} for row in rows]


def _approvals(folder: Folder | None, result: dict[str, Any]) -> list[str]:
    """Who took part: a client answers only what somebody there has approved."""
    sha = result["study_sha256"][:12]
    keys = (
        {} if folder is None else {name: each.fingerprint for name, each in let_in(folder).items()}
    )
    words = {name: f" (key {keys[name]})" if name in keys else "" for name in result["sites"]}
    return [
        f"{name}{key} took part in the study {sha}; its client asks for an approval there first"
        for name, key in words.items()
    ]
