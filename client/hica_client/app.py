"""The ClientApp: one handler per kind of request, each a few lines around the method.

Every request carries the study and all weights it needs, so a site restarted in the middle of a
run answers as if nothing had happened. Randomness is derived from (seed, site, kind, round).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import Tensor

from hica.errors import HicaError, MessageError
from hica.examples.examples import Examples
from hica.method.calibration import curvature
from hica.method.evaluation import site_metrics
from hica.method.local_training import (
    Loss,
    Schedule,
    alignment_loss,
    class_sums,
    moments,
    pseudo_label_loss,
    train,
)
from hica.method.model import AlignmentModel
from hica.method.prevalence import matching_intercepts
from hica.method.pseudo_labels import assign, cluster_sums, site_start
from hica.seeds import derived_seed
from hica.text.bank import TextBank
from hica.wire.messages import Kind, Reply, Request, decode_request, encode_reply, failure
from hica_client import releases
from hica_client.policy import kinds_of
from hica_client.secure import STEPS, answered_masked
from hica_client.session import Session
from hica_client.site import Site, load_site

logger = logging.getLogger("hica.client")

Handler = Callable[[Session, Request], Reply]

app = ClientApp()
_sessions: dict[tuple[str, str], Session] = {}


def session_for(path: Path, site: Site, request: Request) -> Session:
    """The session of a site and the request's study, made on first use."""
    key = (str(path), request.study.sha256)
    if key not in _sessions:
        _sessions[key] = Session(site, request.study)
    return _sessions[key]


def forget_sessions() -> None:
    """Drop all prepared data: for simulations, between runs."""
    _sessions.clear()


def site_file(context: Context) -> Path:
    """Path of `site.toml`, a setting of the node.

    Raises:
        MessageError: It is not set.
    """
    path = context.node_config.get("site")
    if path is None:
        raise MessageError('this node has no site: set node-config site="/path/to/site.toml"')
    return Path(str(path))


def without_folders(text: str) -> str:
    """`text` with absolute paths cut to their last part; of folders with spaces a rest stays."""
    return re.sub(r"(?<![\w.…])/(?:[^\s/:'\"]+/)*", "", text)


def check_foreseen(request: Request) -> None:
    """Answer only what a run of the study asks for: what was approved, and made private, is that.

    Raises:
        MessageError: The study has no such request.
    """
    if request.kind not in kinds_of(request.study):
        raise MessageError(
            f"a run of study {request.study.sha256[:12]} never asks for {request.kind}, so it was "
            "not approved with it: nothing leaves"
        )


def answers(kind: Kind) -> Callable[[Handler], Handler]:
    """Register a handler: decode, answer, encode; what a user can mend is answered in words.

    The coordinator reads what is wrong but not where: folders stay out of the answer.
    """

    def register(handler: Handler) -> Handler:
        def handle(message: Message, context: Context) -> Message:
            request = decode_request(message.content, kind)
            path = site_file(context)
            site = load_site(path)
            try:
                check_foreseen(request)
                session = session_for(path, site, request)
                session.run_id = message.metadata.run_id
                reply = answered_masked(handler, session, request)
            except HicaError as error:
                logger.error("%s: %s: %s", site.site.name, kind, error)
                reason = without_folders(f"{type(error).__name__}: {error}")
                reply = failure(kind, site.site.name, request.round, reason)
            return Message(encode_reply(reply), reply_to=message)

        category = kind.value.split(".")[0]
        {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category](kind.action)(
            handle
        )
        return handler

    return register


@answers(Kind.CAPABILITIES)
def capabilities(session: Session, request: Request) -> Reply:
    """What this site can take part in."""
    return Reply(request.kind, session.name, details=session.capabilities())


@answers(Kind.MOMENTS)
def feature_moments(session: Session, request: Request) -> Reply:
    """Sums of raw features, for the centre; the site keeps its own mean where that is used."""
    model, bank = _model(session, request, centred=False)
    if request.study.privacy.is_private:
        arrays = releases.centre(session, request, model, bank)
        return Reply(request.kind, session.name, request.round, len(session.pool), arrays=arrays)
    examples = session.for_the_centre(bank)
    result = moments(model, examples)
    own = (result.sums / result.counts.clamp(min=1).unsqueeze(1)).float()
    own[1] = own[1] if result.counts[1] > 0 else own[0]
    session.keep("centre", centre=own.numpy())
    arrays = {"sums": result.sums.numpy(), "counts": result.counts.numpy()}
    if request.study.alignment.scaling == "global":
        arrays["squares"] = result.squares.numpy()
    return Reply(request.kind, session.name, request.round, len(examples), arrays=arrays)


