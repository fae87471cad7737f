"""Clusters: federated k-means, whose clusters are the pseudo-labels of stage 1.

Three things are asked under one kind: each site's own start, the sums of a Lloyd step, and at last
that every site keeps the cluster of each of its images. Where nobody may see a site's own clusters,
or they would cost too much privacy, the coordinator draws the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hica.method.pseudo_labels import (
    ClusterSums,
    Matrix,
    assign,
    cluster_sums,
    drawn_start,
    lloyd_step,
    merge_starts,
    noisy_lloyd_step,
    site_start,
)
from hica.seeds import derived_seed
from hica.steps.arrays import (
    CENTROIDS,
    COUNT_SCALE,
    LARGEST_FEATURE,
    Array,
    counts,
    subspace_size,
    sums,
)
from hica.steps.state import State
from hica.steps.step import Answer, Kept, Received, Rows, SiteData, Stage, Statistic, Step, Turn
from hica.study import Study
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel

LEAVES = (
    "sum of the features of each group of similar images, and their number, however few they are"
)


def clusterings(study: Study) -> Iterator[int]:
    """The rounds of stage 1 before which clusters are found anew."""
    stage = study.pretraining
    for number in range(stage.rounds):
        if number == 0 or (stage.recluster_every and number % stage.recluster_every == 0):
            yield number


def _turn(step: Step, number: int, settings: dict[str, Any]) -> Turn:
    return Turn(step, (Stage.PRETRAINING, number), number, step.name, settings)


def features(data: SiteData, model: AlignmentModel) -> Matrix:
    """Unit embeddings [n, D] of the site's unlabelled images."""
    rows: Matrix = data.embedded("unlabelled", model).images.double().numpy()
    return rows


def random_subspace(dim: int, wanted: int, seed: int) -> Matrix:
    """Orthonormal columns [D, d] that depend on no data; all D for `wanted` 0."""
    if wanted == 0 or wanted >= dim:
        return np.eye(dim)
    drawn = np.random.default_rng(seed).standard_normal((dim, wanted))
    return np.asarray(np.linalg.qr(drawn)[0])


def subspace_of(study: Study, width: int) -> Matrix:
    """Columns [D, d] in which a study finds its clusters; the same for everyone."""
    seed = derived_seed(study.study.seed, "subspace") % 2**32
    return random_subspace(width, subspace_size(study, width), seed)


def start_seed(study: Study, number: int) -> int:
    """Of the coordinator's part of a start."""
    return derived_seed(study.study.seed, "clusters", number) % 2**32


def is_drawn(study: Study) -> bool:
    """Whether the start depends on no image."""
    return study.privacy.secure_aggregation or study.privacy.is_private


class DrawnStart(Step):
    """A start in all directions alike, by the coordinator alone."""

    name = "clusters"
    kind = ""
    role = "unlabelled"
    leaves = ""

    def turns(self, study: Study) -> Iterator[Turn]:
        """Before every clustering of a study that hides single sites."""
        if is_drawn(study):
            yield from (_turn(self, number, {}) for number in clusterings(study))

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """No site is asked."""
        raise TypeError("no site is asked for a drawn start")

    def combine(self, state: State, received: Received) -> State:
        """Random unit rows of the subspace."""
        study = received.study
        subspace = subspace_of(study, state.width)
        seed = start_seed(study, received.turn.round)
        start = drawn_start(study.pretraining.clusters, subspace.shape[1], seed)
        return replace(state, centroids=start @ subspace.T)


class SiteStart(Step):
    """A start from a few clusters of every site's own; each is needed by itself."""

    name = "clusters"
    kind = "train.clusters"
    role = "unlabelled"
    leaves = LEAVES
    in_sum = False

    def turns(self, study: Study) -> Iterator[Turn]:
        """Before every clustering of a study that hides no site."""
        if not is_drawn(study):
            yield from (_turn(self, number, {"step": "start"}) for number in clusterings(study))

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Sums and counts of the site's own clusters."""
        largest = LARGEST_FEATURE * self.most_images(study)
        wanted = study.pretraining.clusters
        return sums((wanted, "width"), largest), counts(wanted, largest)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """k-means at the site."""
        rows = features(data, model)
        seed = derived_seed(data.study.study.seed, data.name, "clusters") % 2**32
        parts = site_start(rows, data.study.pretraining.clusters, seed)
        return Answer(parts._asdict(), len(rows))

    def combine(self, state: State, received: Received) -> State:
        """k-means over the sites' centroids."""
        starts = [
            ClusterSums(reply.arrays["sums"], reply.arrays["counts"]) for reply in received.replies
        ]
        seed = start_seed(received.study, received.turn.round)
        wanted = received.study.pretraining.clusters
        return replace(state, centroids=merge_starts(starts, wanted, seed))


class Lloyd(Statistic):
    """A Lloyd step: the centroids move to the means over all sites of what lies nearest."""

    name = "clusters"
    kind = "train.clusters"
    role = "unlabelled"
    leaves = LEAVES

    def turns(self, study: Study) -> Iterator[Turn]:
        """A number of times in every clustering."""
        for number in clusterings(study):
            for _ in range(study.pretraining.lloyd_rounds):
                yield _turn(self, number, {"step": "lloyd"})

    def asks(self, study: Study) -> tuple[Array, ...]:
        """The centroids."""
        return (CENTROIDS,)

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Sums and counts by nearest centroid; of a patient with several images, shared out."""
        largest = LARGEST_FEATURE * self.most_images(study)
        return sums(("clusters", "subspace"), largest, 1.0), counts("clusters", largest, 1.0)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """The site's sums."""
        rows = features(data, model)
        return Answer(cluster_sums(rows, request.arrays["centroids"])._asdict(), len(rows))

    def rows(self, data: SiteData, model: AlignmentModel, request: Request) -> Rows:
        """Every image's embedding in the subspace."""
        rows = features(data, model)
        subspace = subspace_of(data.study, rows.shape[1])
        nearest = assign(rows, request.arrays["centroids"])
        return Rows(rows @ subspace, nearest, np.arange(len(rows)), len(rows))

    def combine(self, state: State, received: Received) -> State:
        """One step of pooled k-means."""
        part = ClusterSums(received.arrays["sums"], received.arrays["counts"])
        if not received.study.privacy.is_private:
            return replace(state, centroids=lloyd_step(state.centroids, [part]))
        subspace = subspace_of(received.study, state.width)
        noise = received.deviation / COUNT_SCALE
        return replace(state, centroids=noisy_lloyd_step(state.centroids, part, subspace, noise))


class Assign(Step):
    """The end of a clustering: every site keeps the clusters of its images and tells none."""

    name = "clusters"
    kind = "train.clusters"
    role = "unlabelled"
    leaves = LEAVES
    in_sum = False
    keeps = ("pseudo_labels",)
    needs_noise = False

    def turns(self, study: Study) -> Iterator[Turn]:
        """At the end of every clustering."""
        yield from (_turn(self, number, {"step": "assign"}) for number in clusterings(study))

    def asks(self, study: Study) -> tuple[Array, ...]:
        """The centroids."""
        return (CENTROIDS,)

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """Nothing."""
        labels = assign(features(data, model), request.arrays["centroids"])
        kept: Kept = {"labels": labels, "images": data.images("unlabelled")}
        return Answer(keep={"pseudo_labels": kept})

    def combine(self, state: State, received: Received) -> State:
        """The state as it was."""
        return state


DRAWN_START, SITE_START, LLOYD, ASSIGN = DrawnStart(), SiteStart(), Lloyd(), Assign()
