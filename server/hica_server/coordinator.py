"""The coordinator's side of every step: what is asked, checked, combined and recorded.

Each method is one step of the plan (`hica_server.plan`): one exchange, or a few for k-means, and
what follows from it in the state. Steps read and write the state only, so that a run killed
between two of them goes on as if it had not been.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from hica.device import derived_seed
from hica.errors import FederationError, MessageError
from hica.messages import Arrays, Kind, Reply, Request, Spec, spec_of
from hica.metrics import SiteMetrics, combine
from hica.model import BANK_CLASSES
from hica.pseudo_labels import ClusterSums, lloyd_step, merge_starts
from hica.study import Study
from hica_server.aggregation import Update, make_aggregator
from hica_server.exchange import Check, Outcome, Terms, exchange
from hica_server.state import RunState

logger = logging.getLogger("hica.server")

Array = NDArray[Any]

CAPABILITIES = {
    "labelled": int,
    "unlabelled": int,
    "test": int,
    "classes": dict,
    "device": str,
    "notes": list,
}
"""What a site must tell before it may take part."""


class Coordinator:
    """One run: grid, study and state.

    Args:
        grid: Flower's grid.
        study: What is to be done.
        state: Where the run stands; changed by every step.
        record: Called with each entry of `state.rounds` as it is made.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        state: RunState,
        record: Callable[[dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        self.grid = grid
        self.study = study
        self.state = state
        self.record = record
        self.nodes: dict[str, int] = {}
        federation = study.federation
        self.aggregator = make_aggregator(
            federation.aggregation,
            server_learning_rate=federation.server_learning_rate,
            trim=federation.trim,
            malicious=federation.malicious,
            weighting=federation.weighting,
        )
        if state.optimiser:
            self.aggregator.restore(state.optimiser)

    def meet_sites(self, tower_fingerprint: str) -> None:
        """Ask every connected node what it can take part in.

        Not a step of the plan: done at every start, as sites may have changed since the last.

        Raises:
            FederationError: Fewer sites than the quorum.
        """

        def same_tower(reply: Reply) -> None:
            if reply.details.get("tower") != tower_fingerprint:
                raise MessageError(
                    f"loaded another image tower ({str(reply.details.get('tower'))[:12]}, expected "
                    f"{tower_fingerprint[:12]}): install the same weights and versions"
                )
            for name, kind in CAPABILITIES.items():
                if not isinstance(reply.details.get(name), kind):
                    raise MessageError(f"capability {name!r} is missing or no {kind.__name__}")

        connected = dict.fromkeys(self.grid.get_node_ids(), "")
        request = Request(Kind.CAPABILITIES, self.study)
        outcome = exchange(self.grid, connected, request, {}, self._terms(), same_tower)
        self.nodes = outcome.nodes
        self.state.sites = {site: reply.details for site, reply in outcome.replies.items()}
        for site, said in self.state.sites.items():
            for note in said["notes"]:
                logger.warning("%s: %s", site, note)
        self._note("capabilities", 0, outcome)

    def moments(self, round_: int) -> None:
        """Centre: the mean of features over all images of all sites."""
        dim = self.state.centre.shape[1]
        spec: Spec = {"sums": ((2, dim), "float64"), "counts": ((2,), "float64")}
        outcome = self._ask(Kind.MOMENTS, round_, "unlabelled", spec, check=_positive_counts)
        sums = np.sum([reply.arrays["sums"] for reply in outcome.replies.values()], axis=0)
        counts = np.sum([reply.arrays["counts"] for reply in outcome.replies.values()], axis=0)
        centre = sums / np.maximum(counts, 1)[:, None]
        if counts[1] == 0:  # no region anywhere: the row is never used, but must be finite
            centre[1] = centre[0]
        self.state.centre = centre.astype(np.float32)
        self._note("moments", round_, outcome)

    def cluster(self, round_: int) -> None:
        """Federated k-means from the sites' own starts; fixes every site's pseudo-labels."""
        settings = self.study.pretraining
        dim, wanted = self.state.centre.shape[1], settings.clusters

        def sums(step: str, count: int) -> tuple[list[ClusterSums], Outcome]:
            spec: Spec = {"sums": ((count, dim), "float64"), "counts": ((count,), "float64")}
            arrays = {} if step == "start" else {"centroids": self.state.centroids}
            outcome = self._ask(
                Kind.CLUSTERS, round_, "unlabelled", spec, arrays, {"step": step}, _positive_counts
            )
            parts = [
                ClusterSums(reply.arrays["sums"], reply.arrays["counts"])
                for reply in outcome.replies.values()
            ]
            self._note("clusters", round_, outcome)
            return parts, outcome

        starts, _ = sums("start", wanted)
        seed = derived_seed(self.study.study.seed, "clusters", round_) % 2**32
        self.state.centroids = merge_starts(starts, wanted, seed)
        for _ in range(settings.lloyd_rounds):
            parts, _ = sums("lloyd", len(self.state.centroids))
            self.state.centroids = lloyd_step(self.state.centroids, parts)
        sums("assign", len(self.state.centroids))

    def pretrain(self, round_: int) -> None:
        """One round of stage 1."""
        self._train(
            Kind.PRETRAIN,
            "pretraining",
            round_,
            self.study.pretraining.rounds,
            "unlabelled",
            {"centroids": self.state.centroids},
        )

    def prototypes(self, round_: int) -> None:
        """Start the trained bank at the texts blended with federated class means.

        A class mean, less the mean over classes, is the direction a nearest-mean classifier uses;
        the bank starts at the unit sum of it and the text, and is held there by `text_pull`.
        """
        classes, dim = len(self.study.classes), self.state.centre.shape[1]
        spec: Spec = {"sums": ((classes, dim), "float64"), "counts": ((classes,), "float64")}
        outcome = self._ask(Kind.PROTOTYPES, round_, "labelled", spec, check=_positive_counts)
        sums = np.sum([reply.arrays["sums"] for reply in outcome.replies.values()], axis=0)
        counts = np.sum([reply.arrays["counts"] for reply in outcome.replies.values()], axis=0)
        self.state.anchor["classes"] = blended_start(self.state.anchor["classes"], sums, counts)
        self.state.shared[BANK_CLASSES] = self.state.anchor["classes"]
        self._note("prototypes", round_, outcome)

    def align(self, round_: int) -> None:
        """One round of stage 2."""
        self._train(Kind.ALIGN, "alignment", round_, self.study.alignment.rounds, "labelled", {})

    def evaluate(self, round_: int, name: str) -> None:
        """Metrics at every site's held-out patients."""
        classes = len(self.study.classes)
        checked: dict[str, SiteMetrics] = {}

        def check(reply: Reply) -> None:
            checked[reply.site] = SiteMetrics.from_dict(reply.details, classes, reply.site)

        outcome = self._ask(Kind.EVALUATE, round_, "test", {}, check=check)
        per_site = {site: checked[site] for site in outcome.replies}
        self.state.evaluations[name] = {
            "overall": combine(list(per_site.values())).to_dict(),
            "per_site": {site: metrics.to_dict() for site, metrics in per_site.items()},
        }
        self._note("evaluation", round_, outcome)

    def _train(
        self, kind: Kind, stage: str, round_: int, rounds: int, role: str, arrays: Arrays
    ) -> None:
        """Broadcast, collect updates, aggregate. The rate falls as a half cosine over the stage."""
        spec: Spec = {f"shared.{name}": s for name, s in spec_of(self.state.shared).items()}
        rate = 0.5 * (1.0 + math.cos(math.pi * round_ / rounds))
        outcome = self._ask(
            kind,
            round_,
            role,
            spec,
            arrays,
            {"rate": rate},
            self._sane_update,
            at_least=self.aggregator.minimum,
        )
        updates = [
            Update(site, _shared(reply.arrays), reply.examples)
            for site, reply in outcome.replies.items()
        ]
        self.state.shared = self.aggregator.aggregate(round_, self.state.shared, updates)
        self.state.optimiser = self.aggregator.state()
        losses = {site: float(reply.details["loss"]) for site, reply in outcome.replies.items()}
        total = sum(update.examples for update in updates)
        mean = sum(losses[update.site] * update.examples for update in updates) / total
        discarded = self.aggregator.last_discarded
        self._note(stage, round_, outcome, loss=mean, site_loss=losses, lora_discarded=discarded)

    def _sane_update(self, reply: Reply) -> None:
        """Refuse an update without examples, without a loss, or far from what was sent."""
        loss = reply.details.get("loss")
        if reply.examples < 1:
            raise MessageError("an update that no example stands behind")
        if not isinstance(loss, float) or not math.isfinite(loss):
            raise MessageError(f"loss is {loss!r}")
        limit = self.study.federation.max_update_norm
        squares = (
            np.square(value.astype(np.float64) - self.state.shared[name]).sum()
            for name, value in _shared(reply.arrays).items()
        )
        norm = math.sqrt(sum(squares))
        if norm > limit:
            raise MessageError(
                f"update of norm {norm:.3g}, federation.max_update_norm is {limit:g}"
            )

    def _ask(
        self,
        kind: Kind,
        round_: int,
        role: str,
        spec: Spec,
        arrays: Arrays | None = None,
        settings: dict[str, Any] | None = None,
        check: Check | None = None,
        at_least: int = 1,
    ) -> Outcome:
        """An exchange with all sites that have examples of `role`, weights included."""
        able = {self.nodes[site]: site for site, said in self.state.sites.items() if said[role] > 0}
        terms = self._terms(at_least)
        if len(able) < terms.quorum:
            raise FederationError(
                f"{kind}: {len(able)} site(s) have {role} images, needed are {terms.quorum} "
                f"(federation.quorum = {self.study.federation.quorum}, federation.aggregation = "
                f"{self.study.federation.aggregation!r}): enrol more sites or lower the quorum"
            )
        state = self.state
        payload: Arrays = {f"shared.{name}": value for name, value in state.shared.items()}
        payload |= {f"anchor.{name}": value for name, value in state.anchor.items()}
        payload |= {"centre": state.centre, **(arrays or {})}
        request = Request(kind, self.study, round_, settings or {}, payload)
        return exchange(self.grid, able, request, spec, terms, check)

    def _terms(self, at_least: int = 1) -> Terms:
        """The study's deadline, retries and quorum, which an aggregation rule may raise."""
        federation = self.study.federation
        quorum = max(federation.quorum, at_least)
        return Terms(quorum, federation.deadline, federation.retries)

    def _note(self, stage: str, round_: int, outcome: Outcome, **more: Any) -> None:
        """Append an exchange to the history."""
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
            **more,
        }
        self.state.rounds.append(entry)
        self.record(entry)


def blended_start(texts: Array, sums: Array, counts: Array) -> Array:
    """Unit rows of text + class mean; a class without examples keeps its text.

    Args:
        texts: [C, D] unit rows.
        sums: [C, D] sums of unit image embeddings per class over all sites.
        counts: [C].

    Returns:
        [C, D] float32.
    """
    seen = counts > 0
    means = sums[seen] / counts[seen, None]
    means = means - means.mean(axis=0)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    start = texts.astype(np.float64).copy()
    start[seen] += means / np.maximum(norms, 1e-12)
    unit: Array = (start / np.linalg.norm(start, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _shared(arrays: Arrays) -> Arrays:
    """The weights among a message's arrays, by their own names."""
    prefix = "shared."
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _positive_counts(reply: Reply) -> None:
    """Counts are never negative."""
    if (reply.arrays["counts"] < 0).any():
        raise MessageError("negative counts")
