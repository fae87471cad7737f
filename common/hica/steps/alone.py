"""Alone: what a site learns by a study's recipe with nobody else. Nothing of it leaves.

It is a federation of one, whose turns are taken at the site: so a hospital sees what joining gave.
Nobody has to be protected from it, so it has neither noise nor masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hica.steps.centre import CENTRE
from hica.steps.plan import plan
from hica.steps.state import Bank, State, Weights
from hica.steps.step import Kept, Received, SiteData, Stage, Statistic, Turn, Update
from hica.steps.training import Training, plain_trainer
from hica.study import Study, changed
from hica.wire.messages import Reply, Request
from hica.wire.weight_names import BANK_CLASSES, BANK_FINDINGS

if TYPE_CHECKING:
    from hica.method.model import AlignmentModel

ALONE = {
    "federation": {"quorum": 1, "aggregation": "mean"},
    "privacy": {"mechanism": "none", "secure_aggregation": False, "noise": "local"},
    "personal": {"epochs": 0},
}


class Learner(SiteData, Protocol):
    """A site that can take a study's turns by itself."""

    @property
    def start(self) -> Weights:
        """The trained weights before any training, by name; of a trained text bank zeros."""

    def model(self, state: State, centred: bool = True) -> AlignmentModel:
        """The study's model with what was learnt."""

    def keep(self, kept: Mapping[str, Kept], question: str) -> None:
        """Keep what later steps depend on."""


def alone(study: Study) -> Study:
    """The same recipe without others; of one site, its own centre is that of all."""
    centring = "none" if study.alignment.centring == "none" else "global"
    return changed(study, ALONE, {"alignment": {"centring": centring}})


def adapting(study: Study) -> Study:
    """The recipe by which a site adapts the shared model: stage 2 alone, in one long round.

    Its rate does not fall, and AdamW's moments are not forgotten between rounds: 16 epochs so were
    better than 16 in rounds, and 32 better still (seeds 31 and 32 of the study chest-xray).
    """
    one = {"rounds": 1, "local_epochs": study.personal.epochs}
    return changed(alone(study), {"alignment": one})


def learnt_alone(site: Learner, texts: Bank) -> State:
    """What a site's shots and images give by themselves, from texts that nothing was learnt of.

    The site's study is one that `alone` has made. Every random draw is that of the site's rounds in
    the federation.

    Raises:
        HicaError: An image cannot be read any more.
    """
    turns = [turn for turn in plan(site.study) if turn.at[0] < Stage.END]
    return _walked(site, start_of(site, texts), turns)


def adapted(site: Learner, learnt: State) -> State:
    """What a site's shots make of what all have learnt.

    The site's study is one that `adapting` has made. The intercepts are its own.

    Raises:
        HicaError: An image cannot be read any more.
    """
    turns = [
        turn
        for turn in plan(site.study)
        if Stage.ALIGNMENT <= turn.at[0] < Stage.END
        or (turn.step is CENTRE and turn.at[0] == Stage.START)
    ]
    return _walked(site, replace(learnt, bias=np.zeros_like(learnt.bias)), turns)


def _walked(site: Learner, state: State, turns: Sequence[Turn]) -> State:
    """The state after some turns that the site takes by itself."""
    for turn in turns:
        if turn.optional:
            continue
        if not turn.step.kind:
            state = turn.step.combine(state, Received(site.study, turn, OnlyOne()))
        elif turn.step.role is None or site.size(turn.step.role):
            state = turn.step.combine(state, _answered(site, turn, state))
    return state


def start_of(site: Learner, texts: Bank) -> State:
    """The state before the first turn."""
    dtype = site.study.federation.dtype
    shared = {name: value.astype(dtype) for name, value in site.start.items()}
    if site.study.alignment.train_text_bank:
        shared[BANK_CLASSES] = texts.classes.astype(dtype)
        shared[BANK_FINDINGS] = texts.findings.astype(dtype)
    width = texts.classes.shape[1]
    return State(
        shared=shared,
        bank=texts,
        centre=np.zeros((2, width), np.float32),
        scale=np.ones((2, width), np.float32),
        bias=np.zeros(len(site.study.classes)),
    )


def _answered(site: Learner, turn: Turn, state: State) -> Received:
    """What the site's answer to a turn comes to."""
    step, study = turn.step, site.study
    arrays = state.arrays() | step.asked(study, state)
    request = Request(step.kind, study, turn.round, dict(turn.settings), arrays)
    model = site.model(state, step.centred)
    if isinstance(step, Training):
        found = step.taught(site, model, request, plain_trainer(site, request))
    else:
        found = step.answer(site, model, request)
    site.keep(found.keep, "")
    reply = Reply(
        step.kind, site.name, turn.round, found.examples, found.details, dict(found.arrays)
    )
    received = Received(study, turn, OnlyOne(), [reply], sites=1)
    if not isinstance(step, Statistic):
        return received
    return replace(received, arrays=found.arrays, examples=float(found.examples))


class OnlyOne:
    """The aggregation rule of one site: the next weights are its own."""

    last_discarded = 0.0

    def aggregate(self, round: int, current: Weights, updates: Sequence[Update]) -> Weights:
        """The weights of the only update."""
        del round, current
        (update,) = updates
        return dict(update.arrays)

    def state(self) -> dict[str, Any]:
        """Nothing: it has none."""
        return {}
