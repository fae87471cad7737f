"""A scripted site that takes part in secure sums, for tests of the coordinator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flwr.app import Message, RecordDict

from hica.deployment.keys import PublicKey
from hica.errors import MessageError
from hica.secure_sum.forms import integers_of, question_of, threshold_of
from hica.secure_sum.party import Party
from hica.secure_sum.wire import SignedKeys, read_promises
from hica.steps.plan import turn_of
from hica.steps.step import Answer
from hica.wire.messages import Kind, Reply, Request, failure
from hica.wire.records import decode_request, encode_reply
from hica_client.secure import GroupError

Change = Callable[[Reply], Reply | None]


class SecureSite:
    """A site of the protocol around a scripted one.

    Attributes:
        site: Gives the answers that are masked.
        silent: Kinds that are not answered, each as often as it is in the list.
        changes: What is done to an answer on its way, by kind.
        sessions: Number of every session it was asked to take part in.
        uncovered_over: Sites over which it says to have helped to uncover the sum before.
    """

    def __init__(self, site: Any, key: Any, registered: dict[str, PublicKey]) -> None:
        self.site, self.name = site, site.name
        self.key, self.registered = key, registered
        self.silent: list[str] = []
        self.changes: dict[str, Change] = {}
        self.sessions: list[str] = []
        self.asked: list[str] = []
        self.uncovered_over: list[str] | None = None

    def __call__(self, message: Message) -> RecordDict | None:
        kind = message.metadata.message_type
        self.asked.append(kind)
        if kind in self.silent:
            self.silent.remove(kind)
            return None
        request = decode_request(message.content, kind)
        try:
            reply = self.reply(request)
        except MessageError as error:
            reply = failure(kind, self.name, request.round, str(error), error)
        changed = self.changes.get(kind, lambda same: same)(reply)
        return None if changed is None else encode_reply(changed)

    def reply(self, request: Request) -> Reply:
        empty, told = Reply(request.kind, self.name, request.round), request.settings
        if request.kind == Kind.KEYS:
            self.sessions.append(told["session"])
            self.party = Party(
                self.name,
                self.key,
                self.registered,
                request.study.sha256,
                told["session"],
                threshold_of(request.study),
            )
            return replace(empty, details=self.party.offer().to_json())
        if request.kind == Kind.SHARES:
            keys = [SignedKeys.from_json(each) for each in told["keys"]]
            return replace(empty, details=self.party.deal(keys).to_json())
        if request.kind == Kind.SURVIVORS:
            if self.uncovered_over not in (None, list(told["survivors"])):
                raise GroupError(self.uncovered_over, "answered over others before")
            return replace(empty, details={"signature": self.party.sign(told["survivors"]).hex()})
        if request.kind == Kind.UNMASK:
            signatures = {site: bytes.fromhex(each) for site, each in told["signatures"].items()}
            shares = self.party.unmask(told["survivors"], signatures)
            return replace(empty, details=shares.to_json())
        self.site.requests.append(request)
        reply = self.site.reply(request)
        if request.kind == Kind.CAPABILITIES or not (step := turn_of(request).step).in_sum:
            return reply
        sealed = told["sum"]["sealed"][self.name]
        self.party.receive(
            {site: bytes.fromhex(each) for site, each in sealed.items()},
            read_promises(told["sum"]["promises"]),
        )
        sites = len(self.party.group.keys)
        answer = Answer(reply.arrays, reply.examples, reply.details)
        arrays = integers_of(step, answer, request.study, request.arrays, sites)
        self.party.mask(arrays, question_of(request))
        return replace(empty, arrays=arrays)
