"""Sent: what a request carries of the model is what the study's run can have come to by then.

Weights that are made to show single images in an update lie far from the study's start ("trap
weights", Boenisch et al. 2023; "Robbing the Fed", Fowl et al. 2022). So they may be no further from
it than training moves them. A site makes the start for itself, and one that was away for some
rounds needs nothing more to judge a request. Of a text bank it does not know the start, but that
its rows are unit.

A scale that is fine in one feature shows the images near a value of it: none may be finer than a
spread over images makes it. Intercepts that are larger than Newton steps make them would turn every
prediction into one class. What the study does not use, or has not estimated yet, is as it was.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import MessageError
from hica.method.calibration import largest_intercept
from hica.steps.arrays import LARGEST_UNIT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import FINEST
from hica.steps.plan import plan
from hica.steps.reach import ROUNDING, Reach
from hica.steps.state import weights_of
from hica.steps.step import Turn
from hica.steps.training import Training
from hica.study import Study
from hica.wire.weight_names import factor_pairs

SLACK = 2.0
"""Of LoRA's norms, for rounds with one update, whose factors are taken as they are."""

Weights = Mapping[str, NDArray[Any]]


def check_sent(turn: Turn, study: Study, start: Weights, arrays: Weights) -> None:
    """Refuse what a request for `turn` cannot carry.

    `start` are the trained weights of the study's model before any training, by name; `arrays` are
    those of the request, of declared shapes.

    Raises:
        MessageError: Names that are not the model's, a weight that is too far from its start, or
            an estimate that the study cannot have made.
    """
    turns = plan(study)
    earlier = turns[: turns.index(turn)]
    _check_estimates(turn, study, arrays, earlier)
    sent = weights_of(arrays)
    if start.keys() != sent.keys():
        different = sorted(start.keys() ^ sent.keys())[:5]
        raise MessageError(f"weights do not fit the study's model: {different} differ")
    rounds = rounds_of(earlier, study)
    reach = Reach.of_rounding(study.federation.dtype)
    for each in rounds:
        reach = reach.plus(each)
    turned = factor_pairs(sent) if study.federation.aggregation == "mean" else []
    for name_a, name_b in turned:
        _check_factors((name_a, name_b), start, sent, rounds)
    for name in sent.keys() - {name for pair in turned for name in pair}:
        first, now = start[name], sent[name]
        if first.shape != now.shape:
            raise MessageError(
                f"weight {name!r} has shape {now.shape}, the study's model has {first.shape}"
            )
        if name.startswith("bank."):
            _check_rows(name, now, reach)
        else:
            reach.check(name, first, now)


def _check_estimates(turn: Turn, study: Study, arrays: Weights, earlier: Sequence[Turn]) -> None:
    """Hold centre, scale and intercepts against what the turns before can have made."""
    estimated = {name for each in earlier for name in each.step.estimates(study)}
    scale = arrays["scale"]
    still = {
        "centre": not arrays["centre"].any(),
        "scale": bool((scale == 1.0).all()),
        "bias": not arrays["bias"].any(),
    }
    for name, as_it_was in still.items():
        if not as_it_was and name not in estimated:
            raise MessageError(f"array {name!r} is not as it is in this study before {turn.title}")
    if (scale < (1 - ROUNDING["float32"]) * FINEST * scale.mean(axis=1, keepdims=True)).any():
        raise MessageError(
            f"array 'scale' is finer in one feature, {scale.min():.3g}, than a spread over images "
            f"makes it: at least 1/{1 / FINEST:.0f} of the mean over features"
        )
    # Those of class means have no bound but their declared one: means may lie nearly on a line.
    steps = sum(each.step is CALIBRATION for each in earlier)
    if steps:
        possible = largest_intercept(steps, study.calibration.ridge)
        largest = float(np.abs(arrays["bias"]).max())
        if largest > possible:
            raise MessageError(
                f"array 'bias' holds an intercept of {largest:.3g}, {steps} Newton steps with "
                f"calibration.ridge = {study.calibration.ridge:g} make it {possible:.3g} at most"
            )


def rounds_of(turns: Sequence[Turn], study: Study) -> list[Reach]:
    """How far each round of training among some turns moves the weights of everybody."""
    return [
        each.step.reach(study, each.round).by_rule(study.federation)
        for each in turns
        if isinstance(each.step, Training)
    ]


def _check_rows(name: str, rows: NDArray[Any], reach: Reach) -> None:
    """Hold the norms of a bank's rows against those that unit rows can come to."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    possible = reach.bank * math.sqrt(rows.shape[1]) + reach.share + LARGEST_UNIT - 1.0
    if (np.abs(norms - 1.0) > possible).any():
        worst = norms[int(np.abs(norms - 1.0).argmax())]
        raise MessageError(
            f"weight {name!r} has a row of norm {worst:.3g}, training can make it between "
            f"{max(0.0, 1.0 - possible):.3g} and {1.0 + possible:.3g}"
        )


def _check_factors(
    names: tuple[str, str], start: Weights, sent: Weights, rounds: Sequence[Reach]
) -> None:
    """Hold LoRA's factors against the norms they can have: their mean turns them.

    It is of the products B·A, and goes back to factors of which A has equal singular values
    (`hica_server.aggregation.factors`). So A keeps the mean norm of the sites', and B is no longer
    than the longest product over A's singular value.
    """
    a, b = (start[name].astype(np.float64) for name in names)
    matrix = a.reshape(len(a), -1)
    rank = math.sqrt(len(a))
    longest = shortest = float(np.linalg.norm(matrix))
    largest, length = float(np.linalg.norm(matrix, 2)), float(np.linalg.norm(b))
    for each in rounds:
        step_a, step_b = (each.tower * math.sqrt(part.size) for part in (a, b))
        longest, shortest = longest + step_a, shortest - step_a
        stretch = (largest + step_a) * rank / shortest if shortest > 0 else math.inf
        length = (length + step_b) * max(1.0, stretch)
        largest = longest / rank
    for name, possible in zip(names, (longest, length), strict=True):
        norm = float(np.linalg.norm(sent[name].astype(np.float64)))
        if norm > SLACK * possible + 1e-3:
            raise MessageError(
                f"weight {name!r} has norm {norm:.3g}, training can make it {possible:.3g}"
            )
