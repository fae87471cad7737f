"""The coordinator's side of every step: what is asked, checked, combined and recorded.

Each method is one step of the plan (`hica_server.plan`): one exchange, or a few for k-means, and
what follows from it in the state. Steps read and write the state only, so that a run killed
between two of them goes on as if it had not been.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from hica.deployment.keys import PublicKey
from hica.errors import FederationError, MessageError
from hica.method.calibration import Curvature, newton_step
from hica.method.pseudo_labels import ClusterSums, drawn_start, lloyd_step, merge_starts
from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.privacy.statistics import subspace_of
from hica.secure_sum.forms import EXAMPLES, mean_update, terms_of
from hica.seeds import derived_seed
from hica.study import Study
from hica.wire.messages import Arrays, Kind, Reply, Request, Spec, spec_of
from hica.wire.weight_names import BANK_CLASSES
from hica_server.aggregation import Update, make_aggregator
from hica_server.exchange import Check, Keep, Outcome, Terms, exchange
from hica_server.noisy import (
    as_bank,
    count_noise,
    nearest_mean,
    noisy_centre,
    noisy_lloyd_step,
    sum_noise,
    with_texts,
)
from hica_server.secure_exchange import secure_exchange
from hica_server.state import RunState
from hica_server.sums import ALL_SITES, Sums, check_sums, plain_sums

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

ASK_AGAIN = 600.0
"""Seconds after which a connected site that could not join is asked again."""

Roster = Callable[[], dict[str, int | None]]
"""Every enrolled site with its node; None where it is not connected now."""


class Coordinator:
    """One run: grid, study and state.

    Args:
        grid: Flower's grid.
        study: What is to be done.
        state: Where the run stands; changed by every step.
        record: Called with each entry of `state.rounds` as it is made.
        roster: The sites that may take part. Without one, the nodes connected at the start are
            all there are, and each says itself which site it is.
        keep: Puts an update where it waits for the others.
        registered: Public keys of the sites that know each other, for secure aggregation; see
            `hica_server.secure_exchange`.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        state: RunState,
        record: Callable[[dict[str, Any]], None] = lambda *_: None,
        roster: Roster | None = None,
        keep: Keep = lambda reply: reply,
        registered: Mapping[str, PublicKey] | None = None,
    ) -> None:
        self.grid = grid
        self.study = study
        self.state = state
        self.record = record
        self.roster = roster
        self.keep = keep
        self.registered = registered
        self.secure = study.privacy.secure_aggregation
        self.private = study.privacy.is_private
        self.nodes: dict[str, int] = {}
        self._asked: dict[int, float] = {}
        self._revoked: Collection[str] = ()
        self._fingerprint = ""
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
        Sites of an earlier start that are not there now are missing until they are back.

        Raises:
            FederationError: Fewer sites than the quorum.
        """
        self._fingerprint = tower_fingerprint
        if self.roster is None:
            self._introduce(dict.fromkeys(self.grid.get_node_ids(), ""), self._terms())
            return
        sites = self.roster()
        connected = {node: site for site, node in sites.items() if node is not None}
        absent = {site for site, node in sites.items() if node is None}
        self._introduce(connected, self._terms(), absent)

    def welcome(self) -> None:
        """Let sites join that have connected since the others were met; forget the revoked.

        The others wait for their answer, but not long. Who could not join is asked again when it
        has connected anew, or after a while.
        """
        if self.roster is None:
            return
        sites = self.roster()
        self._revoked = self.state.sites.keys() - sites.keys()
        connected = {node: site for site, node in sites.items() if node is not None}
        now = time.monotonic()
        self._asked = {node: when for node, when in self._asked.items() if node in connected}
        newcomers = {
            node: site
            for node, site in connected.items()
            if self.nodes.get(site) != node and now - self._asked.get(node, -math.inf) > ASK_AGAIN
        }
        if newcomers:
            federation = self.study.federation
            deadline = min(federation.gather, federation.deadline)
            self._introduce(newcomers, Terms(quorum=0, deadline=deadline, retries=0))

    def _introduce(
        self, nodes: dict[int, str], terms: Terms, expected: Collection[str] = ()
    ) -> None:
        """Ask nodes what they can take part in; those that answer well take part from here on.

        Args:
            nodes: Node id → site name ("" while it is not known).
            terms: How long is waited for how many.
            expected: Sites that are missing if they are not among those that answer.
        """
        request = Request(Kind.CAPABILITIES, self.study)
        outcome = exchange(self.grid, nodes, request, {}, terms, self._can_take_part)
        self._asked |= dict.fromkeys(nodes, time.monotonic())
        self.nodes |= outcome.nodes
        self.state.sites |= {site: reply.details for site, reply in outcome.replies.items()}
        for site, reply in outcome.replies.items():
            for note in reply.details["notes"]:
                logger.warning("%s: %s", site, note)
        outcome.missing = _with_absent(outcome, expected)
        self._note("capabilities", 0, outcome)

    def _can_take_part(self, reply: Reply) -> None:
        """Refuse a site with another tower, or one that does not tell all that is needed."""
        if reply.details.get("tower") != self._fingerprint:
            raise MessageError(
                f"loaded another image tower ({str(reply.details.get('tower'))[:12]}, expected "
                f"{self._fingerprint[:12]}): install the same weights and versions"
            )
        for name, kind in CAPABILITIES.items():
            if not isinstance(reply.details.get(name), kind):
                raise MessageError(f"capability {name!r} is missing or no {kind.__name__}")

    def moments(self, round_: int) -> None:
        """Centre and scale: mean and spread of features over all images of all sites."""
        dim = self.state.centre.shape[1]
        scaled = self.study.alignment.scaling == "global"
        spec: Spec = {"sums": ((2, dim), "float64"), "counts": ((2,), "float64")}
        spec |= {"squares": ((2, dim), "float64")} if scaled else {}
        check = None if self.private else _positive_counts
        total = self._sums(Kind.MOMENTS, round_, "unlabelled", spec, check=check)
        self._note("moments", round_, total.outcome)
        counts = total.arrays["counts"]
        if self.private:
            noise = count_noise(self.study, len(total.outcome.replies))
            self.state.centre = noisy_centre(total.arrays["sums"], counts, noise).astype(np.float32)
            return
        centre = total.arrays["sums"] / np.maximum(counts, 1)[:, None]
        if counts[1] == 0:  # no region anywhere: the row is never used, but must be finite
            centre[1] = centre[0]
        self.state.centre = centre.astype(np.float32)
        if scaled:
            scale = spread(centre, total.arrays["squares"], counts)
            self.state.scale = scale.astype(np.float32)

    def cluster(self, round_: int) -> None:
        """Federated k-means from the sites' own starts; fixes every site's pseudo-labels.

        Under secure aggregation nobody sees a site's own clusters, and in a private study they
        would cost too much: the start is drawn.
        """
        settings = self.study.pretraining
        dim, wanted = self.state.centre.shape[1], settings.clusters

        seed = derived_seed(self.study.study.seed, "clusters", round_) % 2**32
        if self.secure or self.private:
            subspace = subspace_of(self.study, dim)
            start = drawn_start(wanted, subspace.shape[1], seed)
            self.state.centroids = start @ subspace.T
        else:
            spec: Spec = {"sums": ((wanted, dim), "float64"), "counts": ((wanted,), "float64")}
            outcome = self._ask(
                Kind.CLUSTERS, round_, "unlabelled", spec, {}, {"step": "start"}, _positive_counts
            )
            self._note("clusters", round_, outcome)
            starts = [
                ClusterSums(reply.arrays["sums"], reply.arrays["counts"])
                for reply in outcome.replies.values()
            ]
            self.state.centroids = merge_starts(starts, wanted, seed)
        for _ in range(settings.lloyd_rounds):
            self._lloyd_step(round_)
        self._assign(round_)

    def _lloyd_step(self, round_: int) -> None:
        """Move the centroids to the means over all sites of what lies nearest to each."""
        centroids = self.state.centroids
        subspace = subspace_of(self.study, centroids.shape[1])
        spec: Spec = {
            "sums": ((len(centroids), subspace.shape[1]), "float64"),
            "counts": (centroids.shape[:1], "float64"),
        }
        total = self._sums(
            Kind.CLUSTERS,
            round_,
            "unlabelled",
            spec,
            {"centroids": centroids},
            {"step": "lloyd"},
            None if self.private else _positive_counts,
        )
        self._note("clusters", round_, total.outcome)
        part = ClusterSums(total.arrays["sums"], total.arrays["counts"])
        if self.private:
            noise = count_noise(self.study, len(total.outcome.replies))
            self.state.centroids = noisy_lloyd_step(centroids, part, subspace, noise)
        else:
            self.state.centroids = lloyd_step(centroids, [part])

    def _assign(self, round_: int) -> None:
        """Have every site keep the cluster of each of its images; what it answers is not used."""
        reserved = self.secure or self.private
        centroids = self.state.centroids
        spec: Spec = {
            "sums": (centroids.shape, "float64"),
            "counts": (centroids.shape[:1], "float64"),
        }
        outcome = self._ask(
            Kind.CLUSTERS,
            round_,
            "unlabelled",
            {} if reserved else spec,
            {"centroids": centroids},
            {"step": "assign"},
            None if reserved else _positive_counts,
        )
        self._note("clusters", round_, outcome)

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
        the bank starts at the unit sum of it and the text, and is held there by `text_pull`. Where
        they are all that a private study asks for, they also give its intercepts.
        """
        classes, dim = len(self.study.classes), self.state.centre.shape[1]
        spec: Spec = {"sums": ((classes, dim), "float64"), "counts": ((classes,), "float64")}
        check = None if self.private else _positive_counts
        total = self._sums(Kind.PROTOTYPES, round_, "labelled", spec, check=check)
        sums, counts = total.arrays["sums"], total.arrays["counts"]
        if self.private:
            counts = np.maximum(counts, 1.0)
        texts = self.state.anchor["classes"]
        if self.study.alignment.bank_start == "means":
            texts = np.zeros_like(texts)
        if self.study.privacy.mechanism == "prototypes":
            self._classify(texts, sums, counts, len(total.outcome.replies))
        else:
            self.state.anchor["classes"] = blended_start(texts, sums, counts)
        start = self.state.anchor["classes"].astype(self.study.federation.dtype)
        self.state.shared[BANK_CLASSES] = start
        self._note("prototypes", round_, total.outcome)

    def _classify(self, texts: Array, sums: Array, counts: Array, sites: int) -> None:
        """Make the whole classifier of class means: nothing else is asked for."""
        means = nearest_mean(sums, counts, sum_noise(self.study, sites))
        classifier = with_texts(means, texts) if texts.any() else means
        bank, bias = as_bank(classifier, self.study.alignment.temperature)
        self.state.anchor["classes"], self.state.bias = bank.astype(np.float32), bias

    def align(self, round_: int) -> None:
        """One round of stage 2."""
        self._train(Kind.ALIGN, "alignment", round_, self.study.alignment.rounds, "labelled", {})

    def calibrate(self, round_: int) -> None:
        """One Newton step of the class intercepts."""
        classes = len(self.study.classes)
        spec: Spec = {
            "gradient": ((classes,), "float64"),
            "hessian": ((classes, classes), "float64"),
        }
        total = self._sums(Kind.CALIBRATE, round_, "labelled", spec, check=_sane_curvature)
        part = Curvature(total.arrays["gradient"], total.arrays["hessian"], round(total.examples))
        self.state.bias = newton_step(self.state.bias, [part], self.study.calibration.ridge)
        self._note("calibration", round_, total.outcome)

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
        if self.secure:
            self._train_in_secret(kind, stage, round_, role, spec, arrays, rate)
            return
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
            Update(site, Shared(reply.arrays), reply.examples)
            for site, reply in outcome.replies.items()
        ]
        self._aggregate(round_, updates)
        losses, mean = {}, None
        if not self.private:
            losses = {site: reply.details["loss"] for site, reply in outcome.replies.items()}
            total = sum(update.examples for update in updates)
            mean = sum(losses[update.site] * update.examples for update in updates) / total
        discarded = self.aggregator.last_discarded
        self._note(stage, round_, outcome, loss=mean, site_loss=losses, lora_discarded=discarded)

    def _train_in_secret(
        self,
        kind: Kind,
        stage: str,
        round_: int,
        role: str,
        spec: Spec,
        arrays: Arrays,
        rate: float,
    ) -> None:
        """The same from the sum of the sites' changes alone.

        No update is seen, so none can be refused: each site bounds the norm of its own.
        """
        total = self._sums(kind, round_, role, spec, arrays, {"rate": rate}, _some_examples)
        sites = len(total.outcome.replies)
        changes = {**Shared(total.arrays), EXAMPLES: np.array([total.examples])}
        mean = mean_update(changes, kind, self.study, self.state.shared, sites)
        self._aggregate(round_, [Update(ALL_SITES, mean, round(total.examples))])
        loss = None if self.private else total.loss / total.examples
        self._note(stage, round_, total.outcome, loss=loss, site_loss={}, lora_discarded=0.0)

    def _aggregate(self, round_: int, updates: list[Update]) -> None:
        """The next weights, and what the rule keeps for the round after."""
        self.state.shared = self.aggregator.aggregate(round_, self.state.shared, updates)
        self.state.optimiser = self.aggregator.state()

    def _sane_update(self, reply: Reply) -> None:
        """Refuse an update without examples, without a loss, or far from what was sent."""
        loss = reply.details.get("loss")
        if reply.examples < 1:
            raise MessageError("an update that no example stands behind")
        # A private site tells no loss: it would need noise, too.
        if not self.private and not (isinstance(loss, float) and math.isfinite(loss)):
            raise MessageError(f"loss is {loss!r}")
        limit = self.study.federation.max_update_norm
        squares = (
            np.square(value.astype(np.float64) - self.state.shared[name]).sum()
            for name, value in Shared(reply.arrays).items()
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
        able, wanted = self._able(kind, role, terms := self._terms(at_least))
        request = self._request(kind, round_, arrays, settings)
        outcome = exchange(self.grid, able, request, spec, terms, check, self.keep)
        outcome.missing = _with_absent(outcome, wanted)
        return outcome

    def _sums(
        self,
        kind: Kind,
        round_: int,
        role: str,
        spec: Spec,
        arrays: Arrays | None = None,
        settings: dict[str, Any] | None = None,
        check: Check | None = None,
    ) -> Sums:
        """The sums of what such an exchange would give; under secure aggregation, only they."""
        if not self.secure:
            return plain_sums(self._ask(kind, round_, role, spec, arrays, settings, check))
        terms = self._terms(terms_of(self.study).fewest)
        able, wanted = self._able(kind, role, terms)
        request = self._request(kind, round_, arrays, settings)
        sums = secure_exchange(self.grid, able, request, spec, terms, self.registered)
        sums.outcome.missing = _with_absent(sums.outcome, wanted)
        if check is not None:
            check_sums(sums, kind, round_, check)
        return sums

    def _able(self, kind: Kind, role: str, terms: Terms) -> tuple[dict[int, str], list[str]]:
        """Nodes of the sites that can be asked, and all sites that should be.

        Raises:
            FederationError: Too few.
        """
        self.welcome()
        sites = self.state.sites.items()
        wanted = [site for site, said in sites if said[role] > 0 and site not in self._revoked]
        able = {self.nodes[site]: site for site in wanted if site in self.nodes}
        if len(able) < terms.quorum:
            secure = ", privacy.secure_aggregation = true" if self.secure else ""
            raise FederationError(
                f"{kind}: {len(able)} site(s) have {role} images, needed are {terms.quorum} "
                f"(federation.quorum = {self.study.federation.quorum}, federation.aggregation = "
                f"{self.study.federation.aggregation!r}{secure}): enrol more sites or lower the "
                "quorum"
            )
        return able, wanted

    def _request(
        self, kind: Kind, round_: int, arrays: Arrays | None, settings: dict[str, Any] | None
    ) -> Request:
        """A request with all that a restarted site needs."""
        state = self.state
        payload = {f"shared.{name}": value for name, value in state.shared.items()}
        payload |= {f"anchor.{name}": value for name, value in state.anchor.items()}
        payload |= {"centre": state.centre, "scale": state.scale, "bias": state.bias}
        payload |= arrays or {}
        return Request(kind, self.study, round_, settings or {}, payload)

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


def spread(means: Array, squares: Array, counts: Array) -> Array:
    """Standard deviation of every feature, plus a twentieth of their mean for those that are still.

    Args:
        means: [2, D] of whole images and regions.
        squares: [2, D] sums of squares.
        counts: [2].

    Returns:
        [2, D], positive; 1 where there is nothing to take it from.
    """
    variance = squares / np.maximum(counts, 1)[:, None] - np.square(means)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    scale = deviation + 0.05 * deviation.mean(axis=1, keepdims=True)
    return np.where((counts > 0)[:, None] & (scale > 0), scale, 1.0)


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


def _with_absent(outcome: Outcome, expected: Collection[str]) -> list[str]:
    """Who is missing: those that did not answer, and those expected that could not be asked."""
    absent = set(expected) - outcome.replies.keys() - outcome.refused.keys()
    return sorted(absent.union(outcome.missing))


class Shared(Mapping[str, Array]):
    """The weights among a message's arrays, by their own names; each is read when it is needed."""

    PREFIX = "shared."

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[self.PREFIX + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self.PREFIX) for name in self._arrays if self._is_weight(name))

    def __len__(self) -> int:
        return sum(map(self._is_weight, self._arrays))

    def _is_weight(self, name: str) -> bool:
        return name.startswith(self.PREFIX)


def _some_examples(reply: Reply) -> None:
    """Something was trained on."""
    if reply.examples < 1:
        raise MessageError("an update that no example stands behind")


def _positive_counts(reply: Reply) -> None:
    """Counts are never negative."""
    if (reply.arrays["counts"] < 0).any():
        raise MessageError("negative counts")


def _sane_curvature(reply: Reply) -> None:
    """No sum that images of some number could not have: gradients and Hessians are bounded."""
    gradient, hessian = reply.arrays["gradient"], reply.arrays["hessian"]
    count = reply.examples
    largest = max(np.abs(gradient).max(), np.abs(hessian).max())
    if count < 1 or largest > count:
        raise MessageError(
            f"sums of a Newton step up to {largest:.3g} over {count} images: each adds at most 1"
        )
    if not np.allclose(hessian, hessian.T) or np.linalg.eigvalsh(hessian).min() < -1e-9 * count:
        raise MessageError("the Hessian of a Newton step is not positive semi-definite")
