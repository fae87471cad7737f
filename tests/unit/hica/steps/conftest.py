"""What stands in for the coordinator: the state that it asks with, and what comes back."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hica.steps.plan import plan
from hica.steps.state import State
from hica.steps.step import Received, Step, Turn
from hica.study import Study
from hica.wire.messages import Reply, Request


class StubRule:
    """In the place of an aggregation rule: all weights are what the first update says."""

    last_discarded = 0.25

    def __init__(self) -> None:
        self.given: list[tuple[int, list[str]]] = []

    def aggregate(self, round: int, current: Any, updates: Sequence[Any]) -> Any:
        self.given.append((round, [update.site for update in updates]))
        return dict(updates[0].arrays)

    def state(self) -> dict[str, np.ndarray]:
        return {"rounds": np.array([len(self.given)])}


def turns_of(study: Study, step: Step) -> list[Turn]:
    return [turn for turn in plan(study) if turn.step is step]


@pytest.fixture
def turns() -> Callable[[Study, Step], list[Turn]]:
    """The turns of one step in the plan of a study."""
    return turns_of


@pytest.fixture
def ask() -> Callable[..., Request]:
    """The request of a step's turn, with the state it is asked with."""

    def ask(study: Study, step: Step, state: State, number: int = 0) -> Request:
        turn = turns_of(study, step)[number]
        arrays = {**state.arrays(), **step.asked(state)}
        return Request(step.kind, study, turn.round, dict(turn.settings), arrays)

    return ask


@pytest.fixture
def receive() -> Callable[..., Received]:
    """What answers come to, by site: their arrays, how many examples, and further details."""

    def receive(
        study: Study, step: Step, answers: dict[str, Any], number: int = 0, **fields: Any
    ) -> Received:
        replies = [
            Reply(step.kind, site, 0, each.examples, dict(each.details), each.arrays)
            for site, each in answers.items()
        ]
        names = replies[0].arrays if replies else {}
        return Received(
            **{
                "study": study,
                "turn": turns_of(study, step)[number],
                "rule": StubRule(),
                "replies": replies,
                "arrays": {
                    name: np.sum([reply.arrays[name] for reply in replies], axis=0)
                    for name in names
                },
                "examples": float(sum(reply.examples for reply in replies)),
                "sites": len(replies),
                **fields,
            }
        )

    return receive
