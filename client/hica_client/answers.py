"""Answers: every turn of a study's plan is answered once, and the same question with the same bits.

What was answered is kept at the site before it leaves. Asked again, because the coordinator was
restarted or a site was waited for, the site gives what it has given: no noise is drawn anew and
nothing more is spent. Another question in the place of one that was answered is refused: with
weights of its choice, and as many answers as it likes, a coordinator could take images out of them.

After the end of a study has been told, nothing of it is answered that was not answered before.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hica.errors import MessageError
from hica.steps.plan import plan
from hica.steps.result import RESULT
from hica.steps.step import Answer, Turn
from hica.steps.training import Training
from hica.study import Study
from hica.wire.checkpoint import has_state, load_state, save_state
from hica_client.ledger import Release

KEPT_ROUNDS = 2
"""Rounds of training whose weights are kept: a coordinator goes back by one at the most."""


@dataclass(frozen=True)
class Kept:
    """An answer as it lies at the site."""

    answer: Answer
    release: Release | None
    """What it costs; None: nothing."""
    sum_over: int | None
    """See `hica.privacy.release.Guarantee.sum_over`."""


class Answers:
    """What a site has answered in one study; `folder` is its own."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder
        self._turns = plan(study)

    def find(self, turn: Turn, question: str) -> Kept | None:
        """What was kept for a question; None where the turn is still to be answered.

        Raises:
            MessageError: The turn was answered to another question, or so long ago that its answer
                is not kept any more.
            CheckpointError: What was kept is damaged.
        """
        names = self._names(turn)
        answered = [name for name in names if has_state(self.folder, name)]
        for name in answered:
            arrays, meta = load_state(self.folder, name)
            if meta["question"] != question:
                continue
            if not meta["kept"]:
                raise MessageError(
                    f"{turn.title} was answered long ago, and the answer is not kept any more: "
                    "nothing leaves a second time"
                )
            release = Release(**meta["release"]) if meta["release"] else None
            answer = Answer(arrays, meta["examples"], meta["details"])
            return Kept(answer, release, meta["sum_over"])
        if len(answered) == len(names):
            raise MessageError(
                f"{turn.title} was answered here to another question, and each turn of a study is "
                "answered once. A coordinator whose run folder was lost, or set back, gives the "
                "study another name or seed; it is then approved as a new one"
            )
        return None

    def check_order(self, turn: Turn) -> None:
        """Refuse the first answer to a turn that no run would ask for now.

        The end may be told before all rounds are answered: a site may have been away, or could not
        answer, or has no images for them, and it does not know what the others were asked. So any
        answer of before is enough. A coordinator that tells the end early ends its study here.

        Raises:
            MessageError: The study is over here, or its end is told and it has not begun here.
        """
        if turn.step is RESULT:
            if not any(self.folder.glob("*.safetensors")):
                raise MessageError(
                    "this site has answered nothing of this study, so it gets no result of it"
                )
        elif any(has_state(self.folder, name) for name in self._names(self._turns[-1])):
            raise MessageError(
                f"{turn.title}: the study is over at this site, by the coordinator's own word: "
                "nothing more is answered of it"
            )

    def keep(self, turn: Turn, question: str, kept: Kept) -> None:
        """Keep an answer that is about to be charged and to leave.

        Raises:
            StorageError: The disk is full or may not be written; nothing may leave then.
        """
        free = (name for name in self._names(turn) if not has_state(self.folder, name))
        answer, release = kept.answer, kept.release
        meta = {
            "question": question,
            "kept": True,
            "examples": answer.examples,
            "details": answer.details,
            "release": asdict(release) if release else None,
            "sum_over": kept.sum_over,
        }
        save_state(self.folder, next(free), answer.arrays, meta)
        if isinstance(turn.step, Training) and turn.round >= KEPT_ROUNDS:
            self._forget(_stem(turn, turn.round - KEPT_ROUNDS) + "-0")

    def _forget(self, name: str) -> None:
        """Let go of the weights of an answer, and remember that there was one."""
        if has_state(self.folder, name):
            meta: dict[str, Any] = load_state(self.folder, name)[1] | {"kept": False}
            for _ in range(2):  # the state before it, too
                save_state(self.folder, name, {}, meta)

    def _names(self, turn: Turn) -> list[str]:
        """A name for each turn of the plan that a request for this one may mean."""
        alike = [
            each
            for each in self._turns
            if (each.step, each.round, each.settings) == (turn.step, turn.round, turn.settings)
        ]
        return [f"{_stem(turn, turn.round)}-{number}" for number in range(len(alike))]


def _stem(turn: Turn, round_: int) -> str:
    """Begin of the names of a turn's answers."""
    action = turn.settings.get("step", "answer")
    return f"{turn.step.kind}-{action}-{round_}"
