"""Baselines on the pooled shots that need no federation: a linear probe, and one on raw pixels.

They use exactly the episodes the sites drew, and are tested at the sites as all other methods are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.metrics import SiteMetrics, combine, site_metrics
from hica.study import Study, apply_overrides, validated
from hica.text_bank import TextBank
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.baselines import linear_probe, pixels

Features = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Represent = Callable[[Session, str], tuple[Features, Labels]]
FitPredict = Callable[[Features, Labels, Features, int, int], Features]


def shot_baselines(study: Study, sites: Sequence[Path]) -> dict[str, Any]:
    """Fit on all sites' shots, test at each site.

    The probe on the tower's features is left out where the tower's weights were drawn at random.

    Args:
        study: The study; its tower is used frozen.
        sites: Paths of `site.toml`.
    """
    table = apply_overrides(study.model_dump(mode="json"), ["model.train=adapter"])
    frozen = validated(Study, table, "study")
    sessions = [Session(load_site(path), frozen) for path in sites]
    pretrained = study.model.checkpoint is not None or study.model.pretrained is not None
    methods: dict[str, tuple[Represent, FitPredict]] = {"pixels": (_pixels, pixels.fit_predict)}
    if pretrained:
        methods["linear_probe"] = (_features, linear_probe.fit_predict)
    results = {}
    for name, (represent, fit_predict) in methods.items():
        shots = [represent(session, "labelled") for session in sessions if session.episode.indices]
        tested = [session for session in sessions if session.test]
        tests = [represent(session, "test") for session in tested]
        probabilities = fit_predict(
            np.concatenate([features for features, _ in shots]),
            np.concatenate([labels for _, labels in shots]),
            np.concatenate([features for features, _ in tests]),
            len(study.classes),
            study.study.seed,
        )
        cuts = np.cumsum([len(labels) for _, labels in tests])[:-1]
        per_site = {
            session.name: _measure(session, part, labels)
            for session, part, (_, labels) in zip(
                tested, np.split(probabilities, cuts), tests, strict=True
            )
        }
        overall = combine(list(per_site.values())).to_dict()
        results[name] = {
            **overall,
            "per_site": {site: metrics.to_dict() for site, metrics in per_site.items()},
        }
    return results


def _measure(session: Session, probabilities: Features, labels: Labels) -> SiteMetrics:
    """Metrics at one site, drawn as the sites draw their own."""
    return site_metrics(
        probabilities,
        labels,
        [record.group for record in session.test],
        len(session.study.classes),
        seed=session.study.study.seed,
        min_count=session.study.federation.min_count,
    )


def _features(session: Session, role: str) -> tuple[Features, Labels]:
    """Frozen features [n, D] of the whole images, identity and flip averaged, and labels [n]."""
    study = session.study
    dim = session.pipeline.tower.tower.dim
    bank = TextBank.assemble(
        study.class_texts,
        torch.zeros(len(study.classes), dim),
        torch.zeros(len(study.finding_names), dim),
    )
    examples = session.labelled(bank) if role == "labelled" else session.held_out(bank)
    # [n, V, 1 + K, D]: the first two views are the image and its mirror image.
    features = examples.hidden[:, :2, 0].float().mean(dim=1)
    return features.numpy(), examples.labels.numpy()


def _pixels(session: Session, role: str) -> tuple[Features, Labels]:
    """Grey thumbnails of the images, and labels."""
    records = (
        [session.train[index] for index in session.episode.indices]
        if role == "labelled"
        else session.test
    )
    names = session.study.class_names
    labels = [names.index(record.label) for record in records if record.label]
    return pixels.thumbnails([record.image for record in records]), np.array(labels)
