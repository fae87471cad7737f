"""The result of a study at a site: the final model, and what it does for the site's own patients.

Written when the coordinator tells that the study is over, and read by `hica-client result`. Nothing
of it leaves.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hica.deployment.kit import read_kit
from hica.errors import CheckpointError, FederationError
from hica.printable import percent, printable
from hica.steps.model_file import model_path, save_model
from hica.steps.plan import plan
from hica.steps.state import State
from hica.steps.training import Training
from hica.study import Study
from hica.wire.checkpoint import write_json
from hica.wire.messages import Request
from hica_client.audit import verify
from hica_client.site import Site, load_site

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
TITLES = {"zero_shot": "zero-shot (texts only)", "federated": "trained together"}
"""What is measured at a site, and what it is called; in the order in which it is shown."""


def result_file(site: Site, study_sha256: str) -> Path:
    """What is there once the site was told that a study is over."""
    return site.study_folder(study_sha256) / "result.json"


def keep_result(
    site: Site, request: Request, found: Mapping[str, Any], preprocess: Mapping[str, Any]
) -> None:
    """Write the model that a request carries, then `result.json` with what was `found` of it.

    `preprocess` is how images are prepared for it, which goes with the weights.

    Raises:
        StorageError: The disk is full; the site has not been told then, and can be asked again.
    """
    study, path = request.study, result_file(site, request.study.sha256)
    save_model(path.parent, study, State.from_arrays(request.arrays), preprocess=preprocess)
    table = {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "site": site.site.name,
        "told": datetime.now(UTC).isoformat(timespec="seconds"),
        **found,
    }
    write_json(path, table)


def read_result(site_file: Path) -> dict[str, Any]:
    """The result of the start kit's study, with model and rounds; JSON.

    Raises:
        ConfigurationError: The site file or the start kit cannot be used.
        FederationError: The site was not told yet that the study is over.
        CheckpointError: What was kept is damaged or gone.
        DataError: The audit log was tampered with.
    """
    site = load_site(site_file)
    study = read_kit(site.federation.kit)[1]
    path = result_file(site, study.sha256)
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
        model = model_path(path.parent)
        with model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as missing:
        if path.exists():
            raise _damaged(missing.filename, "is gone") from None
        raise FederationError(
            f"{path}: the study {study.study.name!r} has no result at this site yet. It comes at "
            f"the end of the study, while `hica-client run {site_file}` runs. If the study is "
            "over, ask the coordinator to run: hica-server run DIR --tell 3600"
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read ({error})") from None
    return {
        **table,
        "rounds": _rounds_taken(site, study),
        "rounds_of": sum(isinstance(turn.step, Training) for turn in plan(study)),
        "model": str(model),
        "model_sha256": digest,
    }


def show_result(found: Mapping[str, Any], console: Console) -> None:
    """Print a result for people."""
    console.print(f"[bold]{printable(found['study'])}[/] is over", highlight=False, soft_wrap=True)
    if found["why_none"]:
        console.print(f"not measured: {printable(found['why_none'])}", soft_wrap=True)
    else:
        images = found["federated"]["n"]
        table = Table(title=f"on {images} held-out images of this site", title_justify="left")
        table.add_column("model")
        for title in METRICS.values():
            table.add_column(f"{title} % [95 %]", justify="right")
        for name, title in TITLES.items():
            if found[name] is not None:
                table.add_row(title, *(percent(found[name][metric]) for metric in METRICS))
        console.print(table)
    for line in (
        f"rounds   {found['rounds']} of {found['rounds_of']} with this site",
        f"model    {found['model']}",
        f"sha256   {found['model_sha256']}",
    ):
        console.print(printable(line), highlight=False, soft_wrap=True)


def _rounds_taken(site: Site, study: Study) -> int:
    """Rounds of training with an answer of this site, as the audit log has them."""
    trained = {turn.step.kind for turn in plan(study) if isinstance(turn.step, Training)}
    return len(
        {
            (entry["kind"], entry["round"])
            for entry in verify(site.audit_log)
            if (entry["study"], entry["decision"]) == (study.sha256, "sent")
            and entry["kind"] in trained
        }
    )


def _damaged(path: Path | str, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: {why}; restore the site's state folder from a backup")
