"""The coordinator's side of a turn, the same for every step: ask, check, sum, combine, note.

What is asked and what follows from it stands in the step (`hica.steps`). Turns read and write the
state only, so that a run killed between two of them goes on as if it had not been.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from hica.deployment.keys import PublicKey
from hica.errors import FederationError, MessageError
from hica.privacy.budget import noise_deviation
from hica.secure_sum.forms import content_of, mean_update, question_of, threshold_of
from hica.steps.arrays import WEIGHTS_ARRAY, Sizes
from hica.steps.state import WEIGHTS, State, weights_of
from hica.steps.step import Received, Statistic, Turn
from hica.steps.training import ALL_SITES, Training
from hica.study import Study
from hica.wire.messages import KEPT, Reply, Request, Spec, shown_round, spec_of
from hica_server.aggregation import Aggregator, make_aggregator
from hica_server.exchange import GO_ON, Keep, Limits, Outcome, exchange
from hica_server.participants import Participants, Roster, with_absent
from hica_server.replies import check_amounts, check_reply, check_state
from hica_server.secure_exchange import SecureSum, secure_exchange
from hica_server.state import RunState
from hica_server.telling import tell


class Coordinator:
    """One run: grid, study and state, which every turn changes.

    `record` is called with each entry of `state.rounds` as it is made; `keep` puts an update where
    it waits for the others. For `roster` and `registered` see `Participants` and `secure_exchange`.
    `tell_seconds` is how long sites that are away at the end are waited for, to tell them of it.
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
        tell_seconds: float = 0.0,
    ) -> None:
        self.state = state
        self.sites = Participants(grid, study, state.sites, roster, self._note)
        self._grid = grid
        self._study = study
        self._record = record
        self._keep = keep
        self._registered = registered
        self._tell_seconds = tell_seconds
        self._rule = self._rule_at(state.learnt)

    def take(self, turn: Turn) -> None:
        """Take a turn of the plan: the state is then that after it, and can be sent to sites.

        Raises:
            FederationError: Too few sites have given a usable answer.
        """
        step, before = turn.step, Received(self._study, turn, self._rule)
        if not step.kind:
            self.state.learnt = step.combine(self.state.learnt, before)
        elif step.best_effort:
            self._tell(turn)
        elif step.in_sum and self._study.privacy.secure_aggregation:
            if isinstance(step, Statistic) and self._is_settled(turn):
                return
            received, outcome = self._ask_for_sum(turn, before)
            try:
                learnt = self._combined(received)
            except MessageError as error:
                raise self._wrong_sum(turn, list(outcome.replies), error) from None
            asked = content_of(self._request(turn)) if isinstance(step, Statistic) else ""
            self._learn(learnt, received, outcome)
            self.state.settled = asked
            if asked and not self._is_settled(turn):
                self.state.settled = ""
        else:
            outcome, quorum = self._ask(turn)
            self._learn(*self._settled(before, outcome, quorum), outcome)

    def _tell(self, turn: Turn) -> None:
        """Ask all that took part, and go on whoever answers."""
        study, learnt, said = self._study, self.state.learnt, self.state.sites

        def check(reply: Reply) -> None:
            check_reply(turn.step, study, learnt, said[reply.site], reply)

        def note(outcome: Outcome) -> None:
            for site, reply in outcome.replies.items():
                self.state.withdrawn[site] = reply.details["withdrawn"]
            self._note(turn.step.name, turn.round, outcome)

        tell(
            self._grid,
            self.sites,
            self._request(turn),
            check,
            study.federation.deadline,
            self.state.told,
            self._tell_seconds,
            note,
        )

    def _is_settled(self, turn: Turn) -> bool:
        """Whether the same question has just been answered, and its sum changed nothing.

        So it is where k-means has converged. Sites would give a sum of it again only over the same
        sites, one of which may have gone.
        """
        return self.state.settled == content_of(self._request(turn))

    def _learn(self, learnt: State, received: Received, outcome: Outcome) -> None:
        """Go on from a state that was checked."""
        turn, kept = received.turn, {}
        if turn.step.keeps and self._study.privacy.secure_aggregation:
            kept = dict.fromkeys(turn.step.keeps, question_of(self._request(turn)))
        self.state.learnt, self.state.kept = learnt, self.state.kept | kept
        self._note(turn.step.name, turn.round, outcome, **turn.step.told(received))

    def _combined(self, received: Received) -> State:
        """The state after a turn.

        Raises:
            MessageError: It is not one that can be sent to sites.
        """
        learnt = received.turn.step.combine(self.state.learnt, received)
        check_state(learnt)
        return learnt

    def _settled(self, before: Received, outcome: Outcome, quorum: int) -> tuple[State, Received]:
        """The state after a turn, and of whose answers; a site that spoils it is left out.

        Raises:
            FederationError: No single site does, or without it there are too few.
        """
        received = self._received(before, list(outcome.replies.values()))
        try:
            return self._combined(received), received
        except MessageError as error:
            why = str(error)
        sites = list(outcome.replies)
        spoiling = [site for site in sites if self._without(site, self._anew(before), outcome)]
        healed = None
        if len(spoiling) == 1 and len(sites) > quorum:
            healed = self._without(spoiling[0], self._anew(before), outcome)
        if healed is None:
            self._rule = self._rule_at(self.state.learnt)
            raise FederationError(
                f"{before.turn.step.kind} round {shown_round(before.turn.round)}: what the answers "
                f"of {', '.join(spoiling or sites)} give cannot be right: {why}{GO_ON}"
            )
        outcome.refused[spoiling[0]] = f"with its answer the state cannot be right: {why}"
        del outcome.replies[spoiling[0]], outcome.nodes[spoiling[0]]
        return healed

    def _without(
        self, site: str, before: Received, outcome: Outcome
    ) -> tuple[State, Received] | None:
        """The state after a turn without one site; None where that cannot be right either."""
        others = [reply for name, reply in outcome.replies.items() if name != site]
        if not others:
            return None
        received = self._received(before, others)
        try:
            return self._combined(received), received
        except (MessageError, FederationError):
            return None

    def _anew(self, before: Received) -> Received:
        """With the rule as it was before the turn, as at a resume."""
        self._rule = self._rule_at(self.state.learnt)
        return replace(before, rule=self._rule)

    def _rule_at(self, learnt: State) -> Aggregator:
        """The study's rule as it was at a state."""
        rule = make_aggregator(self._study.federation)
        if learnt.optimiser:
            rule.restore(learnt.optimiser)
        return rule

    def _ask(self, turn: Turn) -> tuple[Outcome, int]:
        """The answers of all sites that have images of the step's role, and how many are needed."""
        step, study, learnt = turn.step, self._study, self.state.learnt
        at_least = self._rule.minimum if isinstance(step, Training) else 1
        limits = Limits.of(study, at_least)
        able, wanted = self.sites.able(step.kind, step.role, limits)
        said = self.state.sites

        def check(reply: Reply) -> None:
            check_reply(step, study, learnt, said[reply.site], reply)

        request = self._request(turn)
        outcome = exchange(self._grid, able, request, self._spec(turn), limits, check, self._keep)
        outcome.missing = with_absent(outcome, wanted)
        return outcome, limits.quorum

    def _received(self, before: Received, replies: list[Reply]) -> Received:
        """What some answers come to."""
        received = replace(before, replies=replies, sites=len(replies))
        if not isinstance(before.turn.step, Statistic):
            return received
        return replace(
            received,
            arrays={
                name: np.sum([reply.arrays[name] for reply in replies], axis=0)
                for name in replies[0].arrays
            },
            examples=float(sum(reply.examples for reply in replies)),
            deviation=noise_deviation(self._study, len(replies)),
        )

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
        """Apply the checks of single answers to their sum, where nobody sees the single ones."""
        study, sites = self._study, list(total.outcome.replies)
        examples = round(total.examples)
        reply = Reply(turn.step.kind, ALL_SITES, turn.round, examples, arrays=total.arrays)
        said = [self.state.sites[site] for site in sites]
        try:
            turn.step.check(study, self.state.learnt, reply, len(sites))
            check_amounts(turn.step, study, reply, said)
        except MessageError as error:
            raise self._wrong_sum(turn, sites, error) from None

    def _wrong_sum(self, turn: Turn, sites: list[str], error: MessageError) -> FederationError:
        """A sum that is wrong, and nobody sees by which site."""
        return FederationError(
            f"{turn.step.kind} round {shown_round(turn.round)}: the secure sum over "
            f"{', '.join(sites)} cannot be right: {error}. One of these sites has sent wrong "
            "numbers; which one, only they can find out, in their own logs. The state is on disk: "
            "run the same command again once it is mended or revoked"
        )

    def _request(self, turn: Turn) -> Request:
        """A request with all that a restarted site needs."""
        learnt = self.state.learnt
        arrays = learnt.arrays() | turn.step.asked(self._study, learnt)
        settings = dict(turn.settings)
        needs = turn.step.needs(self._study)
        if self._study.privacy.secure_aggregation and needs:
            kept = self.state.kept
            settings[KEPT] = {name: kept[name] for name in needs if name in kept}
        return Request(turn.step.kind, self._study, turn.round, settings, arrays)

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
