"""A secure sum over Flower's grid: five exchanges with the sites, and the sum is all one learns.

The protocol and what it holds against are in `hica.secure_sum`. A site that does not answer one of
the first three exchanges in time has dropped out, and the sum is that of the others; below the
threshold there is none, and the next try is another session with new keys. Of a site that is shown
to have dealt wrong shares the next session is without it; one that gives back another share than it
was dealt is named, and the sum is made from the shares of the others.
"""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flwr.serverapp import Grid

from hica.deployment.keys import PublicKey
from hica.errors import FederationError, MessageError
from hica.secure_sum.collector import Collector, LiarError
from hica.secure_sum.forms import (
    EXAMPLES,
    LOSS,
    masked_spec,
    question_of,
    threshold_of,
    values_of,
)
from hica.secure_sum.group import verified
from hica.secure_sum.wire import (
    GROUP,
    SESSION_BYTES,
    Deal,
    SignedKeys,
    Unmasking,
    signature_of,
)
from hica.steps.step import Step
from hica.wire.details import Nothing
from hica.wire.messages import Arrays, Kind, Reply, Request, SiteError, Spec, shown_round
from hica_server.exchange import GO_ON, Limits, Outcome, QuorumError, exchange

logger = logging.getLogger("hica.server")


@dataclass(frozen=True)
class SecureSum:
    """What the sites' answers add up to, all that is known of them."""

    arrays: Arrays
    """Name → Σ over sites; of an update, of weighted changes."""
    examples: float
    """Σ of examples."""
    loss: float
    """Σ of losses over examples; 0 where nothing was trained."""
    outcome: Outcome
    """Who took part, and what it took; its replies hold no arrays."""


def secure_exchange(
    grid: Grid,
    nodes: Mapping[int, str],
    request: Request,
    step: Step,
    spec: Spec,
    limits: Limits,
    registered: Mapping[str, PublicKey] | None = None,
) -> SecureSum:
    """Ask `nodes` (id → site) and return the sum over at least the threshold of them.

    `spec` is that of an answer in the clear; the deadline of `limits` is that of each of the five
    exchanges. `registered` holds the sites' public keys, where the coordinator has them: a site
    whose keys are not its own is left out then, instead of being refused by every other one.

    Raises:
        FederationError: Below the threshold in every try; names who failed and why.
    """
    spent, trusted, attempt, why = Outcome(), dict(nodes), 0, ""
    while attempt <= limits.retries:
        session = _Session(grid, trusted, request, step, spec, limits, registered or {}, spent)
        try:
            return session.sum()
        except _OtherGroupError as other:
            why = str(other)
            trusted = {node: site for node, site in trusted.items() if site in other.group}
            logger.warning("%s round %d: %s", request.kind, shown_round(request.round), other)
        except LiarError as liar:
            why, spent.refused[liar.site] = str(liar), str(liar)
            trusted = {node: site for node, site in trusted.items() if site != liar.site}
            logger.warning("%s round %d: %s", request.kind, shown_round(request.round), liar)
        except (FederationError, MessageError) as error:
            why, attempt = error.why if isinstance(error, QuorumError) else str(error), attempt + 1
            logger.warning(
                "%s round %d: no secure sum, try %d of %d: %s",
                request.kind,
                shown_round(request.round),
                attempt,
                limits.retries + 1,
                error,
            )
    raise FederationError(
        f"{request.kind} round {shown_round(request.round)}: no secure sum, and nothing was "
        f"learnt of any site: {why}{GO_ON}, which starts with new keys"
    )


class _OtherGroupError(Exception):
    """A sum of the same question was uncovered over fewer sites."""

    def __init__(self, group: list[str]) -> None:
        super().__init__(f"its sum was uncovered over {', '.join(group)} before: asked of these")
        self.group = group


