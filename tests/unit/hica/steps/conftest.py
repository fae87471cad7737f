"""What stands in for the coordinator: what comes back to it, and its aggregation rule."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hica.steps.step import Received, Step, Turn
from hica.study import Study
from hica.wire.messages import Reply


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


@pytest.fixture
def receive(turns: Callable[[Study, Step], list[Turn]]) -> Callable[..., Received]:
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
                "turn": turns(study, step)[number],
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
