"""Replies: what no honest site can have answered, found before anything is made of it.

`hica.wire.records` has checked the form of a reply, and `hica.wire.details` has a strict model of
its details. Here it is held against what the site itself has announced: no answer stands for more
images than that, and no sum is larger than so many images can make it. What is then made of all
answers together is checked once more before it is saved.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.privacy.budget import noise_deviation
from hica.steps.arrays import CENTROIDS, COUNT_SCALE, LARGEST_WEIGHT, STATE_ARRAYS, Array
from hica.steps.plan import steps_of
from hica.steps.state import State
from hica.steps.step import Step
from hica.study import Study
from hica.wire.details import Capabilities
from hica.wire.messages import Reply

DEVIATIONS = 12.0
"""Of the noise in a number that are allowed for: normal noise goes beyond once in 10³² numbers."""
ROUNDING = 1e-6
"""Allowed for in a sum, relative and absolute."""

Said = Mapping[str, Any]
"""What a site has announced, as `Capabilities` holds it."""


def capabilities_of(study: Study, reply: Reply) -> dict[str, Any]:
    """What a site says it can take part in, as far as it was said.

    Raises:
        MessageError: It is not of this study, or the study has no use for so many images.
    """
    told = Capabilities.read(reply.details)
    if set(told.classes) != set(study.class_names):
        raise MessageError(
            f"details: classes: of {sorted(told.classes)[:5]}, the study has "
            f"{sorted(study.class_names)[:5]}"
        )
    known = sum(count or 0 for count in told.classes.values())
    if known > told.labelled:
        raise MessageError(f"details: classes: {known} shots, labelled are {told.labelled}")
    if not set(told.shortfall) <= set(study.class_names):
        raise MessageError("details: shortfall: names a class that the study does not have")
    for role, count in (("labelled", told.labelled), ("unlabelled", told.unlabelled)):
        most = max((s.most_images(study) for s in steps_of(study) if s.role == role), default=count)
        if count > most:
            raise MessageError(f"details: {role}: {count} images, the study takes {most}")
    return told.model_dump(exclude_unset=True)


def check_reply(step: Step, study: Study, state: State, said: Said, reply: Reply) -> None:
    """Refuse a site's answer to a step that cannot be right; `said` is what it has announced.

    Raises:
        MessageError: Names what is wrong and what is possible.
    """
    if step.details is not None:
        step.details.read(reply.details)
    step.check(study, state, reply)
    check_amounts(step, study, reply, [said])


def check_amounts(step: Step, study: Study, reply: Reply, said: Iterable[Said]) -> None:
    """Hold an answer, of one site or the sum over several, against what they have announced.

    Raises:
        MessageError: It stands for more images than there are, or its sums are too large for them.
    """
    announced = [most_images(step, study, each) for each in said]
    if reply.examples > sum(announced):
        raise MessageError(
            f"claims {reply.examples} examples, announced were {sum(announced)} {step.role} "
            "images. If there are more now, end the run and start it again: it then asks anew"
        )
    declared = {array.name: array for array in step.answers(study) if array.each is not None}
    if "counts" not in declared:
        return
    noise = DEVIATIONS * noise_deviation(study, len(announced))
    counted = declared.pop("counts")
    counts = reply.arrays["counts"]
    slack = noise * _moves(counted) / COUNT_SCALE
    most = float(reply.examples)
    if study.privacy.is_private:
        most = sum(most_drawn(each) for each in announced)
    _check_counts(counted, counts, most, slack * math.sqrt(len(counts)))
    for name, array in declared.items():
        _check_sums(array, reply.arrays[name], counts, noise * _moves(array) + slack)


def most_images(step: Step, study: Study, said: Said) -> int:
    """How many images an answer of one site may stand for."""
    if step.role == "test":
        return int(said["test"])
    most = step.most_images(study)
    return most if step.role is None else min(int(said[step.role]), most)


def most_drawn(announced: int) -> float:
    """How many units a private site may have drawn that has announced so many.

    It has announced its units rounded down to a quarter, or as many as it was to draw of them; each
    is then drawn by itself (`hica.cohort.private_draw`).
    """
    most = 1.25 * announced + 1.0
    return most + DEVIATIONS * math.sqrt(most) if announced else 0.0


def check_state(state: State) -> None:
    """Check that a state is one that can be sent to sites: finite, and within what is declared.

    Raises:
        MessageError: Names the array and its range.
    """
    sent = state.arrays()
    for array in STATE_ARRAYS:
        _check_finite(array.name, sent[array.name])
        array.check(sent[array.name])
    _check_finite("means", state.means)
    _check_finite(CENTROIDS.name, state.centroids)
    CENTROIDS.check(state.centroids)
    for name, value in state.shared.items():
        _check_finite(name, value)
        largest = max(float(value.max(initial=0)), -float(value.min(initial=0)))
        if largest > LARGEST_WEIGHT:
            raise MessageError(
                f"weight {name!r} has values up to {largest:.3g}, at most {LARGEST_WEIGHT:g}"
            )
    for name, value in state.optimiser.items():
        _check_finite(name, value)


def _check_counts(array: Array, counts: NDArray[Any], examples: float, slack: float) -> None:
    """Refuse counts of more than the images that stand behind them, noise and rounding allowed."""
    assert array.each is not None
    most = examples * array.each * (1 + ROUNDING) + ROUNDING + slack
    if counts.sum() > most:
        raise MessageError(
            f"array 'counts' adds up to {counts.sum():.4g}, possible are {most:.4g} of "
            f"{examples:g} images"
        )


def _check_sums(array: Array, sums: NDArray[Any], counts: NDArray[Any], slack: float) -> None:
    """Refuse sums that are larger than what was counted can make them."""
    assert array.each is not None
    most = array.each * np.maximum(counts, 0.0) * (1 + ROUNDING) + ROUNDING
    most = most + slack * max(array.each, 1.0)
    beyond = np.abs(sums).max(axis=-1, initial=0.0) > most
    if beyond.any():
        group = int(beyond.argmax())
        raise MessageError(
            f"array {array.name!r} holds up to {np.abs(sums[group]).max():.4g} in row {group}, "
            f"possible are {most[group]:.4g} of {counts[group]:.4g} that are counted there"
        )


def _moves(array: Array) -> float:
    """By what the noise of a private answer is scaled."""
    return 1.0 if array.moves is None else array.moves


def _check_finite(name: str, values: NDArray[Any]) -> None:
    # Of NaN, minimum and maximum are NaN; so no second array is needed.
    if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
        raise MessageError(f"array {name!r} would hold NaN or infinite values")
