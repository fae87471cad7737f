import numpy as np
import pytest
from sklearn.cluster import KMeans

from hica.errors import MessageError
from hica.method.pseudo_labels import (
    ClusterSums,
    assign,
    cluster_sums,
    drawn_start,
    merge_starts,
    noisy_lloyd_step,
    site_start,
)
from hica.privacy.statistics import group_sums
from hica.seeds import derived_seed
from hica.steps.arrays import COUNT_SCALE
from hica.steps.clusters import (
    ASSIGN,
    DRAWN_START,
    LLOYD,
    SITE_START,
    clusterings,
    features,
    is_drawn,
    random_subspace,
    subspace_of,
)
from hica.steps.state import State
from hica.steps.step import Answer
from hica.wire.messages import Reply

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]
SECURE = "privacy.secure_aggregation=true"


def state_of(centroids, width=None):
    width = width or centroids.shape[1]
    return State(centre=np.zeros((2, width), np.float32), centroids=centroids)


# --- Subspace ------------------------------------------------------------------------------------


def test_a_subspace_is_orthonormal_and_the_same_for_everyone(toy_study):
    subspace = random_subspace(8, 3, seed=1)
    assert np.abs(subspace.T @ subspace - np.eye(3)).max() < 1e-14
    assert (subspace == random_subspace(8, 3, seed=1)).all()
    assert not (subspace == random_subspace(8, 3, seed=2)).any()
    assert (random_subspace(4, 0, 1) == np.eye(4)).all()
    assert (random_subspace(4, 5, 1) == np.eye(4)).all()


def test_a_study_draws_its_subspace_from_its_own_seed(toy_study):
    named = [*PRIVATE, "privacy.cluster_dimensions=3"]
    one, again, other = (toy_study(*named, f"study.seed={seed}") for seed in (0, 0, 1))
    assert subspace_of(one, 8).shape == (8, 3)
    assert (subspace_of(one, 8) == subspace_of(again, 8)).all()
    assert not (subspace_of(one, 8) == subspace_of(other, 8)).any()
    assert (subspace_of(toy_study("privacy.cluster_dimensions=3"), 8) == np.eye(8)).all()


def test_clusters_in_a_subspace_are_those_of_the_projected_rows(new_site, toy_study, ask):
    study = toy_study(*PRIVATE, "privacy.cluster_dimensions=3")
    site = new_site(study)
    subspace = subspace_of(study, 128)
    state = site.asked_with()
    state.centroids[:] = drawn_start(3, 3, seed=2) @ subspace.T
    parts = LLOYD.rows(site, site.model, ask(study, LLOYD, state))
    projected = features(site, site.model) @ subspace
    np.testing.assert_allclose(parts.rows, projected, rtol=0, atol=1e-14)
    flat = assign(projected, state.centroids @ subspace)
    assert parts.groups.tolist() == flat.tolist()
    assert parts.images.tolist() == list(range(6)) and parts.examples == 6


def test_with_an_image_a_patient_the_private_sums_are_those_of_k_means(new_site, toy_study, ask):
    study = toy_study(*PRIVATE)
    site = new_site(study)
    request = ask(study, LLOYD, site.asked_with())
    parts = LLOYD.rows(site, site.model, request)
    ours = group_sums(parts.rows, parts.groups, 3, np.ones(6))
    exact = cluster_sums(features(site, site.model), request.arrays["centroids"])
    assert np.abs(ours.sums - exact.sums).max() < 1e-6  # a unit row may be longer by rounding
    assert ours.counts.tolist() == exact.counts.tolist()


# --- Start ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "before"), [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])]
)
def test_clusters_are_found_anew_on_schedule(toy_study, every, before):
    study = toy_study("pretraining.rounds=5", f"pretraining.recluster_every={every}")
    assert list(clusterings(study)) == before
    assert list(clusterings(toy_study("pretraining.rounds=0"))) == []


def test_the_start_is_drawn_where_no_site_may_be_seen_by_itself(toy_study):
    for study, drawn in ((toy_study(), False), (toy_study(SECURE), True)):
        assert is_drawn(study) is drawn
    assert is_drawn(toy_study(*PRIVATE))


def test_a_drawn_start_is_unit_rows_of_the_subspace_whatever_the_images_are(toy_study, receive):
    study = toy_study(*PRIVATE, "privacy.cluster_dimensions=5")
    received = receive(study, DRAWN_START, {})
    start = DRAWN_START.combine(state_of(np.zeros((0, 8)), 8), received).centroids
    subspace = subspace_of(study, 8)
    assert start.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(start @ subspace @ subspace.T, start, rtol=0, atol=1e-12)


def test_no_site_answers_for_a_drawn_start(new_site, toy_study):
    site = new_site(toy_study(SECURE))
    with pytest.raises(TypeError, match="no site is asked"):
        DRAWN_START.answer(site, site.model, None)


