"""The result of a study at a site: the final model, and what it does for the site's own patients.

Written when the coordinator tells that the study is over, and read by `hica-client result`. Nothing
of it leaves.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table

from hica.deployment.kit import read_kit
from hica.errors import CheckpointError, FederationError
from hica.images.cache import file_sha256
from hica.method.gain import Gain
from hica.method.site_metrics import SiteMetrics
from hica.printable import percent, points, printable
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
TITLES = {
    "zero_shot": "zero-shot (texts only)",
    "alone": "this site alone",
    "shared": "the shared model",
    "federated": "together with this site's own",
}
"""What is measured at a site, and what it is called; in the order in which it is shown."""


class Result(BaseModel):
    """`result.json`, as it is kept."""

    model_config = ConfigDict(extra="allow", strict=True)

    study: str
    study_sha256: str
    site: str
    told: str
    model_sha256: str
    """Of the file of the weights."""
    federated: SiteMetrics | None
    zero_shot: SiteMetrics | None
    gain: Gain | None
    own_share: float | None
    """Of the site's own models in its predictions."""
    why_none: str


def result_file(site: Site, study_sha256: str) -> Path:
    """What is written last when the site is told that a study is over."""
    return site.study_folder(study_sha256) / "result.json"


def is_told(site: Site, study_sha256: str) -> bool:
    """Whether the site has result and model of a study; each may turn out to be damaged."""
    result = result_file(site, study_sha256)
    model = model_path(result.parent)
    return all(path.exists() for path in (result, model, model.with_suffix(".json")))


def is_whole(site: Site, study: Study) -> bool:
    """Whether the site has result and model of a study as they were written."""
    try:
        kept_result(site, study)
    except CheckpointError:
        return False
    return is_told(site, study.sha256)


def keep_result(
    site: Site, request: Request, found: Mapping[str, Any], preprocess: Mapping[str, Any]
) -> None:
    """Write the model that a request carries, then `result.json` with what was `found` of it.

    `preprocess` is how images are prepared for it, which goes with the weights.

    Raises:
        StorageError: The disk is full; the site has not been told then, and can be asked again.
    """
    study, path = request.study, result_file(site, request.study.sha256)
    learnt = State.from_arrays(request.arrays)
    model = save_model(path.parent, study, learnt, preprocess=preprocess)
    table = {
        "study": study.study.name,
        "study_sha256": study.sha256,
        "site": site.site.name,
        "told": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_sha256": file_sha256(model),
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
    if not path.exists():
        raise FederationError(
            f"{path}: the study {study.study.name!r} has no result at this site yet. It comes at "
            f"the end of the study, while `hica-client run {site_file}` runs. If the study is "
            "over, ask the coordinator to run: hica-server run DIR --tell 3600"
        )
    return {
        **kept_result(site, study),
        "rounds": _rounds_taken(site, study),
        "rounds_of": sum(isinstance(turn.step, Training) for turn in plan(study)),
        "model": str(model_path(path.parent)),
    }


def kept_result(site: Site, study: Study) -> dict[str, Any]:
    """`result.json` of a study, whose model is the one that it was written with.

    Raises:
        CheckpointError: One of them is damaged or gone.
    """
    path = result_file(site, study.sha256)
    model = model_path(path.parent)
    try:
        text = path.read_bytes()
        kept = Result.model_validate_json(text)
        digest = file_sha256(model)
    except FileNotFoundError as missing:
        raise _damaged(missing.filename, "is gone") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "whole file"
        raise _damaged(path, f"cannot be read ({field}: {problem['msg']})") from None
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error})") from None
    if kept.study_sha256 != study.sha256:
        raise _damaged(path, "is of another study")
    if kept.model_sha256 != digest:
        raise _damaged(model, "is not the file that the study left here")
    table: dict[str, Any] = json.loads(text)
    return table


def show_result(found: Mapping[str, Any], console: Console) -> None:
    """Print a result for people."""
    console.print(f"[bold]{printable(found['study'])}[/] is over", highlight=False, soft_wrap=True)
    if found["federated"] is None:
        console.print(f"not measured: {printable(found['why_none'])}", soft_wrap=True)
    else:
        images = found["federated"]["n"]
        table = Table(title=f"on {images} held-out images of this site", title_justify="left")
        table.add_column("model")
        for title in METRICS.values():
            table.add_column(f"{title} % [95 %]", justify="right")
        measured = {name: found[name] for name in ("zero_shot", "federated")}
        if found["gain"]:
            measured |= {name: found["gain"][name] for name in ("alone", "shared")}
        for name, title in TITLES.items():
            if measured.get(name) is not None:
                table.add_row(title, *(percent(measured[name][metric]) for metric in METRICS))
        console.print(table)
        if found["gain"]:
            gained = ", ".join(gain_words(found["gain"]).values())
            console.print(f"joining gave: {gained}, against training alone", soft_wrap=True)
    if found["own_share"] is not None:
        share = f"{100 * found['own_share']:.0f} %"
        console.print(f"weight   {share} of its predictions are this site's own models'")
    for line in (
        f"rounds   {found['rounds']} of {found['rounds_of']} with this site",
        f"model    {found['model']}",
        f"sha256   {found['model_sha256']}",
    ):
        console.print(printable(line), highlight=False, soft_wrap=True)
    if found["federated"] is not None:
        console.print("each held-out image: hica-client explain SITE --test")
    if found["rounds"] < found["rounds_of"]:
        rounds = f"{found['rounds']} of {found['rounds_of']} rounds"
        console.print(
            f"[bold red]This site answered only {rounds}.[/] It was away, has no images for the "
            "others, or was told the end too early: ask the coordinator, by telephone, whether the "
            "study has ended.",
            soft_wrap=True,
        )


def gain_words(gain: Mapping[str, Any]) -> dict[str, str]:
    """What joining gave by metric, as `AUROC 81.0 → 84.2, +3.2 [+0.4, +6.0] points`."""
    words = {}
    for metric, title in METRICS.items():
        difference = gain["difference"][metric]
        if difference is not None:
            ends = [100 * gain[model][metric]["value"] for model in ("alone", "personal")]
            words[metric] = f"{title} {ends[0]:.1f} → {ends[1]:.1f} ({points(difference)} points)"
    return words


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
    return CheckpointError(
        f"{path}: {why}; restore the site's state folder from a backup. Or move result.json of "
        "that folder away, run `hica-client run`, and ask the coordinator to run: hica-server run "
        "DIR --tell 3600"
    )
