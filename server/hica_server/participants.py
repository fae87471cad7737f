"""Participants: which sites take part in a run, and where they are now."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from flwr.serverapp import Grid

from hica.errors import FederationError, MessageError
from hica.steps.step import Role
from hica.study import Study
from hica.wire.messages import Kind, Reply, Request
from hica_server.exchange import Limits, Outcome, exchange
from hica_server.replies import capabilities_of

logger = logging.getLogger("hica.server")

ASK_AGAIN = 600.0
"""Seconds after which a connected site that could not join is asked again."""

Roster = Callable[[], dict[str, int | None]]
"""Every enrolled site with its node; None where it is not connected now."""


class Participants:
    """The sites of a run.

    `said` is what each site said it can take part in, at an earlier start; it is added to. `roster`
    gives the sites that may take part. Without one, the nodes connected at the start are all there
    are, and each says itself which site it is. `note` is called with (stage, round, outcome) of
    every exchange.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        said: dict[str, dict[str, Any]],
        roster: Roster | None,
        note: Callable[[str, int, Outcome], None],
    ) -> None:
        self._grid = grid
        self._study = study
        self._said = said
        self._roster = roster
        self._note = note
        self._nodes: dict[str, int] = {}
        self._asked: dict[int, float] = {}
        self._revoked: Collection[str] = ()
        self._fingerprint = ""

    def meet(
        self, tower_fingerprint: str, quorum: int | None = None, gone: Collection[str] = ()
    ) -> None:
        """Ask every connected node what it can take part in; all need the same image tower.

        `quorum` is the study's, unless it is given. Sites in `gone` may be away.

        No turn of the plan: done at every start, as sites may have changed since the last. Sites of
        an earlier start that are not there now are missing until they are back.

        Raises:
            FederationError: Fewer sites than the quorum.
        """
        self._fingerprint = tower_fingerprint
        limits = Limits.of(self._study)
        if quorum is not None:
            limits = replace(limits, quorum=quorum)
        if self._roster is None:
            self._introduce(dict.fromkeys(self._grid.get_node_ids(), ""), limits)
            return
        sites = self._roster()
        connected = {node: site for site, node in sites.items() if node is not None}
        absent = {site for site, node in sites.items() if node is None and site not in gone}
        self._introduce(connected, limits, absent)

    def welcome(self) -> None:
        """Let sites join that have connected since the others were met; forget the revoked.

        The others wait for their answer, but not long. Who could not join is asked again when it
        has connected anew, or after a while.
        """
        if self._roster is None:
            return
        sites = self._roster()
        self._revoked = self._said.keys() - sites.keys()
        connected = {node: site for site, node in sites.items() if node is not None}
        now = time.monotonic()
        self._asked = {node: when for node, when in self._asked.items() if node in connected}
        newcomers = {
            node: site
            for node, site in connected.items()
            if self._nodes.get(site) != node and now - self._asked.get(node, -math.inf) > ASK_AGAIN
        }
        if newcomers:
            federation = self._study.federation
            deadline = min(federation.gather, federation.deadline)
            self._introduce(newcomers, Limits(quorum=0, deadline=deadline, retries=0))

    def able(
        self, kind: str, role: Role | None, limits: Limits
    ) -> tuple[dict[int, str], list[str]]:
        """Nodes of the sites that have images of a role and can be asked, and all that should be.

        Without a role: of all that take part.

        Raises:
            FederationError: Too few.
        """
        self.welcome()
        wanted = [
            site
            for site, said in self._said.items()
            if (role is None or said[role] > 0) and site not in self._revoked
        ]
        able = {self._nodes[site]: site for site in wanted if site in self._nodes}
        if len(able) < limits.quorum:
            federation = self._study.federation
            hidden = self._study.privacy.secure_aggregation
            secure = ", privacy.secure_aggregation = true" if hidden else ""
            raise FederationError(
                f"{kind}: {len(able)} site(s) have {role} images, needed are {limits.quorum} "
                f"(federation.quorum = {federation.quorum}, federation.aggregation = "
                f"{federation.aggregation!r}{secure}): enrol more sites or lower the quorum"
            )
        return able, wanted

    def _introduce(
        self, nodes: dict[int, str], limits: Limits, expected: Collection[str] = ()
    ) -> None:
        """Ask nodes what they can take part in; those that answer well do so from here on.

        `nodes` maps node id to site name ("" while it is not known). Of the sites in `expected`,
        those that do not answer are missing.
        """
        request = Request(Kind.CAPABILITIES, self._study)
        outcome = exchange(self._grid, nodes, request, {}, limits, self._can_take_part)
        self._asked |= dict.fromkeys(nodes, time.monotonic())
        self._nodes |= outcome.nodes
        for site, reply in outcome.replies.items():
            self._said[site] = capabilities_of(self._study, reply)
            for words in self._said[site]["notes"]:
                logger.warning("%s: %s", site, words)
        outcome.missing = with_absent(outcome, expected)
        self._note("capabilities", 0, outcome)

    def _can_take_part(self, reply: Reply) -> None:
        """Refuse a site with another tower, or one that does not tell all that is needed."""
        if reply.details.get("tower") != self._fingerprint:
            raise MessageError(
                f"loaded another image tower ({str(reply.details.get('tower'))[:12]}, expected "
                f"{self._fingerprint[:12]}): install the same weights and versions"
            )
        capabilities_of(self._study, reply)


def with_absent(outcome: Outcome, expected: Iterable[str]) -> list[str]:
    """Who is missing: those that did not answer, and those expected that could not be asked."""
    absent = set(expected) - outcome.replies.keys() - outcome.refused.keys()
    return sorted(absent.union(outcome.missing))
