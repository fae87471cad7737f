"""The site's part in secure sums: its answers to the four exchanges around a masked answer.

What the sites need of each other goes by way of the coordinator (`hica.secure_sum`). The session
lives in memory. On disk is in which group a question was answered: the same question in another
group is refused, in whatever round, since from both sums the difference between the groups, which
may be one site, could be taken. That does not hold against a slightly different question; each turn
of a plan is answered once (`hica_client.answers`), and what a sum tells is bounded by differential
privacy alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from hica.deployment.keys import read_private
from hica.deployment.kit import read_roster
from hica.errors import MessageError
from hica.secure_sum.forms import content_of, integers_of, threshold_of
from hica.secure_sum.group import Group
from hica.secure_sum.party import Party
from hica.secure_sum.quantise import Integers
from hica.secure_sum.wire import (
    GROUP,
    SignedKeys,
    read_list,
    read_names,
    read_promises,
    read_sealed,
    read_session,
    read_signature,
    read_table,
)
from hica.steps.step import Answer, Step
from hica.steps.training import Training
from hica.wire.checkpoint import write_json
from hica.wire.messages import KEPT, Kind, Reply, Request
from hica_client.session import Session

GROUPS = "groups.json"
"""Beside what is kept of a study."""

Handler = Callable[[Session, Request], Reply]


class GroupError(MessageError):
    """A sum over other sites than the one before it of the same question."""

    def __init__(self, before: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.proof = {GROUP: ",".join(before)}


@dataclass
class Participation:
    """What a site holds of secure sums while it has a study prepared."""

    number: str = ""
    """Of the present session."""
    party: Party | None = None
    """This site in it."""
    question: str = ""
    """Hash of what it has answered in it."""
    content: str = ""
    """The same, without the round where the answer does not depend on it."""

    def present(self, number: str) -> Party:
        """This site in a session.

        Raises:
            MessageError: It takes part in no such session.
        """
        if self.party is None or number != self.number:
            raise MessageError(
                "this site takes no part in that session of a secure sum: it was restarted since, "
                "or the session is over. The sum goes on without it; the next one is a new session"
            )
        return self.party


_participations: WeakKeyDictionary[Session, Participation] = WeakKeyDictionary()


def keys(session: Session, request: Request) -> Reply:
    """Exchange 0: begin a session; whatever was left of another one is forgotten."""
    present, federation = _participation(session), session.site.federation
    present.number, present.party = read_session(request.settings.get("session")), None
    present.party = Party(
        session.name,
        read_private(federation.key),
        read_roster(federation.kit),
        request.study.sha256,
        present.number,
        threshold_of(request.study),
    )
    return _told(session, request, present.party.offer().to_json())


def shares(session: Session, request: Request) -> Reply:
    """Exchange 1: check all keys, hand out shares."""
    party = _party(session, request.settings)
    everybody = [SignedKeys.from_json(k) for k in read_list(request.settings.get("keys"), "keys")]
    return _told(session, request, party.deal(everybody).to_json())


def receive(session: Session, request: Request, step: Step, question: str) -> None:
    """Exchange 2, first half: a question whose answer will be masked; `question` is its hash.

    Raises:
        MessageError: The request is not part of a secure sum.
    """
    part = request.settings.get("sum")
    if not isinstance(part, dict):
        raise MessageError(
            f"the study has privacy.secure_aggregation, but {request.kind} was asked without it: "
            "nothing leaves; install the same version of hica on both sides"
        )
    party = _party(session, part)
    party.receive(_own_envelopes(part, session.name), read_promises(part.get("promises")))
    present = _participation(session)
    present.question = question
    by_round = isinstance(step, Training)  # the order of its batches is drawn by round
    present.content = present.question if by_round else content_of(request)


def check_kept(session: Session, request: Request, step: Step) -> None:
    """Refuse where the answer would depend on what was kept of another question than elsewhere.

    A coordinator could have told every site centroids of its own, or weights, so that the updates
    of all but one are next to nothing, and their sum is that one's.

    Raises:
        MessageError: Names what was kept.
    """
    told = request.settings.get(KEPT)
    for name in step.needs(session.study):
        own = session.kept_of(name)
        if own is not None and not (isinstance(told, dict) and told.get(name) == own):
            raise MessageError(
                f"what this site has kept ({name}) is of another question than that of the sum: it "
                "was away when the others were asked, or was asked something else. It takes part "
                "again once all have been asked anew"
            )


def masked(
    session: Session, request: Request, step: Step, answer: Answer
) -> Mapping[str, Integers]:
    """Exchange 2, second half: the answer as masked integers, whose sum over sites can be read."""
    present = _participation(session)
    party = present.present(present.number)
    sites = len(party.group.keys)
    arrays = integers_of(step, answer, request.study, request.arrays, sites)
    party.mask(arrays, present.question)
    return arrays


def survivors(session: Session, request: Request) -> Reply:
    """Exchange 3: agree to who is in the sum."""
    present, party = _participation(session), _party(session, request.settings)
    listed = read_names(request.settings.get("survivors"), "survivors")
    before = _groups(session).get(present.content, list(listed))
    if before != list(listed):
        raise GroupError(
            before,
            f"the same question was answered together with {', '.join(before)}, now the sum would "
            f"be over {', '.join(listed)}: the difference would tell about single sites. Wait "
            "until the same sites are there",
        )
    return _told(session, request, {"signature": party.sign(listed).hex()})


def unmask(session: Session, request: Request) -> Reply:
    """Exchange 4: what takes the masks off the sum; the session is over."""
    present, party = _participation(session), _party(session, request.settings)
    listed = read_names(request.settings.get("survivors"), "survivors")
    signatures = read_table(request.settings.get("signatures"), "signatures", read_signature)
    told = party.unmask(listed, signatures).to_json()
    groups = _groups(session) | {present.content: list(listed)}
    write_json(session.state / GROUPS, groups)  # before anything leaves
    present.party = None  # and with it all keys
    return _told(session, request, told)


EXCHANGES: dict[str, Handler] = {
    Kind.KEYS: keys,
    Kind.SHARES: shares,
    Kind.SURVIVORS: survivors,
    Kind.UNMASK: unmask,
}


def group_of(session: Session) -> Group:
    """The sites among whose answers this one's is being masked.

    Raises:
        MessageError: No secure sum is under way.
    """
    present = _participation(session)
    return present.present(present.number).group


def _groups(session: Session) -> dict[str, list[str]]:
    """Question → the sites whose sum this site has helped to uncover."""
    path = session.state / GROUPS
    groups: dict[str, list[str]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return groups


def _participation(session: Session) -> Participation:
    return _participations.setdefault(session, Participation())


def _party(session: Session, table: Mapping[str, Any]) -> Party:
    return _participation(session).present(read_session(table.get("session")))


def _own_envelopes(part: Mapping[str, Any], site: str) -> dict[str, bytes]:
    """What is addressed to this site; what is for others is not looked at."""
    everybody = part.get("sealed")
    own = everybody.get(site) if isinstance(everybody, dict) else None
    return read_table(own, "sealed", read_sealed)


def _told(session: Session, request: Request, details: dict[str, Any]) -> Reply:
    return Reply(request.kind, session.name, request.round, details=details)
