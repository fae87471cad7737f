"""Releases: how a private study's statistics and weights come to leave a site.

Each is charged to the site's ledger first, which refuses what would pass the site's own limit; only
then is noise drawn. Noise is drawn anew for every request, and every request is charged, whether or
not the coordinator has asked the same before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.examples.examples import Examples
from hica.method.local_training import Loss, Schedule, embed_all, mean_features
from hica.method.model import AlignmentModel
from hica.method.pseudo_labels import ClusterSums
from hica.privacy.accountant import Charge
from hica.privacy.budget import (
    Training,
    alignment,
    pretraining,
    statistics_multiplier,
    training_multiplier,
)
from hica.privacy.dp_sgd import PrivateSchedule, train_privately
from hica.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from hica.privacy.statistics import (
    CENTRE_SENSITIVITY,
    SENSITIVITY,
    cluster_sums,
    group_sums,
    noised,
    subspace_of,
    unit_weights,
)
from hica.seeds import derived_seed
from hica.text.bank import TextBank
from hica.wire.messages import Arrays, Kind, Request
from hica_client.ledger import Release
from hica_client.ledger import charge as charge_ledger
from hica_client.secure import group_of, question_of
from hica_client.session import Session

EVERYONE = "everyone"
"""Against whom an answer is private that is so by itself."""
MOST_GRADIENTS = 2**27
"""Numbers in the gradients that are held at a time, image by image: 512 MB."""
MOST_ROWS = 64
"""Images whose gradients are held at a time, of however small a model."""


def units_of(session: Session, examples: Examples) -> list[str]:
    """The unit of each image: its patient, or itself."""
    if session.study.privacy.unit == "image":
        return [str(number) for number in range(len(examples))]
    return list(examples.groups)


def centre(session: Session, request: Request, model: AlignmentModel, bank: TextBank) -> Arrays:
    """Noisy `sums` [2, D] and `counts` [2] of unit features of images and of regions."""
    examples = session.unlabelled(bank)
    weights = unit_weights(units_of(session, examples))
    images, regions, has_regions = (part.numpy() for part in mean_features(model, examples))
    everyone = np.zeros(len(examples), dtype=np.int64)
    whole = group_sums(images, everyone, 1, weights)
    parts = group_sums(regions, np.where(has_regions, 0, -1), 1, weights)
    sums = np.concatenate([whole.sums, parts.sums])
    counts = np.concatenate([whole.counts, parts.counts])
    return _released(session, request, ClusterSums(sums, counts), CENTRE_SENSITIVITY)


def clusters(session: Session, request: Request, features: NDArray[Any], bank: TextBank) -> Arrays:
    """Noisy `sums` [k, d] and `counts` [k] of one Lloyd step in the study's subspace."""
    weights = unit_weights(units_of(session, session.unlabelled(bank)))
    subspace = subspace_of(request.study, features.shape[1])
    parts = cluster_sums(features, request.arrays["centroids"], weights, subspace)
    return _released(session, request, parts, SENSITIVITY)


def prototypes(session: Session, request: Request, model: AlignmentModel, bank: TextBank) -> Arrays:
    """Noisy `sums` [C, D] and `counts` [C] of unit embeddings of the episode's classes."""
    examples = session.labelled(bank)
    weights = unit_weights(units_of(session, examples))
    batch = embed_all(model, examples)
    rows, labels = batch.images.double().numpy(), batch.labels.numpy()
    parts = group_sums(rows, labels, len(request.study.classes), weights)
    return _released(session, request, parts, SENSITIVITY)


def train(
    session: Session,
    request: Request,
    model: AlignmentModel,
    examples: Examples,
    loss: Loss,
    schedule: Schedule,
    bank: TextBank,
    anchor: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Train the model in place by DP-SGD, one round of a stage.

    Args:
        session: The site's.
        request: Whose answer the weights are.
        model: With the weights that were sent.
        examples: What it learns from.
        loss: Per-image loss.
        schedule: Rates and pulls; epochs and batches follow from the study.
        bank: Of the request.
        anchor: Texts that the bank is pulled to.
    """
    study = request.study
    stage, multiplier = training_of(session, request.kind, bank)
    charge(session, request, Charge(multiplier, stage.sampling_rate, stage.steps), EVERYONE)
    private = PrivateSchedule(
        steps=stage.steps,
        sampling_rate=stage.sampling_rate,
        noise_multiplier=multiplier,
        max_norm=study.privacy.max_gradient_norm,
        views=examples.hidden.shape[1],
        micro_batch=rows_at_a_time(sum(weight.numel() for weight in model.shared().values())),
        learning_rate=schedule.learning_rate,
        bank_learning_rate=schedule.bank_learning_rate,
        weight_decay=schedule.weight_decay,
        text_pull=schedule.text_pull,
    )
    units = units_of(session, examples)
    train_privately(model, examples, loss, private, units, _noise(session, request), anchor)


def charge(session: Session, request: Request, spent: Charge, holds: str) -> None:
    """Charge the ledger; when this returns, what was charged may leave.

    Args:
        session: The site's.
        request: Whose answer is about to leave.
        spent: What it costs.
        holds: Against whom the answer is private.

    Raises:
        HicaError: As `hica_client.ledger.charge`; nothing may leave.
    """
    policy = session.site.policy
    release = Release(
        study=request.study.sha256,
        run_id=session.run_id,
        round=request.round,
        kind=request.kind.value,
        mechanism="gaussian" if spent.sampling_rate == 1.0 else "sampled gaussian",
        unit=request.study.privacy.unit,
        holds=holds,
        noise=policy.noise,
        noise_multiplier=spent.noise_multiplier,
        sampling_rate=spent.sampling_rate,
        steps=spent.steps,
    )
    charge_ledger(session.site.ledger, release, policy.max_epsilon, policy.delta)


def rows_at_a_time(weights: int) -> int:
    """How many images' gradients of so many weights are held at a time."""
    return max(1, min(MOST_ROWS, MOST_GRADIENTS // max(weights, 1)))


def training_of(session: Session, kind: Kind, bank: TextBank) -> tuple[Training, float]:
    """The rounds of a stage at this site, and the noise multiplier of their steps."""
    study = session.study
    pool = len(set(units_of(session, session.unlabelled(bank)))) if study.pretraining.rounds else 0
    labelled = len(set(units_of(session, session.labelled(bank)))) if session.episode.indices else 0
    multiplier = training_multiplier(study, pool, labelled)
    if kind == Kind.PRETRAIN:
        return pretraining(study, pool), multiplier
    return alignment(study, labelled), multiplier


def _released(session: Session, request: Request, parts: ClusterSums, sensitivity: float) -> Arrays:
    """Sums and counts with noise; with a site's share of it, where only their sum is seen."""
    privacy = request.study.privacy
    multiplier = statistics_multiplier(request.study)
    holds, share = EVERYONE, 1.0
    if privacy.noise == "distributed":
        threshold = group_of(session).threshold
        holds = f"the coordinator, of the sum over {threshold} sites or more"
        share = 1.0 / math.sqrt(threshold)
    charge(session, request, Charge(multiplier), holds)
    deviation = multiplier * sensitivity * share
    return noised(parts, deviation, _noise(session, request))._asdict()


def _noise(session: Session, request: Request) -> NoiseSource:
    """Where an answer's noise comes from: the site decides, never the coordinator."""
    if session.site.policy.noise == "secure":
        return SecureNoise()
    return SeededNoise(derived_seed("noise", session.name, question_of(request)))
