"""An active coordinator: crafted requests (`trap`) to the attacked site, and what they tell of it.

The site is a real one: its session, its ledger and its kept answers lie in a copy of its folder,
and every request goes through `hica_client.app.answer`. What is sought are the embeddings of its
shots. Five things are tried:

- crafted weights, where nothing is checked: what a client without checks would tell;
- the same weights to the real site;
- a window on one feature, in every round of the plan: a site refuses its scale;
- what is allowed, in every round: other probes each time;
- the turn that was answered, asked again with other probes, as often as there are rounds.

In the secure setting the coordinator reads the sum over all sites; that it gets no other sum, by
asking fewer sites or different ones, is held by the tests of `hica_client.secure`.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from hica.errors import HicaError
from hica.privacy.noise import SeededNoise
from hica.progress import track
from hica.seeds import derived_seed
from hica.steps.alignment import ALIGNMENT
from hica.steps.plan import plan
from hica.steps.state import Bank, State
from hica.steps.step import Turn
from hica.study import Study
from hica.wire.messages import Request
from hica.wire.weight_names import BANK_CLASSES
from hica_client.app import answer
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.experiments.audit.settings import Setting
from hica_simulations.experiments.audit.site_side import mean_change, round_change
from hica_simulations.experiments.audit.trap import (
    AUDIBLE,
    FAINT,
    LOUD,
    QUIET,
    Change,
    Known,
    Trap,
    bins,
    cosines,
    embeddings,
    gradient_of_step,
    known_of,
    probes,
    window,
)
from hica_simulations.experiments.audit.world import Start, World, make_start
from hica_simulations.place import Place
from hica_simulations.site_files import policy_of

STUDIES = 8
"""Times that a whole study is attacked within what is allowed, each from a fresh folder."""
FOUND, NEAR = 0.99, 0.9
"""Cosines from which an embedding counts as recovered, or nearly so."""

REQUESTS = {
    "unchecked": "crafted weights, nothing checked",
    "refused": "crafted weights",
    "window": "a window on one feature",
    "allowed": "what is allowed, every round",
    "again": "the same turn again",
}


@dataclass(frozen=True)
class Told:
    """What a kind of request has told.

    Attributes:
        request: One of `REQUESTS`.
        asked, answered: Requests to the attacked site, and how many it has answered.
        images: Its shots.
        found, near: How many of them were recovered, mean over studies.
        most: How many in the study in which it was most.
        best: The best cosine.
        guess: That of a guess: class means at another site.
        said: The first refusal.
    """

    setting: str
    request: str
    asked: int
    answered: int
    images: int
    found: float
    near: float
    most: int
    best: float
    guess: float
    said: str


@dataclass(frozen=True)
class Attack:
    """A setting under attack.

    Attributes:
        known: What the coordinator knows beside.
        truth: Embeddings of the attacked site's shots [n, V, D].
        guess: Candidates that need no answer.
    """

    world: World
    place: Place
    setting: Setting
    start: Start
    known: Known
    truth: Tensor
    guess: Tensor

    @property
    def study(self) -> Study:
        """That of the setting."""
        return self.setting.training

    @property
    def turns(self) -> list[Turn]:
        """The rounds of stage 2."""
        return [turn for turn in plan(self.study) if turn.step is ALIGNMENT]

    def sessions(self, folder: Path) -> list[Session]:
        """The sites that are seen, the attacked one first, each in a copy of its folder."""
        hospitals = self.world.hospitals[: None if self.setting.summed else 1]
        return [self._session(hospital.name, folder) for hospital in hospitals]

    def _session(self, name: str, folder: Path) -> Session:
        path = folder / name / "site.toml"
        path.parent.mkdir(parents=True)
        site = (self.place.out / "sites" / name / "site.toml").read_text(encoding="utf-8")
        path.write_text(site + tomli_w.dumps({"policy": policy_of(self.study)}), encoding="utf-8")
        return Session(load_site(path), self.study)

    def window(self, at: float) -> Trap:
        """A window at a quantile of known images."""
        width = self.study.model.adapter_width
        return window(self.known, len(self.study.classes), width, at)

    def allowed(self, turn: Turn, seed: int) -> Trap:
        """A trap within what is allowed; in the first round its weights are the start's."""
        size = AUDIBLE if self.setting.is_private else QUIET
        up = size if turn.round else 0.0
        width = self.study.model.adapter_width
        return probes(self.known, len(self.study.classes), width, seed, up)

    def sent(self, trap: Trap) -> dict[str, Tensor]:
        """The weights of a trap's request."""
        weights = self.start.weights | trap.weights
        if trap.classes is not None and BANK_CLASSES in weights:
            weights[BANK_CLASSES] = trap.classes
        return weights

    def ask(self, session: Session, turn: Turn, trap: Trap) -> Change:
        """What a real site's answer says of its weights' change; raises what it refuses."""
        dtype, sent = self.study.federation.dtype, self.sent(trap)
        classes, findings = self.start.anchor
        texts = classes if trap.classes is None else trap.classes
        state = State(
            {name: value.cpu().numpy().astype(dtype) for name, value in sent.items()},
            Bank(texts.cpu().numpy(), findings.cpu().numpy()),
            trap.centre.cpu().numpy(),
            trap.scale.cpu().numpy(),
            self.start.model.bias.double().cpu().numpy(),
        )
        settings = dict(turn.settings)
        request = Request(ALIGNMENT.kind, self.study, turn.round, settings, state.arrays())
        arrays = answer(session, request).arrays
        return {
            name: torch.from_numpy(arrays[f"shared.{name}"]).double() - value.cpu().double()
            for name, value in sent.items()
        }

    def unchecked(self, session: Session, trap: Trap) -> Change:
        """The same without any check: the first round, by the functions that the client calls."""
        model, number = self.start.model, derived_seed(self.study.study.seed, session.name, "trap")
        model.centre.copy_(trap.centre)
        model.scale.copy_(trap.scale)
        crafted = replace(self.start, weights=self.sent(trap))
        noise, order = SeededNoise(number), torch.Generator().manual_seed(number)
        shots, told = session.examples("labelled"), session.told("labelled")
        change = round_change(self.setting, crafted, shots, told, noise, order)
        return {name: value.cpu() for name, value in change.items()}

    def read(self, trap: Trap, changes: Sequence[Change], turn: Turn) -> Tensor:
        """Candidates [m, D] from the mean of the sites' changes."""
        stage, sent = self.study.alignment, self.sent(trap)
        rate = stage.learning_rate * float(turn.settings["rate"])
        change = mean_change([dict(each) for each in changes])
        here = {name: value.cpu() for name, value in sent.items()}
        return trap.read(gradient_of_step(change, here, rate, stage.weight_decay))

    def told(self, request: str, tally: "Tally") -> dict[str, Any]:
        """A row of the table."""
        found = [self._recovered(rows) for rows in tally.studies] or [self.truth.new_zeros(1)]
        over = [[int((each > least).sum()) for each in found] for least in (FOUND, NEAR)]
        row = Told(
            setting=self.setting.name,
            request=request,
            asked=tally.asked,
            answered=tally.answered,
            images=len(self.truth),
            found=sum(over[0]) / len(found),
            near=sum(over[1]) / len(found),
            most=max(over[0]),
            best=max(float(each.max()) for each in found),
            guess=float(cosines(self.guess, self.truth).max()),
            said=tally.said,
        )
        return asdict(row)

    def _recovered(self, candidates: list[Tensor]) -> Tensor:
        """Of each shot the best cosine in a study; 0 where nothing was answered."""
        if not candidates:
            return self.truth.new_zeros(len(self.truth))
        return cosines(torch.cat(candidates), self.truth)


