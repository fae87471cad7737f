"""Release: what stands between a step's exact answer and what leaves a site.

    check → bound each patient → can it be paid for → noise

In a private study the answer to a statistic is made anew from its rows, so that no patient moves it
by more than its arrays declare. DP-SGD is no noise on an answer: training is handed a private
trainer. Once images were looked at there is one outcome: what fails is answered as by a site that
has no patients, and why stays in the site's log, since a refusal would tell of a patient. Masks of
a secure sum come last (`hica_client.secure`).
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from hica.errors import ConfigurationError, MessageError
from hica.method.local_training import Schedule
from hica.method.model import AlignmentModel
from hica.method.pseudo_labels import ClusterSums
from hica.privacy.accountant import Charge
from hica.privacy.budget import Rounds, rounds_of, statistics_multiplier, training_multiplier
from hica.privacy.dp_sgd import PrivateSchedule, train_privately
from hica.privacy.noise import NoiseSource
from hica.privacy.statistics import SENSITIVITY, group_sums, noised, unit_weights
from hica.steps.arrays import LARGEST_WEIGHT, STATE_ARRAYS, Sizes
from hica.steps.state import WEIGHTS, weights_of
from hica.steps.step import Answer, Kept, Role, SiteData, Statistic, Step, Turn
from hica.steps.training import Lesson, Trainer, Training, plain_trainer
from hica.study import Study
from hica.wire.messages import Request

logger = logging.getLogger("hica")

EVERYONE = "everyone"
"""Against whom an answer is private that is so by itself."""
MOST_GRADIENTS = 2**27
"""Numbers in the gradients that are held at a time, image by image: 512 MB."""
MOST_ROWS = 64
"""Images whose gradients are held at a time, of however small a model."""


@dataclass(frozen=True)
class Guarantee:
    """By what the answers of a site are private; the site decides, never the coordinator.

    Attributes:
        charge: Called with what the answer costs and against whom it holds, before an image is
            touched; raises where that cannot be paid for.
        noise: Where noise comes from.
        sum_over: Sites whose noise adds up, where only their sum is seen; None: the site's own
            noise must be enough.
    """

    charge: Callable[[Charge, str], None]
    noise: Callable[[], NoiseSource]
    sum_over: int | None = None


def check_request(turn: Turn, request: Request, width: int) -> None:
    """Hold a request's arrays against what the step declares, before any image is touched.

    `turn` is the one of the plan that the request belongs to, `width` is D, of this site's
    features.

    Raises:
        MessageError: Names the array that is missing, not asked for, or of other shape, type or
            range.
    """
    study, arrays = request.study, request.arrays
    declared = {array.name: array for array in (*STATE_ARRAYS, *turn.step.asks(study))}
    weights = weights_of(arrays)
    beside = arrays.keys() - {f"{WEIGHTS}{name}" for name in weights}
    strange = sorted(beside ^ declared.keys())
    if strange:
        raise MessageError(f"{request.kind}: arrays missing or not asked for: {strange[:5]}")
    clusters = study.pretraining.clusters
    if "centroids" in declared and not study.privacy.is_private:
        # Fewer where the sites have fewer distinct ones, but never none.
        clusters = min(clusters, max([1, *arrays["centroids"].shape[:1]]))
    sizes = Sizes(study, width, clusters)
    for name, array in declared.items():
        value, shape = arrays[name], sizes.of(array)
        if value.shape != shape or str(value.dtype) != array.dtype:
            raise MessageError(
                f"array {name!r} has shape {value.shape} and type {value.dtype}, expected {shape} "
                f"and {array.dtype}"
            )
        array.check(value)
    dtype = study.federation.dtype
    for name, value in weights.items():
        largest = float(np.abs(value).max(initial=0))
        if str(value.dtype) != dtype or largest > LARGEST_WEIGHT:
            raise MessageError(
                f"weight {name!r} has type {value.dtype} and values up to {largest:.3g}: expected "
                f"{dtype}, and at most {LARGEST_WEIGHT:g}"
            )


def release(
    step: Step, data: SiteData, model: AlignmentModel, request: Request, guarantee: Guarantee
) -> Answer:
    """What may leave a site as its answer to a request that was checked.

    `model` is as the request describes it; by `guarantee` a private study's answer is private.

    Raises:
        HicaError: Whatever keeps the answer back; nothing may leave.
    """
    private = request.study.privacy.is_private
    if isinstance(step, Training):
        trainer = (
            _private_trainer(step, data, request, guarantee)
            if private
            else plain_trainer(data, request)
        )
        answer = step.taught(data, model, request, trainer)
        return replace(answer, examples=data.told(step.role)) if private else answer
    if not private or not step.needs_noise:
        return step.answer(data, model, request)
    if not isinstance(step, Statistic):
        raise ConfigurationError(
            f"{step.name}: has no form with noise, so a private study cannot ask for it"
        )
    return _noisy(step, data, model, request, guarantee)


def units_of(study: Study, groups: tuple[str, ...]) -> list[str]:
    """The unit of each image, of patients [n]: its patient, or itself."""
    if study.privacy.unit == "image":
        return [str(number) for number in range(len(groups))]
    return list(groups)


def _noisy(
    step: Statistic, data: SiteData, model: AlignmentModel, request: Request, guarantee: Guarantee
) -> Answer:
    """Sums and counts with noise; with a site's share of it, where only their sum is seen."""
    study = request.study
    declared = {array.name: array for array in step.answers(study)}
    moves = declared["sums"].moves
    if declared.keys() != {"sums", "counts"} or moves is None or declared["counts"].moves != moves:
        raise TypeError(f"{step.name} declares no bound on what one patient changes")
    multiplier = statistics_multiplier(study)
    holds, share = EVERYONE, 1.0
    if guarantee.sum_over is not None:
        holds = f"the coordinator, of the sum over {guarantee.sum_over} sites or more"
        share = 1.0 / math.sqrt(guarantee.sum_over)
    guarantee.charge(Charge(multiplier), holds)
    sizes = Sizes(study, model.centre.shape[1], study.pretraining.clusters)
    keep: Mapping[str, Kept] = {}
    try:
        bounded = _bounded(step, data, model, request, sizes.of(declared["sums"])[0])
        keep = step.own(data, model, request)
    except ConfigurationError:
        raise  # of the step, whatever the images
    except Exception:
        logger.exception("%s: %s: answered as by a site without patients", data.name, step.name)
        bounded = ClusterSums(*(np.zeros(sizes.of(declared[name])) for name in ("sums", "counts")))
    deviation = multiplier * (moves * SENSITIVITY) * share
    arrays = noised(bounded, deviation, guarantee.noise())._asdict()
    return Answer(arrays, data.told(step.role), keep=keep)