def test_a_site_starts_from_clusters_of_its_own(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    answer = SITE_START.answer(site, site.model, ask(study, SITE_START, site.asked_with()))
    seed = derived_seed(study.study.seed, "north", "clusters") % 2**32
    expected = site_start(features(site, site.model), 3, seed)
    np.testing.assert_array_equal(answer.arrays["sums"], expected.sums)
    np.testing.assert_array_equal(answer.arrays["counts"], expected.counts)
    assert answer.arrays["counts"].sum() == answer.examples == 6


def test_re_clustering_merges_another_start_and_repeating_a_round_the_same(toy_study, receive):
    study = toy_study(
        "pretraining.rounds=2", "pretraining.recluster_every=1", "pretraining.clusters=7"
    )
    draws = np.random.default_rng(0)
    parts = [site_start(draws.normal(size=(30, 4)), 7, seed) for seed in range(2)]
    answers = {site: Answer(part._asdict(), 30) for site, part in zip("ab", parts, strict=True)}
    first, again, second = (
        SITE_START.combine(
            state_of(np.zeros((0, 4)), 4), receive(study, SITE_START, answers, number)
        ).centroids
        for number in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    seed = derived_seed(study.study.seed, "clusters", 0) % 2**32
    np.testing.assert_array_equal(first, merge_starts(parts, 7, seed))


# --- Lloyd's steps -------------------------------------------------------------------------------


def test_steps_over_all_sites_are_those_of_pooled_k_means(toy_study, receive):
    draws = np.random.default_rng(0)
    sites = {name: draws.normal(size=(size, 4)) for name, size in (("a", 20), ("b", 35))}
    pooled = np.concatenate(list(sites.values()))
    state = state_of(pooled[:3])
    for _ in range(4):
        answers = {
            name: Answer(cluster_sums(rows, state.centroids)._asdict(), len(rows))
            for name, rows in sites.items()
        }
        state = LLOYD.combine(state, receive(toy_study(), LLOYD, answers))
    reference = KMeans(3, init=pooled[:3], n_init=1, max_iter=4, tol=0, algorithm="lloyd")
    np.testing.assert_allclose(
        state.centroids, reference.fit(pooled).cluster_centers_, rtol=0, atol=1e-10
    )


def test_a_site_s_part_of_a_step_is_of_all_its_unlabelled_images(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    request = ask(study, LLOYD, site.asked_with())
    answer = LLOYD.answer(site, site.model, request)
    rows = site.embedded("unlabelled", site.model).images.double().numpy()
    expected = cluster_sums(rows, request.arrays["centroids"])
    np.testing.assert_array_equal(answer.arrays["sums"], expected.sums)
    np.testing.assert_array_equal(answer.arrays["counts"], expected.counts)
    assert answer.examples == 6 and answer.keep == {}  # only the last request fixes labels
    assert set(site.looked) == {"unlabelled"}


def test_a_step_of_a_private_study_is_in_its_subspace_and_knows_the_noise(toy_study, receive):
    study = toy_study(*PRIVATE, "privacy.cluster_dimensions=3")
    subspace = subspace_of(study, 8)
    state = state_of(drawn_start(3, 3, seed=0) @ subspace.T)
    part = ClusterSums(np.random.default_rng(1).normal(size=(3, 3)), np.array([9.0, 7.0, 8.5]))
    received = receive(study, LLOYD, {"a": Answer(part._asdict())}, deviation=8.0 * COUNT_SCALE)
    moved = LLOYD.combine(state, received).centroids
    expected = noisy_lloyd_step(state.centroids, part, subspace, deviation=8.0)
    np.testing.assert_array_equal(moved, expected)
    assert (moved[1] == state.centroids[1]).all()  # its count is lost in noise
    assert not (moved[[0, 2]] == state.centroids[[0, 2]]).any()


@pytest.mark.parametrize("step", [SITE_START, LLOYD])
def test_negative_counts_are_refused_but_not_with_noise(toy_study, step):
    arrays = {"sums": np.zeros((3, 4)), "counts": np.array([3.0, -1.0, 2.0])}
    reply = Reply(step.kind, "a", 0, 4, {}, arrays)
    with pytest.raises(MessageError, match="array 'counts' holds values from -1 to 3"):
        step.check(toy_study(), State(), reply)
    LLOYD.check(toy_study(*PRIVATE), State(), reply)


# --- The end -------------------------------------------------------------------------------------


def test_the_last_request_has_the_site_keep_its_labels_and_tell_nothing(
    new_site, toy_study, ask, receive
):
    study = toy_study()
    site = new_site(study)
    state = site.asked_with()
    answer = ASSIGN.answer(site, site.model, ask(study, ASSIGN, state))
    labels = assign(features(site, site.model), state.centroids)
    assert answer.keep["pseudo_labels"]["labels"].tolist() == labels.tolist()
    assert (answer.arrays, answer.examples, answer.details) == ({}, 0, {})
    assert ASSIGN.combine(state, receive(study, ASSIGN, {"a": answer})) is state


@pytest.mark.parametrize("step", [LLOYD, ASSIGN])
def test_the_centroids_that_are_sent_are_those_of_the_state(toy_study, step):
    centroids = np.eye(3, 8)
    assert step.asked(toy_study(), state_of(centroids))["centroids"] is centroids
    assert [array.name for array in step.asks(toy_study())] == ["centroids"]
    assert SITE_START.asked(toy_study(), state_of(centroids)) == {}
