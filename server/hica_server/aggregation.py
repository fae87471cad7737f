"""Aggregation rules: how a round's updates become the next weights.

`mean` is written here, because LoRA factors need it: the mean of the sites' products B·A is not
the product of their means. The other rules are Flower's own strategies; under them the factors of
LoRA are combined apart, like any other two arrays.

No rule depends on the order in which replies came: updates are sorted by site name first.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg, FedYogi, Krum
from numpy.typing import NDArray

from hica.errors import CheckpointError, FederationError
from hica.steps.step import Update
from hica.study.sections import FederationSection
from hica.wire.weight_names import factor_pairs
from hica_server.superlink.training_reply import training_reply

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Weighting = Literal["examples", "sites"]


def make_aggregator(federation: FederationSection) -> "Aggregator":
    """The aggregation rule of a study.

    `mean` is the weighted mean (FedAvg, McMahan et al. 2017), exact for products of LoRA. `adam`
    and `yogi` take a step of the server along the mean update (Reddi et al. 2021). `trimmed-mean`
    and `median` go by coordinate (Yin et al. 2018). `krum` takes the one update nearest to its
    neighbours (Blanchard et al. 2017); to withstand f bad sites it needs 2·f + 3 updates. Only
    `mean`, `adam` and `yogi` weight by examples; the others take every site once, since a bad site
    could claim any number of examples.
    """
    rule, weighting = federation.aggregation, federation.weighting
    rate, trim = federation.server_learning_rate, federation.trim
    if rule == "mean":
        return Mean(weighting)
    if rule == "adam":
        return ServerOptimiser("adam", FedAdam(eta=rate), weighting)
    if rule == "yogi":
        return ServerOptimiser("yogi", FedYogi(eta=rate), weighting)
    if rule == "trimmed-mean":
        minimum = math.ceil(1 / trim) if trim > 0 else 1
        return Robust(f"trimmed-mean with trim = {trim:g}", FedTrimmedAvg(beta=trim), minimum)
    if rule == "median":
        return Robust("median", FedMedian(), 1)
    malicious = federation.malicious
    krum = Krum(num_malicious_nodes=malicious)
    return Robust(f"krum with malicious = {malicious}", krum, 2 * malicious + 3)


class Aggregator(ABC):
    """An aggregation rule and the state it carries from round to round.

    It needs `minimum` updates; a quorum below this can end in a round it refuses. `last_discarded`
    is the share of the energy of LoRA's mean products (squared Frobenius norm) that the last
    `aggregate` lost by going back to rank r; 0 where there is no LoRA.
    """

    minimum = 1
    last_discarded = 0.0

    def __init__(self, name: str, weighting: Weighting) -> None:
        self.name = name
        self._weighting = weighting

    def aggregate(self, round: int, current: Arrays, updates: Sequence[Update]) -> Arrays:
        """The next weights, with the names, shapes and dtypes of `current`, which was broadcast.

        There is one update for each site, in any order; `round` is for the log.

        Raises:
            FederationError: Too few updates for the rule, two of one site, or one that does not
                match `current`.
        """
        self._check(current, updates)
        ordered = sorted(updates, key=lambda update: update.site)
        combined = self._combine(current, ordered, self._weights(ordered))
        logger.info(
            "round %d: %s of %d updates, %.2f %% of LoRA's energy discarded",
            round,
            self.name,
            len(updates),
            100 * self.last_discarded,
        )
        return {key: np.asarray(combined[key], array.dtype) for key, array in current.items()}

    def state(self) -> Arrays:
        """What the next round needs of the last ones, for the checkpoint."""
        return {}

    def restore(self, state: Arrays) -> None:
        """Take up the state of a checkpoint; going on from there is exact.

        Raises:
            CheckpointError: It is another rule's state.
        """
        if state:
            raise CheckpointError(_wrong_state(self.name, state))

    @abstractmethod
    def _combine(self, current: Arrays, updates: list[Update], weights: Floats) -> Arrays:
        """The rule itself; `updates` sorted by site, `weights` [n] summing to 1."""

    def _check(self, current: Arrays, updates: Sequence[Update]) -> None:
        if len(updates) < self.minimum:
            raise FederationError(
                f"{self.name} needs at least {self.minimum} updates, got {len(updates)}: "
                "raise federation.quorum to that, or choose another federation.aggregation"
            )
        sites = [update.site for update in updates]
        if len(set(sites)) < len(sites):
            raise FederationError(f"two updates of one site in {sorted(sites)}: rename one of them")
        shapes = {key: array.shape for key, array in current.items()}
        for update in updates:
            if {key: array.shape for key, array in update.arrays.items()} != shapes:
                raise FederationError(
                    f"{update.site}: its update has other arrays or shapes than the broadcast; "
                    "install the same version of hica there"
                )

    def _weights(self, updates: list[Update]) -> Floats:
        if self._weighting == "sites":
            return np.full(len(updates), 1 / len(updates))
        examples = np.asarray([update.examples for update in updates], dtype=np.float64)
        if examples.min() < 0 or examples.sum() == 0:
            counts = {update.site: update.examples for update in updates}
            raise FederationError(
                f"{self.name}: updates cannot be weighted by examples {counts}; "
                'use federation.weighting = "sites"'
            )
        shares: Floats = examples / examples.sum()
        return shares


class Mean(Aggregator):
    """The weighted mean, summed in float64; of LoRA's factors, the mean of their products."""

    def __init__(self, weighting: Weighting) -> None:
        super().__init__("mean", weighting)

    def _combine(self, current: Arrays, updates: list[Update], weights: Floats) -> Arrays:
        self.last_discarded = 0.0
        if len(updates) == 1:
            return {key: np.array(array) for key, array in updates[0].arrays.items()}
        mean: Arrays = {}
        for key, array in current.items():
            total_of_key: Floats = sum(
                weight * update.arrays[key].astype(np.float64)
                for weight, update in zip(weights, updates, strict=True)
            )
            mean[key] = total_of_key.astype(array.dtype)  # at once: all of it in float64 is large
        kept = total = 0.0
        for key_a, key_b in factor_pairs(current):
            a = np.stack([_matrix(update.arrays[key_a]) for update in updates])
            b = np.stack([_matrix(update.arrays[key_b]) for update in updates])
            product = product_mean(b, a, weights)
            new_b, new_a = factors(product, a, weights)
            mean[key_a] = new_a.reshape(current[key_a].shape)
            mean[key_b] = new_b.reshape(current[key_b].shape)
            energies = product.s**2
            kept += energies[: a.shape[1]].sum()
            total += energies.sum()
        if total > 0:
            self.last_discarded = float(1 - kept / total)
        return mean