@answers(Kind.CLUSTERS)
def clusters(session: Session, request: Request) -> Reply:
    """One step of federated k-means; the last request also fixes the pseudo-labels."""
    model, bank = _model(session, request)
    features = session.embedded("unlabelled", model, bank).images.double().numpy()
    step = request.settings["step"]
    if request.study.privacy.is_private:
        return _private_clusters(session, request, features, bank)
    if step == "start":
        seed = derived_seed(request.study.study.seed, session.name, "clusters") % 2**32
        parts = site_start(features, request.study.pretraining.clusters, seed)
    else:
        parts = cluster_sums(features, request.arrays["centroids"])
    if step == "assign":
        session.keep("pseudo_labels", labels=assign(features, request.arrays["centroids"]))
    return Reply(
        request.kind,
        session.name,
        request.round,
        len(features),
        arrays={"sums": parts.sums, "counts": parts.counts},
    )


def _private_clusters(
    session: Session, request: Request, features: NDArray[np.float64], bank: TextBank
) -> Reply:
    """The same with noise: no site starts from clusters of its own, the last answer is empty."""
    if request.settings["step"] == "assign":
        session.keep("pseudo_labels", labels=assign(features, request.arrays["centroids"]))
        return Reply(request.kind, session.name, request.round, len(features))
    arrays = releases.clusters(session, request, features, bank)
    return Reply(request.kind, session.name, request.round, len(features), arrays=arrays)


@answers(Kind.PRETRAIN)
def pretrain(session: Session, request: Request) -> Reply:
    """Stage 1: local epochs toward the shared centroids."""
    settings = request.study.pretraining
    model, bank = _model(session, request)
    examples = session.unlabelled(bank)
    labels = torch.from_numpy(session.kept("pseudo_labels")["labels"])
    examples = type(examples)(**{**vars(examples), "labels": labels})
    loss = pseudo_label_loss(
        torch.from_numpy(request.arrays["centroids"]).float().to(session.device),
        settings.temperature,
    )
    rate = settings.learning_rate * float(request.settings["rate"])
    schedule = Schedule(settings.local_epochs, settings.batch_size, rate)
    return _trained(session, request, model, examples, loss, schedule, bank)


@answers(Kind.ALIGN)
def align(session: Session, request: Request) -> Reply:
    """Stage 2: local epochs of the three-term objective on the labelled episode."""
    settings = request.study.alignment
    model, bank = _model(session, request)
    spread = settings.label_propagation
    examples = session.labelled_and_spread(model, bank) if spread else session.labelled(bank)
    loss = alignment_loss(
        settings.temperature,
        settings.local_weight,
        settings.cross_weight,
        settings.margin,
        settings.assignment,
        settings.contrast,
    )
    rate = float(request.settings["rate"])
    schedule = Schedule(
        settings.local_epochs,
        settings.batch_size,
        settings.learning_rate * rate,
        settings.bank_learning_rate * rate,
        settings.weight_decay,
        settings.text_pull,
    )
    return _trained(session, request, model, examples, loss, schedule, bank)


@answers(Kind.PROTOTYPES)
def prototypes(session: Session, request: Request) -> Reply:
    """Class sums of the episode's centred embeddings: where a trained bank starts."""
    model, bank = _model(session, request)
    if request.study.privacy.is_private:
        arrays, shots = releases.prototypes(session, request, model, bank), session.episode.indices
        return Reply(request.kind, session.name, request.round, len(shots), arrays=arrays)
    batch = session.embedded("labelled", model, bank)
    sums, counts = class_sums(batch, len(request.study.classes))
    return Reply(
        request.kind,
        session.name,
        request.round,
        len(batch.labels),
        arrays={"sums": sums.numpy(), "counts": counts.numpy()},
    )


@answers(Kind.CALIBRATE)
def calibrate(session: Session, request: Request) -> Reply:
    """Sums of one Newton step of the class intercepts, over the episode."""
    model, bank = _model(session, request)
    scores = class_scores(session, "labelled", model, bank)
    parts = curvature(
        scores.double().numpy(),
        session.labelled(bank).labels.numpy(),
        request.arrays["bias"],
    )
    return Reply(
        request.kind,
        session.name,
        request.round,
        parts.images,
        arrays={"gradient": parts.gradient, "hessian": parts.hessian},
    )


