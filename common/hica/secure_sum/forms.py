"""What of an answer goes into a secure sum, and in which range: known to both sides in advance.

Ranges follow from what a step declares and from the study, which every site has approved: were they
the coordinator's to name, it could choose one so coarse that a single number shows.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.secure_sum.group import FEWEST_SITES, Threshold
from hica.secure_sum.quantise import Integers, Range, quantise, range_for, restore
from hica.steps.arrays import LARGEST_FEATURE, WEIGHTS_ARRAY, Array
from hica.steps.step import Answer, Step
from hica.steps.training import Training
from hica.study import Study
from hica.wire.messages import KEPT, Arrays, Request, Spec

EXAMPLES = "examples"
LOSS = "loss"
"""What is summed beside the answer's own arrays."""


def threshold_of(study: Study) -> Threshold:
    """How many sites a sum of this study needs."""
    return Threshold(study.privacy.threshold, max(FEWEST_SITES, study.federation.quorum))


def range_of(array: Array) -> Range:
    """The range of one array in a sum; sums over images are counted more finely than weights."""
    return range_for(array.largest, 64 if array.dtype == "float64" else 32)


def in_sum(step: Step, study: Study, names: Iterable[str]) -> dict[str, Range]:
    """The range of every array in a sum of a step's answers; of an update, of its weights."""
    declared = {array.name: range_of(array) for array in step.answers(study)}
    beside = range_for(LARGEST_FEATURE * step.most_images(study), 64)
    declared |= {EXAMPLES: beside, LOSS: beside}
    ranges = {name: declared.get(name) or declared[WEIGHTS_ARRAY] for name in names}
    return {**ranges, EXAMPLES: beside, LOSS: beside}


def question_of(request: Request) -> str:
    """Hash of all that an answer depends on, and not of the session it is masked in.

    Masks are bound to it (`hica.secure_sum.group.pair_purpose`).
    """
    settings = {name: value for name, value in request.settings.items() if name != "sum"}
    told = [request.study.sha256, str(request.kind), request.round, settings]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(request.arrays):
        array = request.arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def content_of(request: Request) -> str:
    """Hash of what the answer to a statistic depends on: the question, but for its round.

    What sites have kept is left out, too: of the same content the answer is the same or refused.
    """
    settings = {name: value for name, value in request.settings.items() if name != KEPT}
    return question_of(replace(request, round=0, settings=settings))


def masked_spec(step: Step, study: Study, spec: Spec) -> Spec:
    """The spec of a masked answer, from that of the answer in the clear."""
    shapes = {name: shape for name, (shape, _) in spec.items()} | {EXAMPLES: (1,), LOSS: (1,)}
    ranges = in_sum(step, study, spec)
    return {name: (shape, ranges[name].dtype) for name, shape in shapes.items()}


def integers_of(
    step: Step, answer: Answer, study: Study, sent: Arrays, sites: int
) -> dict[str, Integers]:
    """An answer as integers that can be summed over the group; of an update, what it changes.

    An update further from what the request `sent` than `federation.max_update_norm` is brought back
    to that norm here, as nobody else will see it.

    Raises:
        MessageError: A value is not finite, or more examples than the study allows.
    """
    most = step.most_images(study)
    if not 0 <= answer.examples <= most:
        raise MessageError(f"{answer.examples} examples, the study allows {most}")
    arrays: Mapping[str, NDArray[np.floating]] = answer.arrays
    if isinstance(step, Training):
        arrays = weighted_change(answer, study, sent, most)
    values = {
        **arrays,
        EXAMPLES: np.array([float(answer.examples)]),
        LOSS: np.array([float(answer.details.get("loss", 0.0)) * answer.examples]),
    }
    ranges = in_sum(step, study, arrays)
    return {name: quantise(v, ranges[name], sites, name) for name, v in values.items()}


def weighted_change(
    answer: Answer, study: Study, sent: Arrays, most: int
) -> dict[str, NDArray[np.float64]]:
    """Trained less sent weights, of bounded norm, times the site's weight in the mean (≤ 1).

    `most` is the largest number of images that an answer may stand for.
    """
    changes = {
        # What has diverged adds nothing: a norm that is not finite would spoil all the rest.
        name: np.nan_to_num(value - sent[name].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        for name, value in answer.arrays.items()
    }
    norm = float(np.sqrt(sum(float(np.square(change).sum()) for change in changes.values())))
    bound = min(1.0, study.federation.max_update_norm / norm) if norm > 0 else 1.0
    weight = 1.0
    if study.federation.weighting == "examples":
        weight = answer.examples / most
    return {name: change * (bound * weight) for name, change in changes.items()}


def mean_update(
    totals: Mapping[str, NDArray[np.float64]],
    step: Step,
    study: Study,
    sent: Mapping[str, NDArray[np.floating]],
    examples: float,
    sites: int,
) -> dict[str, NDArray[np.float64]]:
    """The weighted mean of the sites' weights, from the sums of their weighted changes.

    `sent` are the weights that were broadcast, `examples` and `sites` those in the sum.

    Raises:
        MessageError: No example stands behind the sum.
    """
    weights = float(sites)
    if study.federation.weighting == "examples":
        weights = examples / step.most_images(study)
    if weights <= 0:
        raise MessageError("an update that no example stands behind")
    return {name: value + totals[name] / weights for name, value in sent.items()}


def values_of(
    totals: Mapping[str, Integers], step: Step, study: Study, sites: int
) -> dict[str, NDArray[np.float64]]:
    """The sums, from their integers as the collector has them; `sites` are those in the group."""
    ranges = in_sum(step, study, totals)
    return {name: restore(total, ranges[name], sites) for name, total in totals.items()}
