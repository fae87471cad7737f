"""What of an answer goes into a secure sum, and in which range: known to both sides in advance.

Ranges follow from the study alone, which every site has approved: were they the coordinator's to
name, it could choose one so coarse that a single number shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.secure_sum.party import FEWEST_SITES, Terms
from hica.secure_sum.quantise import Integers, Range, quantise, range_for, restore
from hica.study import Study
from hica.wire.messages import Arrays, Kind, Reply, Request, Spec

SUMMED = frozenset(
    {Kind.MOMENTS, Kind.CLUSTERS, Kind.PRETRAIN, Kind.PROTOTYPES, Kind.ALIGN, Kind.CALIBRATE}
)
"""Kinds whose answers the coordinator only needs the sum of. Metrics of `evaluate` are not: they
are reported for every site, and hidden where they are of too few patients."""

TRAINED = frozenset({Kind.PRETRAIN, Kind.ALIGN})
"""Kinds whose answer is an update."""

EXAMPLES = "examples"
LOSS = "loss"
"""What is summed beside the answer's own arrays."""

LARGEST_CHANGE = 8.0
"""Of a single weight in a round, times its share of the most examples; a weight that moves further
has diverged. At 20 sites the mean is then exact to 6e-8, as float32 is near 1."""
LARGEST_FEATURE = 4096.0
"""Of a sum over images, for each image and region."""


def terms_of(study: Study) -> Terms:
    """How many sites a sum of this study needs."""
    return Terms(study.privacy.threshold, max(FEWEST_SITES, study.federation.quorum))


def most_examples(kind: Kind, study: Study) -> int:
    """The largest number of images that an answer may stand for."""
    if kind in {Kind.MOMENTS, Kind.CLUSTERS, Kind.PRETRAIN}:
        return study.pretraining.max_images
    return study.alignment.shots * len(study.classes)


def ranges_of(kind: Kind, study: Study, names: Mapping[str, object]) -> dict[str, Range]:
    """The range of every array in a sum.

    Args:
        kind: Of the answer.
        study: The approved study.
        names: Of the arrays of the answer itself.
    """
    regions = study.regions.count if kind == Kind.MOMENTS else 1
    statistics = range_for(LARGEST_FEATURE * most_examples(kind, study) * regions, 64)
    own = Range(LARGEST_CHANGE, 32) if kind in TRAINED else statistics
    squares = range_for(LARGEST_FEATURE**2 * most_examples(kind, study) * regions, 64)
    ranges = {name: squares if name == "squares" else own for name in names}
    return {**ranges, EXAMPLES: statistics, LOSS: statistics}


def question_of(request: Request) -> str:
    """Hash of all that an answer depends on, and not of the session it is masked in.

    Masks are bound to it (`hica.secure_sum.party.pair_purpose`).
    """
    settings = {name: value for name, value in request.settings.items() if name != "sum"}
    told = [request.study.sha256, request.kind.value, request.round, settings]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(request.arrays):
        array = request.arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def masked_spec(kind: Kind, study: Study, spec: Spec) -> Spec:
    """The spec of a masked answer.

    Args:
        kind: Of the answer.
        study: The approved study.
        spec: Of the answer in the clear.
    """
    shapes = {name: shape for name, (shape, _) in spec.items()} | {EXAMPLES: (1,), LOSS: (1,)}
    ranges = ranges_of(kind, study, spec)
    return {name: (shape, ranges[name].dtype) for name, shape in shapes.items()}


def integers_of(reply: Reply, study: Study, sent: Arrays, sites: int) -> dict[str, Integers]:
    """An answer as integers that can be summed; of an update, what it changes.

    An update further from what was sent than `federation.max_update_norm` is brought back to that
    norm here, as nobody else will see it.

    Args:
        reply: In the clear; does not leave.
        study: The approved study.
        sent: The request's arrays.
        sites: In the group.

    Raises:
        MessageError: A value is not finite, or more examples than the study allows.
    """
    most = most_examples(reply.kind, study)
    if not 0 <= reply.examples <= most:
        raise MessageError(f"{reply.examples} examples, the study allows {most}")
    arrays: Mapping[str, NDArray[np.floating]] = reply.arrays
    if reply.kind in TRAINED:
        arrays = weighted_change(reply, study, sent)
    values = {
        **arrays,
        EXAMPLES: np.array([float(reply.examples)]),
        LOSS: np.array([float(reply.details.get("loss", 0.0)) * reply.examples]),
    }
    ranges = ranges_of(reply.kind, study, arrays)
    return {name: quantise(v, ranges[name], sites, name) for name, v in values.items()}


def weighted_change(reply: Reply, study: Study, sent: Arrays) -> dict[str, NDArray[np.float64]]:
    """Trained less sent weights, of bounded norm, times the site's weight in the mean (≤ 1)."""
    changes = {
        name: value.astype(np.float64) - sent[name].astype(np.float64)
        for name, value in reply.arrays.items()
    }
    norm = float(np.sqrt(sum(float(np.square(change).sum()) for change in changes.values())))
    bound = min(1.0, study.federation.max_update_norm / norm) if norm > 0 else 1.0
    weight = 1.0
    if study.federation.weighting == "examples":
        weight = reply.examples / most_examples(reply.kind, study)
    return {name: change * (bound * weight) for name, change in changes.items()}


def mean_update(
    totals: Mapping[str, NDArray[np.float64]],
    kind: Kind,
    study: Study,
    sent: Mapping[str, NDArray[np.floating]],
    sites: int,
) -> dict[str, NDArray[np.float64]]:
    """The weighted mean of the sites' weights, from the sums of their weighted changes.

    Args:
        totals: By name of the weight; and `examples`.
        kind: Of the answers.
        study: The study.
        sent: Weights that were broadcast.
        sites: In the sum.

    Raises:
        MessageError: No example stands behind the sum.
    """
    weights = float(sites)
    if study.federation.weighting == "examples":
        weights = float(totals[EXAMPLES][0]) / most_examples(kind, study)
    if weights <= 0:
        raise MessageError("an update that no example stands behind")
    return {name: value + totals[name] / weights for name, value in sent.items()}


def values_of(
    totals: Mapping[str, Integers], kind: Kind, study: Study, sites: int
) -> dict[str, NDArray[np.float64]]:
    """The sums, from their integers.

    Args:
        totals: As the collector has them.
        kind: Of the answers.
        study: The study.
        sites: In the group.
    """
    ranges = ranges_of(kind, study, totals)
    return {name: restore(total, ranges[name], sites) for name, total in totals.items()}