@answers(Kind.EVALUATE)
def evaluate(session: Session, request: Request) -> Reply:
    """Metrics on the site's held-out patients; predictions stay here."""
    model, bank = _model(session, request)
    probabilities = predict(session, model, bank)
    examples = session.held_out(bank)
    session.keep("predictions", probabilities=probabilities, labels=examples.labels.numpy())
    metrics = site_metrics(
        probabilities,
        examples.labels.numpy(),
        list(examples.groups),
        len(request.study.classes),
        seed=request.study.study.seed,
        min_count=request.study.federation.min_count,
    )
    return Reply(
        request.kind,
        session.name,
        request.round,
        len(examples),
        details=metrics.to_dict(),
    )


for _kind, _step in STEPS.items():
    answers(_kind)(_step)


def predict(session: Session, model: AlignmentModel, bank: TextBank) -> np.ndarray[Any, Any]:
    """Class probabilities [n, C] of the site's held-out images."""
    scores = class_scores(session, "test", model, bank)
    return np.asarray((scores + _intercepts(session, model, bank)).softmax(dim=-1).numpy())


def _intercepts(session: Session, model: AlignmentModel, bank: TextBank) -> Tensor:
    """[C] the federation's, or the site's own where it knows the prevalence of the classes."""
    if not session.rest:
        return model.bias.cpu()
    scores = class_scores(session, "rest", model, bank)
    own = matching_intercepts(scores.numpy(), session.shares_of_the_rest)
    return torch.from_numpy(own).to(scores.dtype)


@torch.no_grad()
def class_scores(session: Session, role: str, model: AlignmentModel, bank: TextBank) -> Tensor:
    """Scores over temperature [n, C] of a role's images, without intercepts; on the CPU."""
    settings = session.study.alignment
    batch = session.embedded(role, model, bank)
    device = model.centre.device
    scores = model.scores(
        batch.images.to(device),
        batch.regions.to(device),
        batch.valid.to(device),
        bank.finding_classes.to(device),
        settings.region_blend,
    )
    return (scores / settings.temperature).cpu()


def _model(
    session: Session, request: Request, centred: bool = True
) -> tuple[AlignmentModel, TextBank]:
    """Model and bank as the request describes them."""
    arrays = request.arrays
    bank = TextBank.assemble(
        request.study.class_texts,
        torch.from_numpy(arrays["anchor.classes"]),
        torch.from_numpy(arrays["anchor.findings"]),
    )
    shared: dict[str, Tensor] = {
        name.removeprefix("shared."): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith("shared.")
    }
    model = session.model(bank, shared)
    model.bias.copy_(torch.from_numpy(arrays["bias"]))
    model.scale.copy_(torch.from_numpy(arrays["scale"]))
    if centred:
        model.centre.copy_(session.centre(torch.from_numpy(arrays["centre"])))
    return model, bank


def _generator(session: Session, request: Request) -> torch.Generator:
    """The round's random draws: the same if the round is repeated."""
    seed = derived_seed(request.study.study.seed, session.name, request.kind, request.round)
    return torch.Generator().manual_seed(seed)


def _trained(
    session: Session,
    request: Request,
    model: AlignmentModel,
    examples: Examples,
    loss: Loss,
    schedule: Schedule,
    bank: TextBank,
) -> Reply:
    """One round of a stage; the loss of a private one stays at the site, as it has no noise."""
    anchor = (bank.classes.to(session.device), bank.findings.to(session.device))
    # A label that was spread counts in training, but not beside other sites' own labels.
    count = (
        min(len(examples), len(session.episode.indices))
        if request.kind == Kind.ALIGN
        else len(examples)
    )
    if request.study.privacy.is_private:
        releases.train(session, request, model, examples, loss, schedule, bank, anchor)
        return _update(session, request, model, count, {})
    mean_loss = train(model, examples, loss, schedule, _generator(session, request), anchor)
    return _update(session, request, model, count, {"loss": mean_loss})


def _update(
    session: Session,
    request: Request,
    model: AlignmentModel,
    examples: int,
    details: dict[str, float],
) -> Reply:
    """The trained weights, in the precision they came in, and what stands behind them."""
    dtype = request.study.federation.dtype
    arrays = {
        f"shared.{name}": value.detach().cpu().numpy().astype(dtype, order="C")
        for name, value in model.shared().items()
    }
    return Reply(request.kind, session.name, request.round, examples, dict(details), arrays)
