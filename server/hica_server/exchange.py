"""One exchange with the sites: ask, wait until the deadline, check, count, ask again below quorum.

The late and the failed are counted, named and left out. Nothing a site sends is used before
`hica.wire.messages` and the checks here have passed it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from flwr.app import Message
from flwr.serverapp import Grid

from hica.errors import FederationError, MessageError
from hica.study import Study
from hica.wire.messages import Reply, Request, SiteError, Spec, shown_round
from hica.wire.records import decode_reply, encode_request, payload_bytes

logger = logging.getLogger("hica.server")

POLL_SECONDS = 1.0
"""Between two looks at who is connected, while those are too few."""
GO_ON = ". The state is on disk: mend the sites and run the same command again"
"""After the reasons why an exchange failed."""
MOST_CHARACTERS = 1000
"""Kept of why an answer is refused, which may be in the words of its site."""

Check = Callable[[Reply], None]
"""Raises MessageError where a reply that is well-formed must still not be used."""
Accused = Callable[[str, SiteError], None]
"""Hears of a site that says why it could not, which may be the fault of another one."""
Keep = Callable[[Reply], Reply]
"""Puts a reply where it waits for the others; see `hica_server.disk_offload`."""


@dataclass
class Outcome:
    """What came of an exchange."""

    replies: dict[str, Reply] = field(default_factory=dict)
    """Usable replies by site, in the order of names."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Node id of each site in `replies`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Site → why its answer was not used, over all tries."""
    missing: list[str] = field(default_factory=list)
    """Sites that did not answer by the deadline of the last try."""
    seconds: float = 0.0
    """From the first question to the last answer."""
    bytes_down: int = 0
    """Sent to sites, over all tries."""
    bytes_up: int = 0
    """Received from sites, over all tries."""


class QuorumError(FederationError):
    """Fewer usable answers than needed; `why` is without the remedy."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}{GO_ON}")
        self.why = why


@dataclass(frozen=True)
class Limits:
    """How long is waited for how many answers, and how often it is tried again."""

    quorum: int
    deadline: float
    retries: int
    source: str = "federation.quorum"
    """What `quorum` is of, for errors."""

    @classmethod
    def of(cls, study: Study, at_least: int = 1) -> Self:
        """The study's deadline, retries and quorum; a rule or a secure sum may need more sites."""
        federation = study.federation
        quorum = max(federation.quorum, at_least)
        return cls(quorum, federation.deadline, federation.retries)


def exchange(
    grid: Grid,
    nodes: Mapping[int, str],
    request: Request,
    spec: Spec,
    limits: Limits,
    check: Check | None = None,
    keep: Keep = lambda reply: reply,
    accused: Accused = lambda *_: None,
) -> Outcome:
    """Ask `nodes` and return the usable replies, at least `limits.quorum` of them.

    Who is not connected is not asked, but waited for where the quorum needs it. `nodes` maps node
    id to site name ("" while it is not known yet), and `spec` names the arrays a reply must hold. A
    reply that passes `check` goes through `keep`; `accused` is told of a site that has failed.

    Raises:
        QuorumError: Below quorum after every retry; names who failed and why.
    """
    outcome = Outcome()
    question = _Question(grid, request, spec, limits.deadline, check, keep, accused, outcome)
    started = time.monotonic()
    for attempt in range(limits.retries + 1):
        answered = set(outcome.nodes.values())
        waiting = {node: site for node, site in nodes.items() if node not in answered}
        needed = min(limits.quorum - len(outcome.replies), len(waiting))
        connected = _connected(grid, waiting, needed, limits.deadline)
        question.ask(connected)
        absent = [_label(node, waiting[node]) for node in waiting.keys() - connected.keys()]
        outcome.missing = sorted(outcome.missing + absent)
        if len(outcome.replies) >= limits.quorum:
            break
        logger.warning(
            "%s round %d: %d of %d sites answered (quorum %d), try %d of %d",
            request.kind,
            shown_round(request.round),
            len(outcome.replies),
            len(nodes),
            limits.quorum,
            attempt + 1,
            limits.retries + 1,
        )
    outcome.seconds = time.monotonic() - started
    outcome.replies = dict(sorted(outcome.replies.items()))
    if len(outcome.replies) < limits.quorum:
        reasons = [f"{site}: {why}" for site, why in sorted(outcome.refused.items())]
        reasons += [f"{site}: no answer within {limits.deadline:g} s" for site in outcome.missing]
        raise QuorumError(
            f"{request.kind} round {shown_round(request.round)}: {len(outcome.replies)} of "
            f"{len(nodes)} sites gave a usable answer, {limits.source} is {limits.quorum} "
            f"({'; '.join(reasons) or 'no further site is connected'})"
        )
    return outcome


