"""What coordinator and site say to each other: requests and replies.

How they travel as Flower's records, and what is checked when they arrive: `hica.wire.records`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from hica.errors import HicaError, MessageError
from hica.study import Study

Arrays = Mapping[str, NDArray[Any]]
Spec = dict[str, tuple[tuple[int, ...], str]]
"""Expected arrays: name → (shape, dtype name). A shape entry of -1 allows any length."""


def shown_round(number: int) -> int:
    """The number of a round for people, who count from 1: requests and records count from 0."""
    return number + 1


class Kind(StrEnum):
    """Kinds of messages that are no step of a study: who is there, and the parts of a secure sum.

    A kind is Flower's message type, `category.action`. Every step has its own (`hica.steps`).
    """

    CAPABILITIES = "query.capabilities"
    KEYS = "query.keys"
    SHARES = "query.shares"
    SURVIVORS = "query.survivors"
    UNMASK = "query.unmask"


SECURE_SUM = (Kind.KEYS, Kind.SHARES, Kind.SURVIVORS, Kind.UNMASK)
"""What sites say to each other, so that only sums of their answers can be seen."""


KEPT = "kept"
"""Setting of a request in a secure sum: name of what sites have kept → hash of the question of
which they kept it. As the question of the sum holds it, too, no two sites can be told different."""
BESIDE = ("sum", KEPT)
"""Settings that are of the secure sum, not of the plan's turn."""


@dataclass(frozen=True)
class Request:
    """What the coordinator asks of a site; complete in itself, so a restarted site can answer."""

    kind: str
    study: Study
    round: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What a site answers: arrays, how many examples stand behind them, and details in JSON."""

    kind: str
    site: str
    round: int = 0
    examples: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


class SiteError(MessageError):
    """A site that says in words why it could not do what was asked; `error` names the class.

    `accuses` is what it says to show that another site is at fault, not checked yet.
    """

    def __init__(self, site: str, reason: str, error: str, accuses: object = None) -> None:
        super().__init__(f"failed at the site: {reason}")
        self.site = site
        self.error = error
        self.accuses: Mapping[str, Any] = accuses if isinstance(accuses, dict) else {}


def failure(kind: str, site: str, round_: int, reason: str, error: Exception) -> Reply:
    """The reply of a site that could not do what was asked."""
    details: dict[str, Any] = {"failed": reason, "error": type(error).__name__}
    if isinstance(error, HicaError) and error.proof is not None:
        details["proof"] = dict(error.proof)
    return Reply(kind, site, round_, details=details)


def spec_of(arrays: Mapping[str, NDArray[Any]]) -> Spec:
    """The spec that `arrays` themselves satisfy."""
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}
