"""export_site: a finished study's model at a hospital, as a folder that others use and verify."""

import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from hica.deployment.keys import fingerprint, public_key, read_private
from hica.deployment.kit import read_coordinator_key
from hica.export.classifier import Classifier, Exported
from hica.export.folder import VERSIONS, check_free, check_libraries, export_folder
from hica.steps.personal import PERSONAL_MODEL
from hica.study import Study
from hica_client.approval import decisions
from hica_client.prediction.models import SHARED, site_models
from hica_client.result import TITLES, kept_result
from hica_client.site import Site, load_site

WARNING = (
    "This model learnt from the patients of {site} alone, after the study. Nothing protects their "
    "privacy in it: no noise was added, and no sum over hospitals hides them. Give it to nobody "
    "who may not see the images that it learnt from."
)


def export_site(site_file: Path, to: Path, personal: bool) -> dict[str, Any]:
    """Write the folder `to`, signed with the site's key where it has one; returns its card.

    `personal` is whether the site's own model is meant, in place of the shared one.

    Raises:
        ConfigurationError: Something is at `to`, or site file or start kit cannot be used.
        FederationError: The study is not over at this site, or it has no model of its own.
        CheckpointError: What was kept is damaged or gone.
        StorageError: The disk is full or the folder may not be written.
    """
    check_libraries()
    check_free(to)
    models = site_models(site_file, own=personal)
    study, site, session = models.study, models.session.site, models.session
    model, learnt, bias = models.by_itself(PERSONAL_MODEL if personal else SHARED)
    alignment = study.alignment
    name = site.site.name
    told = session.capabilities()
    exported = Exported(
        Classifier(model, alignment.temperature, alignment.flip_at_test, bias),
        study,
        {
            "exported_by": name,
            "model": f"the personal model of {name}" if personal else "the shared model",
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {
                name: {key: told[key] for key in ("labelled", "unlabelled", "test", "classes")}
            },
            "measured": _measured(kept_result(site, study)),
            "approvals": _approvals(site, study),
            "warnings": [WARNING.format(site=name)] if personal else [],
            "is_personal": personal,
            "versions": {each: importlib.metadata.version(each) for each in VERSIONS},
        },
    )
    return export_folder(to, exported, learnt, _key(site), {})


def known_signer(site_file: Path) -> str:
    """Fingerprint of the coordinator's key, from the start kit of a site.

    Raises:
        ConfigurationError: Site file or start kit cannot be used.
    """
    return fingerprint(public_key(read_coordinator_key(load_site(site_file).federation.kit)))


def _key(site: Site) -> ec.EllipticCurvePrivateKey | None:
    return read_private(site.federation.key) if site.federation.key.exists() else None


def _measured(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the study's models are worth at this site."""
    measured = {name: found[name] for name in ("zero_shot", "federated")}
    if found["gain"]:
        measured |= {name: found["gain"][name] for name in ("alone", "shared")}
    kept = ("n", "accuracy", "balanced_accuracy", "auroc")
    return [
        {"of": f"{found['site']}: {title}", **{key: measured[name].get(key) for key in kept}}
        for name, title in TITLES.items()
        if measured.get(name) is not None
    ]


def _approvals(site: Site, study: Study) -> list[str]:
    decision = decisions(site).get(study.sha256)
    if decision is None or not decision.approved:
        return []
    return [
        f"{site.site.name}: {decision.user} approved the study {study.sha256[:12]} on "
        f"{decision.time}"
    ]