class SVD(NamedTuple):
    """A matrix as u·diag(s)·vt."""

    u: Floats
    """[out, k], orthonormal columns."""
    s: Floats
    """[k], falling."""
    vt: Floats
    """[k, in], orthonormal rows."""


def product_mean(b: Floats, a: Floats, weights: Floats) -> SVD:
    """Σ w_i·B_i·A_i, exact and without ever forming an [out, in] matrix.

    The factors stacked, L = [w_1·B_1 … w_n·B_n] and R = [A_1; …; A_n], have the sum as their
    product; with L = Q_L·T_L and Rᵀ = Q_R·T_R its SVD is that of the small T_L·T_Rᵀ.

    `b` is [n, out, r], `a` [n, r, in], `weights` [n]; of the SVD, k = min(out, in, n·r).
    """
    sites, out, rank = b.shape
    left = (weights[:, None, None] * b).transpose(1, 0, 2).reshape(out, sites * rank)
    right = a.reshape(sites * rank, -1)
    q_left, t_left = np.linalg.qr(left)
    q_right, t_right = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(t_left @ t_right.T, full_matrices=False)
    return SVD(q_left @ u, s, vt @ q_right.T)


def factors(product: SVD, a: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """B [out, r] and A [r, in] whose product is nearest to `product` (Eckart and Young).

    Of the many such pairs, take the one whose A is a rotation of the right singular vectors as near
    as possible to the mean of `a` [n, r, in], the sites' own (orthogonal Procrustes), and as large
    as theirs. An optimiser with a step for each coordinate, such as Adam, then goes on where the
    sites left off; with the singular vectors themselves, √s on either side, it had up to three
    times the loss after as many rounds (linear regression over four sites), more than with the
    plain means of A and of B. Nor can a direction die by both its factors being zero.
    """
    rank = a.shape[1]
    mean_a = np.tensordot(weights, a, axes=1)
    if product.s[0] == 0:  # B is still zero: there is nothing to approximate, A is all there is
        return np.zeros((len(product.u), rank)), mean_a
    u, s, vt = product.u[:, :rank], product.s[:rank], product.vt[:rank]
    x, _, yt = np.linalg.svd(mean_a @ vt.T, full_matrices=False)
    rotation = x @ yt  # [r, k], orthonormal columns
    scale = math.sqrt(np.tensordot(weights, np.square(a).sum(axis=(1, 2)), axes=1) / rank)
    return (u * s) @ rotation.T / scale, scale * rotation @ vt


def _matrix(factor: NDArray[Any]) -> Floats:
    """A factor of a Linear layer [r, in] or of a 1×1 convolution [r, in, 1, 1] as a matrix."""
    return factor.reshape(factor.shape[0], -1).astype(np.float64)


class Robust(Aggregator):
    """Flower's rules that withstand bad updates; every site counts once."""

    def __init__(self, name: str, strategy: FedAvg, minimum: int) -> None:
        super().__init__(name, "sites")
        self.minimum = minimum
        self._strategy = strategy

    def _combine(self, _: Arrays, updates: list[Update], weights: Floats) -> Arrays:
        return _flower(self._strategy, 1, updates, weights)


class ServerOptimiser(Aggregator):
    """Flower's FedAdam and FedYogi: the mean update is a gradient for the server's own step."""

    def __init__(self, name: str, strategy: FedAdam | FedYogi, weighting: Weighting) -> None:
        super().__init__(name, weighting)
        self._strategy = strategy
        self._steps = 0

    def _combine(self, current: Arrays, updates: list[Update], weights: Floats) -> Arrays:
        # Flower corrects Adam's bias with t = server_round + 1, so the steps done before this one
        # are passed: not the round, which need not start at the optimiser's first step.
        self._strategy.current_arrays = {
            key: array.astype(np.float64) for key, array in current.items()
        }
        stepped = _flower(self._strategy, self._steps, updates, weights)
        self._steps += 1
        return stepped

    def state(self) -> Arrays:
        """First and second moments (float64), and the number of steps."""
        if self._steps == 0:
            return {}
        moments = {"m": self._strategy.m_t or {}, "v": self._strategy.v_t or {}}
        return {f"{self.name}/steps": np.asarray(self._steps)} | {
            f"{self.name}/{moment}/{key}": np.asarray(array)
            for moment, arrays in moments.items()
            for key, array in arrays.items()
        }

    def restore(self, state: Arrays) -> None:
        """Take up moments and steps; see `Aggregator.restore`."""
        if any(not key.startswith(f"{self.name}/") for key in state):
            raise CheckpointError(_wrong_state(self.name, state))
        self._steps = int(state.get(f"{self.name}/steps", 0))
        self._strategy.m_t = _below(state, f"{self.name}/m/")
        self._strategy.v_t = _below(state, f"{self.name}/v/")


def _below(state: Arrays, prefix: str) -> Arrays:
    return {
        key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)
    }


def _wrong_state(name: str, state: Arrays) -> str:
    return (
        f"the checkpoint holds the state of another aggregation rule ({min(state).split('/')[0]}), "
        f"the study asks for {name}: restore federation.aggregation, or start the run anew"
    )


def _flower(strategy: FedAvg, step: int, updates: list[Update], weights: Floats) -> Arrays:
    """`strategy.aggregate_train` on one reply for each site."""
    replies = [_reply(update, weight) for update, weight in zip(updates, weights, strict=True)]
    record, _ = strategy.aggregate_train(step, replies)
    if record is None:
        raise FederationError(f"{type(strategy).__name__} gave no result: see the log above")
    return {key: array.numpy() for key, array in record.items()}


def _reply(update: Update, weight: float) -> Message:
    """An update as the Message it came in, in float64.

    The moments take over the dtype, and Krum computes distances as |x|² + |y|² - 2·x·y, which in
    float32 cancels to noise: weights differ far less between sites than they are large.
    """
    arrays = {key: Array(np.asarray(array, np.float64)) for key, array in update.arrays.items()}
    metrics = MetricRecord({"num-examples": float(weight)})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return training_reply(content)
