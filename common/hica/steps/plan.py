"""The plan of a run: every exchange, in order, as the study decides them.

centre → zero-shot → [k-means → stage 1 rounds] → centre → bank start → (stage 2 round → centre)…
→ intercepts → personal models → metrics → the end is told

This is the one list of steps: budget, policy, consent, the site's guard and the coordinator read
it.
"""

from collections.abc import Mapping
from typing import Any

from hica.errors import MessageError
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, DRAWN_START, LLOYD, SITE_START
from hica.steps.evaluation import EVALUATION
from hica.steps.personal import PERSONAL
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.steps.result import RESULT
from hica.steps.step import Step, Turn
from hica.study import Study
from hica.wire.messages import BESIDE, SECURE_SUM, Kind, Request, shown_round

STEPS: list[Step] = [
    DRAWN_START,
    SITE_START,
    LLOYD,
    ASSIGN,
    PRETRAINING,
    ALIGNMENT,
    CENTRE,
    PROTOTYPES,
    CALIBRATION,
    PERSONAL,
    EVALUATION,
    RESULT,
]
"""All steps there are. Of the same stage and number, one that stands before another comes first."""


def plan(study: Study) -> list[Turn]:
    """Every exchange of a run, in order."""
    turns = [turn for step in STEPS for turn in step.turns(study)]
    return sorted(turns, key=lambda turn: turn.at)


def steps_of(study: Study) -> list[Step]:
    """The steps in which sites of this study are asked, in the order of their first use."""
    return list(dict.fromkeys(turn.step for turn in plan(study) if turn.step.kind))


def step_kinds() -> list[str]:
    """The kinds of all steps there are."""
    return list(dict.fromkeys(step.kind for step in STEPS if step.kind))


def all_kinds() -> list[str]:
    """Every kind of message that a site may be asked."""
    return [*(str(kind) for kind in Kind), *step_kinds()]


def kinds_asked(study: Study) -> list[str]:
    """The kinds of messages that a run of this study sends, in the order of their first use."""
    secure = SECURE_SUM if study.privacy.secure_aggregation else ()
    kinds = [Kind.CAPABILITIES, *secure, *(step.kind for step in steps_of(study))]
    return list(dict.fromkeys(str(kind) for kind in kinds))


def check_asked(request: Request) -> None:
    """Let a site answer only what a run of the study asks for: that was approved and made private.

    Raises:
        MessageError: The study never asks for this kind.
    """
    if request.kind not in kinds_asked(request.study):
        raise _never_asked(request, request.kind)


def turn_of(request: Request) -> Turn:
    """The turn of the plan that a request belongs to.

    Raises:
        MessageError: The study has no such turn.
    """
    settings: Mapping[str, Any] = {
        name: value for name, value in request.settings.items() if name not in BESIDE
    }
    for turn in plan(request.study):
        if (turn.step.kind, turn.round) == (request.kind, request.round) and (
            turn.settings == settings
        ):
            return turn
    raise _never_asked(
        request,
        f"{request.kind}, round {shown_round(request.round)}, with {str(dict(settings))[:200]}",
    )


def _never_asked(request: Request, what: str) -> MessageError:
    return MessageError(
        f"a run of study {request.study.sha256[:12]} never asks for {what}, so it was not approved "
        "with it: nothing leaves"
    )