@dataclass
class _Session:
    """One try; `present` are the nodes and sites that have not dropped out of it."""

    grid: Grid
    present: dict[int, str]
    request: Request
    step: Step
    spec: Spec
    limits: Limits
    registered: Mapping[str, PublicKey]
    spent: Outcome

    def __post_init__(self) -> None:
        self._wrong: dict[str, str] = {}  # site → why the share it has given back is not used
        self._number = secrets.token_hex(SESSION_BYTES)
        self._sum_terms = threshold_of(self.request.study)
        self._collector = Collector(
            self.request.study.sha256, self._number, self._sum_terms, question_of(self.request)
        )

    def sum(self) -> SecureSum:
        keys: dict[str, SignedKeys] = {}
        self._step(Kind.KEYS, {}, self._sum_terms.fewest, lambda r: self._take_keys(r, keys))
        group = self._collector.form_group([keys[site] for site in self.present.values()])

        deals: dict[str, Deal] = {}
        told: dict[str, Any] = {"keys": [each.to_json() for each in group.keys.values()]}
        self._step(Kind.SHARES, told, group.threshold, lambda r: self._take_deal(r, deals))
        sealed = self._collector.take_deals({site: deals[site] for site in self._sites()})

        masked = self._ask_masked(sealed, group.threshold)
        survivors = self._collector.survivors

        signatures: dict[str, bytes] = {}
        told = {"survivors": survivors}
        self._agree(told, group.threshold, signatures)
        shares: dict[str, Unmasking] = {}
        told["signatures"] = {site: signatures[site].hex() for site in self._sites()}
        self._step(Kind.UNMASK, told, group.threshold, lambda r: self._take_shares(r, shares))

        totals = self._collector.total({site: shares[site] for site in self._sites()})
        values = values_of(totals, self.step, self.request.study, len(group.keys))
        return self._sums(values, masked)

    def _agree(self, told: Mapping[str, Any], threshold: int, signatures: dict[str, bytes]) -> None:
        """Exchange 3. Sites that helped to uncover a sum of this question want the same group.

        So it was where the coordinator died before it had saved the sum, and another site is there
        now. It is then asked again without those that were not in it, if as many as a sum needs say
        the same and are here.
        """
        refused: dict[str, SiteError] = {}
        before = list(self.present.values())
        try:
            self._step(
                Kind.SURVIVORS,
                told,
                threshold,
                lambda reply: _take_signature(reply, signatures),
                accused=refused.__setitem__,
            )
        except QuorumError:
            wanted = Counter(str(error.accuses.get(GROUP, "")) for error in refused.values())
            group, votes = wanted.most_common(1)[0] if wanted else ("", 0)
            sites = group.split(",")
            if votes >= self._sum_terms.fewest and set(sites) < set(before):
                raise _OtherGroupError(sites) from None
            raise

    def _ask_masked(self, sealed: Mapping[str, Mapping[str, bytes]], threshold: int) -> Outcome:
        """Exchange 2: the request itself; answers are added up as they come, and not kept."""
        accused: dict[str, SiteError] = {}
        part = {
            "session": self._number,
            "promises": {
                dealer: promise.to_json() for dealer, promise in self._collector.promises.items()
            },
            "sealed": {
                addressee: {dealer: each.hex() for dealer, each in envelopes.items()}
                for addressee, envelopes in sealed.items()
            },
        }
        request = replace(self.request, settings={**self.request.settings, "sum": part})
        spec = masked_spec(self.step, request.study, self.spec)
        try:
            return self._exchange(
                request,
                spec,
                threshold,
                check=_says_nothing_else,
                keep=self._add,
                accused=accused.__setitem__,
            )
        finally:
            for site, error in accused.items():
                self._collector.check_accusation(site, error.accuses)

    def _add(self, reply: Reply) -> Reply:
        self._collector.add(reply.site, reply.arrays)
        return replace(reply, arrays={}, details={})

    def _step(
        self,
        kind: Kind,
        told: Mapping[str, Any],
        needed: int,
        take: Callable[[Reply], None],
        **more: Any,
    ) -> None:
        """An exchange with those still present; who answers well stays so."""
        request = Request(
            kind, self.request.study, self.request.round, {"session": self._number, **told}
        )
        self._exchange(request, {}, needed, check=take, **more)

    def _exchange(self, request: Request, spec: Spec, needed: int, **more: Any) -> Outcome:
        """`exchange` without a second try: who is late has dropped out of this session."""
        limits = Limits(needed, self.limits.deadline, 0, "the threshold of the secure sum")
        outcome = exchange(self.grid, self.present, request, spec, limits, **more)
        self.present = {node: site for site, node in sorted(outcome.nodes.items())}
        spent = self.spent
        spent.seconds += outcome.seconds
        spent.bytes_down += outcome.bytes_down
        spent.bytes_up += outcome.bytes_up
        spent.refused |= outcome.refused
        spent.missing = sorted({*spent.missing, *outcome.missing})
        return outcome

    def _sums(self, values: dict[str, Any], masked: Outcome) -> SecureSum:
        """The result, with everything it took.

        Who is in it is neither missing nor refused, unless it has lied about a share.
        """
        outcome, within = self.spent, masked.replies.keys()
        outcome.replies, outcome.nodes = masked.replies, masked.nodes
        outcome.refused = {s: why for s, why in outcome.refused.items() if s not in within}
        outcome.refused |= self._wrong
        outcome.missing = [site for site in outcome.missing if site not in within]
        examples, loss = (float(values.pop(name)[0]) for name in (EXAMPLES, LOSS))
        return SecureSum(values, examples, loss, outcome)

    def _sites(self) -> list[str]:
        return sorted(self.present.values())

    def _take_keys(self, reply: Reply, keys: dict[str, SignedKeys]) -> None:
        offered = SignedKeys.from_json(reply.details)
        if offered.site != reply.site:
            raise MessageError(f"sends the keys of {offered.site!r}")
        if self.registered:
            if reply.site not in self.registered:
                raise MessageError(
                    "is not in the start kits' list of keys: provision anew and hand out the kits"
                )
            study = self.request.study.sha256
            verified(offered, self.registered[reply.site], study, self._number)
        keys[reply.site] = offered

    def _take_deal(self, reply: Reply, deals: dict[str, Deal]) -> None:
        deal = Deal.from_json(reply.details)
        self._collector.check_deal(reply.site, deal, self.registered.get(reply.site))
        deals[reply.site] = deal

    def _take_shares(self, reply: Reply, shares: dict[str, Unmasking]) -> None:
        unmasking = Unmasking.from_json(reply.details)
        try:
            self._collector.check_unmasking(reply.site, unmasking)
        except MessageError as error:
            self._wrong[reply.site] = str(error)
            raise
        shares[reply.site] = unmasking


def _says_nothing_else(reply: Reply) -> None:
    """A masked answer is its integers: the number of examples and the loss are among them."""
    Nothing.read(reply.details)
    if reply.examples:
        raise MessageError("says beside its masked numbers how many examples stand behind them")


def _take_signature(reply: Reply, signatures: dict[str, bytes]) -> None:
    """Whether it is one is checked by the sites, for whom it is."""
    signatures[reply.site] = signature_of(reply.details)