class Tally:
    """Requests of one kind, and what came of them.

    Attributes:
        studies: Of each study that was attacked the candidates that its answers gave.
    """

    def __init__(self) -> None:
        self.asked = self.answered = 0
        self.said = ""
        self.studies: list[list[Tensor]] = []

    def take(self, attack: Attack, sessions: Sequence[Session], turn: Turn, trap: Trap) -> None:
        """Ask all sites that are seen, and read what comes back."""
        self.asked += 1
        try:
            changes = [attack.ask(session, turn, trap) for session in sessions]
        except HicaError as error:
            self.said = self.said or str(error)
            return
        self.answered += 1
        self.studies[-1].append(attack.read(trap, changes, turn))


def attack_actively(world: World, place: Place, setting: Setting) -> list[dict[str, Any]]:
    """All crafted requests in one setting; an entry of `Told` for each kind of request.

    None where the study trains no adapter, which is what the traps are made for.
    """
    if setting.training.model.train != "adapter":
        return []
    with tempfile.TemporaryDirectory() as folder:
        attack, sessions = _prepared(world, place, setting, Path(folder))
        trap = bins(
            attack.known,
            attack.start.anchor[0].cpu(),
            attack.study.model.adapter_width,
            attack.start.model.centre.cpu(),
            LOUD if setting.is_private else FAINT,
        )
        turn = attack.turns[0]
        open_, refused, narrow = Tally(), Tally(), Tally()
        open_.asked = open_.answered = 1
        changes = [attack.unchecked(session, trap) for session in sessions]
        open_.studies = [[attack.read(trap, changes, turn)]]
        refused.studies = [[]]
        refused.take(attack, sessions, turn, trap)
        narrow.studies = [[]]
        for step, turn in enumerate(attack.turns, start=1):
            trap = attack.window(step / (len(attack.turns) + 1))
            narrow.take(attack, sessions, turn, trap)
        allowed, again = _within_bounds(attack, Path(folder))
        tallies = (open_, refused, narrow, allowed, again)
        return [
            attack.told(request, tally) for request, tally in zip(REQUESTS, tallies, strict=True)
        ]


def _prepared(
    world: World, place: Place, setting: Setting, folder: Path
) -> tuple[Attack, list[Session]]:
    """The attack, and sites for its first three kinds of request."""
    start = make_start(world, setting.training)
    others = [hospital.pool for hospital in world.hospitals[1:]] or [world.hospitals[0].pool]
    known = known_of(others, setting.is_private)
    labels, rows = others[-1].labels, known.normed[-1]
    means = [rows[labels == label].mean(dim=0) for label in sorted(set(labels.tolist()))]
    guess = torch.stack(means) - known.mean
    attack = Attack(world, place, setting, start, known, torch.zeros(0), guess)
    sessions = attack.sessions(folder / "crafted")
    truth = embeddings(sessions[0].examples("labelled"), known)
    return replace(attack, truth=truth), sessions


def _within_bounds(attack: Attack, folder: Path) -> tuple[Tally, Tally]:
    """Studies in which every round asks for what is allowed, and each round more than once."""
    allowed, again = Tally(), Tally()
    turns = attack.turns
    others = len(turns) * STUDIES
    for number in track(range(STUDIES), f"{attack.setting.title}: crafted requests", STUDIES):
        sessions = attack.sessions(folder / str(number))
        allowed.studies.append([])
        again.studies.append([])
        for turn in turns:
            seed = STUDIES * turn.round + number
            allowed.take(attack, sessions, turn, attack.allowed(turn, seed))
            again.take(attack, sessions, turn, attack.allowed(turn, seed + others))
    return allowed, again
