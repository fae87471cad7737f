"""Result: the end of a study is told to every site that took part.

The request carries the final model, as every request carries the model of its time. The site keeps
it for its people, with metrics on its own held-out patients: exact, of every class, as they stay.
All that leaves is how many patients have withdrawn, where they are not few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hica.errors import HicaError
from hica.steps.evaluation import ZERO_SHOT, gain, measured
from hica.steps.personal import mixed, own_weight
from hica.steps.predictions import logits, probabilities_of
from hica.steps.state import State
from hica.steps.step import Answer, Received, SiteData, Stage, Step, Turn
from hica.study import Study
from hica.wire.details import Ended
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel


class Result(Step):
    """The final model, for the site to keep."""

    name = "result"
    kind = "evaluate.result"
    role = None
    leaves = (
        "how many patients have withdrawn since the study began (fewer than min_count only as "
        '"some", in a private study not at all), and nothing else: the study is over, and your '
        "site keeps the final model and the results on your own held-out patients"
    )
    details = Ended
    in_sum = False
    needs_noise = False
    best_effort = True

    def turns(self, study: Study) -> Iterator[Turn]:
        """Once, when all else is done."""
        yield Turn(self, (Stage.END, 1), 0, "telling the end")

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """How many withdrew; and, for the site's people, how good the model is there."""
        return Answer(details={"withdrawn": _withdrawn(data)}, result=_found(data, model))

    def combine(self, state: State, received: Received) -> State:
        """Nothing is learnt of it."""
        return state


def _withdrawn(data: SiteData) -> int | str | None:
    """What is told of patients who have withdrawn: a small number would be about each of them."""
    if data.study.privacy.is_private:
        return None
    return "some" if 0 < data.withdrawn < data.study.federation.min_count else data.withdrawn


def _found(data: SiteData, model: AlignmentModel) -> dict[str, Any]:
    """Metrics of the site's predictions, of the texts alone, and what joining gave; or why not."""
    found: dict[str, Any] = {"federated": None, "zero_shot": None, "gain": None, "why_none": ""}
    found["own_share"] = own_weight(data)
    if not data.size("test"):
        return found | {"why_none": "this site holds out no images"}
    try:
        shared = logits(data, model)
        found["federated"] = measured(data, probabilities_of(mixed(data, shared)), 1).to_dict()
        found["zero_shot"] = _zero_shot(data)
        gained = gain(data, shared, 1)
        found["gain"] = gained.to_dict() if gained else None
    except HicaError as error:  # an image that cannot be read keeps no model from the site
        found["why_none"] = str(error)
    return found


def _zero_shot(data: SiteData) -> dict[str, Any] | None:
    """Metrics of the texts alone, if the site was asked for them on the same images."""
    if not data.has_kept(ZERO_SHOT):
        return None
    kept = data.kept(ZERO_SHOT)
    if not np.array_equal(kept["images"], data.images("test")):
        return None
    return measured(data, kept["probabilities"], 1).to_dict()


RESULT = Result()