def _connected(grid: Grid, nodes: Mapping[int, str], needed: int, seconds: float) -> dict[int, str]:
    """Those of `nodes` that are connected; as long as they are fewer than `needed`, wait."""
    ends = time.monotonic() + seconds
    told = False
    while True:
        present = set(grid.get_node_ids())
        connected = {node: site for node, site in nodes.items() if node in present}
        if len(connected) >= needed or time.monotonic() >= ends:
            return connected
        if not told:
            absent = ", ".join(
                _label(node, nodes[node]) for node in nodes.keys() - connected.keys()
            )
            logger.warning("%s not connected: waiting up to %g s", absent, seconds)
            told = True
        time.sleep(POLL_SECONDS)


@dataclass
class _Question:
    """What `exchange` asks in each of its tries, and what has come of them."""

    grid: Grid
    request: Request
    spec: Spec
    deadline: float
    check: Check | None
    keep: Keep
    accused: Accused
    outcome: Outcome

    def ask(self, nodes: Mapping[int, str]) -> None:
        """One try: send, collect, sort every site into replies, refused or missing."""
        kind, outcome = self.request.kind, self.outcome
        silent = dict(nodes)
        for message in self._sent(nodes):
            node = message.metadata.src_node_id
            site = silent.pop(node, None)
            if site is None:
                logger.warning("answer of node %s, which was not asked: ignored", node)
                continue
            label = _label(node, site)
            try:
                reply = self._checked(message, site)
            except MessageError as error:
                if isinstance(error, SiteError):
                    label = site or error.site  # it has said its name, though not what was asked
                    self.accused(label, error)
                outcome.refused[label] = _legible(str(error))
                logger.warning("%s: %s refused: %s", kind, label, outcome.refused[label])
            else:
                outcome.replies[reply.site] = self.keep(reply)
                outcome.nodes[reply.site] = node
                for name in (label, reply.site):
                    outcome.refused.pop(name, None)
                del reply
            del message  # or it would be held while the next one comes
        outcome.missing = sorted(_label(node, site) for node, site in silent.items())
        if outcome.missing:
            logger.warning("%s: no answer from %s", kind, ", ".join(outcome.missing))

    def _sent(self, nodes: Mapping[int, str]) -> Iterable[Message]:
        """Ask; returns the answers to come. What was sent is not held until then."""
        record = encode_request(self.request)
        self.outcome.bytes_down += payload_bytes(record) * len(nodes)
        kind, round_ = str(self.request.kind), str(self.request.round)
        return self.grid.send_and_receive(
            [Message(record, node, kind, group_id=round_) for node in nodes], timeout=self.deadline
        )

    def _checked(self, message: Message, site: str) -> Reply:
        if message.has_error():
            raise MessageError(f"failed at the site: {message.error.reason}")
        self.outcome.bytes_up += payload_bytes(message.content)
        reply = decode_reply(message.content, self.request.kind, self.request.round, self.spec)
        if site and reply.site != site:
            raise MessageError(f"answers as {reply.site!r}")
        if reply.site in self.outcome.replies:
            raise MessageError(f"two nodes answer as {reply.site!r}: give every site its own name")
        if self.check is not None:
            self.check(reply)
        return reply


def _label(node: int, site: str) -> str:
    """What a node is called: its site, once that is known."""
    return site or f"node {node}"


def _legible(words: str) -> str:
    """What a log and a report can hold of a reason: one line of no more than they have room for."""
    kept = words[:MOST_CHARACTERS]
    return "".join(letter if letter.isprintable() else " " for letter in kept)
