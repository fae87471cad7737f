"""The coordinator's side of a turn, the same for every step: ask, check, sum, combine, note.

What is asked and what follows from it stands in the step (`hica.steps`). Turns read and write the
state only, so that a run killed between two of them goes on as if it had not been.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from hica.deployment.keys import PublicKey
from hica.errors import FederationError, MessageError
from hica.privacy.budget import noise_deviation
from hica.secure_sum.forms import mean_update, threshold_of
from hica.steps.arrays import WEIGHTS_ARRAY, Sizes
from hica.steps.state import WEIGHTS, weights_of
from hica.steps.step import Received, Statistic, Turn
from hica.steps.training import ALL_SITES, Training
from hica.study import Study
from hica.wire.messages import Reply, Request, Spec, spec_of
from hica_server.aggregation import make_aggregator
from hica_server.exchange import Keep, Limits, Outcome, exchange
from hica_server.participants import Participants, Roster, with_absent
from hica_server.secure_exchange import SecureSum, secure_exchange
from hica_server.state import RunState


class Coordinator:
    """One run: grid, study and state, which every turn changes.

    `record` is called with each entry of `state.rounds` as it is made; `keep` puts an update where
    it waits for the others. For `roster` and `registered` see `Participants` and `secure_exchange`.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        state: RunState,
        record: Callable[[dict[str, Any]], None] = lambda *_: None,
        roster: Roster | None = None,
        keep: Keep = lambda reply: reply,
        registered: Mapping[str, PublicKey] | None = None,
    ) -> None:
        self.state = state
        self.sites = Participants(grid, study, state.sites, roster, self._note)
        self._grid = grid
        self._study = study
        self._record = record
        self._keep = keep
        self._registered = registered
        self._rule = make_aggregator(study.federation)
        if state.learnt.optimiser:
            self._rule.restore(state.learnt.optimiser)

    def take(self, turn: Turn) -> None:
        """Take a turn of the plan: the state is then that after it.

        Raises:
            FederationError: Too few sites have given a usable answer.
        """
        step, before = turn.step, Received(self._study, turn, self._rule)
        if not step.kind:
            self.state.learnt = step.combine(self.state.learnt, before)
            return
        if step.in_sum and self._study.privacy.secure_aggregation:
            received, outcome = self._ask_for_sum(turn, before)
        else:
            received, outcome = self._ask(turn, before)
        self.state.learnt = step.combine(self.state.learnt, received)
        self._note(step.name, turn.round, outcome, **step.told(received))

    def _ask(self, turn: Turn, before: Received) -> tuple[Received, Outcome]:
        """The answers of all sites that have images of the step's role."""
        step, study, learnt = turn.step, self._study, self.state.learnt
        at_least = self._rule.minimum if isinstance(step, Training) else 1
        limits = Limits.of(study, at_least)
        able, wanted = self.sites.able(step.kind, step.role, limits)
        check = partial(step.check, study, learnt)
        request = self._request(turn)
        outcome = exchange(self._grid, able, request, self._spec(turn), limits, check, self._keep)
        outcome.missing = with_absent(outcome, wanted)
        replies = list(outcome.replies.values())
        received = replace(before, replies=replies, sites=len(replies))
        if isinstance(step, Statistic):
            received = replace(
                received,
                arrays={
                    name: np.sum([reply.arrays[name] for reply in replies], axis=0)
                    for name in replies[0].arrays
                },
                examples=float(sum(reply.examples for reply in replies)),
                deviation=noise_deviation(study, len(replies)),
            )
        return received, outcome

    def _ask_for_sum(self, turn: Turn, before: Received) -> tuple[Received, Outcome]:
        """The sums of what such an exchange would give, and nothing of any single site."""
        step, study = turn.step, self._study
        limits = Limits.of(study, threshold_of(study).fewest)
        able, wanted = self.sites.able(step.kind, step.role, limits)
        request, spec = self._request(turn), self._spec(turn)
        total = secure_exchange(self._grid, able, request, step, spec, limits, self._registered)
        total.outcome.missing = with_absent(total.outcome, wanted)
        self._check_sum(turn, total)
        sites, arrays = len(total.outcome.replies), total.arrays
        if isinstance(step, Training):
            arrays = mean_update(
                weights_of(arrays), step, study, self.state.learnt.shared, total.examples, sites
            )
        received = replace(
            before,
            arrays=arrays,
            examples=total.examples,
            loss=total.loss,
            sites=sites,
            deviation=noise_deviation(study, sites) if isinstance(step, Statistic) else 0.0,
        )
        return received, total.outcome

    def _check_sum(self, turn: Turn, total: SecureSum) -> None:
        """Apply the check of single answers to their sum, where nobody sees the single ones."""
        kind, sites = turn.step.kind, total.outcome.replies
        examples = round(total.examples)
        reply = Reply(kind, ALL_SITES, turn.round, examples, arrays=total.arrays)
        try:
            turn.step.check(self._study, self.state.learnt, reply, len(sites))
        except MessageError as error:
            raise FederationError(
                f"{kind} round {turn.round}: the secure sum over {', '.join(sites)} cannot be "
                f"right: {error}. One of these sites has sent wrong numbers; which one, only they "
                "can find out, in their own logs. The state is on disk: run the same command again "
                "once it is mended or revoked"
            ) from None

    def _request(self, turn: Turn) -> Request:
        """A request with all that a restarted site needs."""
        learnt = self.state.learnt
        arrays = learnt.arrays() | turn.step.asked(self._study, learnt)
        return Request(turn.step.kind, self._study, turn.round, dict(turn.settings), arrays)

    def _spec(self, turn: Turn) -> Spec:
        """Names, shapes and types of an answer's arrays."""
        learnt = self.state.learnt
        sizes = Sizes(self._study, learnt.width, len(learnt.centroids))
        spec: Spec = {}
        for array in turn.step.answers(self._study):
            if array.name == WEIGHTS_ARRAY:
                shared = spec_of(learnt.shared)
                spec |= {f"{WEIGHTS}{name}": form for name, form in shared.items()}
            else:
                spec[array.name] = (sizes.of(array), array.dtype)
        return spec

    def _note(self, stage: str, round_: int, outcome: Outcome, **told: Any) -> None:
        entry = {
            "stage": stage,
            "round": round_,
            "seconds": round(outcome.seconds, 4),
            "bytes_up": outcome.bytes_up,
            "bytes_down": outcome.bytes_down,
            "participants": list(outcome.replies),
            "refused": outcome.refused,
            "missing": outcome.missing,
            "loss": None,
            **told,
        }
        self.state.rounds.append(entry)
        self._record(entry)