def with_more_noise(
    step: Step, study: Study, answer: Answer, sites: tuple[int, int], noise: NoiseSource
) -> Answer:
    """A noisy answer made for a sum over as many sites, for one over fewer.

    `sites` are the number then and that now; variances add up to what is now needed.
    """
    then, now = sites
    moves = {array.name: array for array in step.answers(study)}["sums"].moves or 0.0
    share = math.sqrt(1.0 / now - 1.0 / then)
    deviation = statistics_multiplier(study) * (moves * SENSITIVITY) * share
    parts = ClusterSums(answer.arrays["sums"], answer.arrays["counts"])
    return replace(answer, arrays=noised(parts, deviation, noise)._asdict())


def _bounded(
    step: Statistic, data: SiteData, model: AlignmentModel, request: Request, groups: int
) -> ClusterSums:
    """Sums and counts of each group, in which every unit has weight 1."""
    parts = step.rows(data, model, request)
    weights = unit_weights(units_of(request.study, data.examples(step.role).groups))
    return group_sums(parts.rows, parts.groups, groups, weights[parts.images])


def _private_trainer(
    step: Training, data: SiteData, request: Request, guarantee: Guarantee
) -> Trainer:
    """DP-SGD, charged first; the loss stays at the site, as it has no noise."""
    study = request.study
    trained = study.pretraining.rounds > 0
    units: dict[Role, int] = {
        "unlabelled": data.told("unlabelled") if trained else 0,
        "labelled": data.told("labelled"),
    }
    multiplier = training_multiplier(study, units)
    rounds = rounds_of(step, study, units[step.role])

    def trainer(model: AlignmentModel, lesson: Lesson) -> None:
        guarantee.charge(Charge(multiplier, rounds.sampling_rate, rounds.steps), EVERYONE)
        examples, sent = lesson.examples, {k: v.detach().clone() for k, v in model.shared().items()}
        schedule = private_schedule(
            study, lesson.schedule, rounds, multiplier, model, examples.hidden.shape[1]
        )
        own = units_of(study, examples.groups)
        train = partial(train_privately, model, loss=lesson.loss, schedule=schedule)
        try:
            train(examples=examples, units=own, noise=guarantee.noise(), anchor=lesson.pull)
        except Exception:
            logger.exception("%s: %s: answered as by a site without patients", data.name, step.name)
            model.load_shared(sent)
            nobody = examples.rows(torch.tensor([], dtype=torch.long))
            train(examples=nobody, units=[], noise=guarantee.noise(), anchor=lesson.pull)

    return trainer


def private_schedule(
    study: Study,
    plain: Schedule,
    rounds: Rounds,
    multiplier: float,
    model: AlignmentModel,
    views: int,
) -> PrivateSchedule:
    """One round by DP-SGD with noise σ = `multiplier`, with the rates of a round without."""
    return PrivateSchedule(
        steps=rounds.steps,
        sampling_rate=rounds.sampling_rate,
        noise_multiplier=multiplier,
        max_norm=study.privacy.max_gradient_norm,
        views=views,
        micro_batch=rows_at_a_time(sum(each.numel() for each in model.shared().values())),
        learning_rate=plain.learning_rate,
        expected_units=rounds.expected,
        bank_learning_rate=plain.bank_learning_rate,
        weight_decay=plain.weight_decay,
        text_pull=plain.text_pull,
    )


def rows_at_a_time(weights: int) -> int:
    """How many images' gradients of so many weights are held at a time."""
    return max(1, min(MOST_ROWS, MOST_GRADIENTS // max(weights, 1)))
