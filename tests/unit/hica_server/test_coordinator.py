import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans

from hica.errors import FederationError
from hica.method.calibration import curvature, newton_step
from hica.wire.messages import Kind
from hica.wire.weight_names import BANK_CLASSES
from hica_server.coordinator import ASK_AGAIN, Coordinator, blended_start, spread
from hica_server.state import RunState


def unit_rows(count, seed, dim=4):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def fresh_state(study, dim=4):
    return RunState(
        study.sha256,
        shared={
            "tower.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            BANK_CLASSES: unit_rows(2, 0),
        },
        anchor={"classes": unit_rows(2, 0), "findings": np.zeros((0, dim), np.float32)},
        centre=np.zeros((2, dim), np.float32),
        bias=np.zeros(2),
    )


@pytest.fixture
def meet(make_grid, make_study):
    """A coordinator that has met these sites, at the study with these overrides."""

    def meet(*sites, overrides=()):
        study = make_study(*overrides)
        grid = make_grid(dict(enumerate(sites, start=1)))
        coordinator = Coordinator(grid, study, fresh_state(study))
        coordinator.meet_sites("good")
        return coordinator

    return meet


def last_entry(coordinator):
    return coordinator.state.rounds[-1]


# --- Meeting the sites ---------------------------------------------------------------------------


def spoil(**details):
    """A change of a reply: these details, None takes one away."""

    def change(reply):
        merged = {**reply.details, **details}
        kept = {key: value for key, value in merged.items() if value is not None}
        return replace(reply, details=kept)

    return change


def test_sites_are_met_by_name_and_what_they_tell_is_kept(meet, make_site):
    coordinator = meet(make_site("west", labelled=3), make_site("east"))
    assert coordinator.nodes == {"east": 2, "west": 1}
    assert coordinator.state.sites["west"]["labelled"] == 3
    entry = last_entry(coordinator)
    assert (entry["stage"], entry["participants"]) == ("capabilities", ["east", "west"])
    assert entry["bytes_up"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tower": "evil" * 10}, "another image tower (evilevilevil, expected good)"),
        ({"tower": None}, "another image tower (None"),
        ({"labelled": None}, "'labelled' is missing or no int"),
        ({"test": "many"}, "'test' is missing or no int"),
        ({"classes": []}, "'classes' is missing or no dict"),
        ({"device": None}, "'device' is missing or no str"),
        ({"notes": None}, "'notes' is missing or no list"),
    ],
)
def test_a_site_that_cannot_take_part_is_refused_and_the_reason_recorded(
    meet, make_site, change, words
):
    sites = [make_site(name) for name in ("a", "b", "c")]
    sites[1].changes[Kind.CAPABILITIES] = spoil(**change)
    coordinator = meet(*sites)
    assert list(coordinator.state.sites) == ["a", "c"]
    assert words in last_entry(coordinator)["refused"]["node 2"]


def test_too_few_sites_stop_the_run_with_their_reasons(meet, make_site):
    sites = [make_site(name) for name in "ab"]
    sites[1].changes[Kind.CAPABILITIES] = spoil(tower="other")
    with pytest.raises(FederationError, match=r"1 of 2 sites.*node 2: loaded another image tower"):
        meet(*sites)


def test_what_a_site_notes_is_logged_under_its_name(meet, make_site, caplog):
    site = make_site("a")
    site.changes[Kind.CAPABILITIES] = spoil(notes=["learns from all there are"])
    with caplog.at_level(logging.WARNING, logger="hica.server"):
        meet(site, make_site("b"))
    assert "a: learns from all there are" in caplog.text


# --- Who is asked --------------------------------------------------------------------------------


def test_only_sites_with_images_of_the_role_are_asked(meet, make_site):
    unlabelled, trainer, tester = (
        make_site("a", labelled=0, test=0),
        make_site("b"),
        make_site("c", labelled=2, unlabelled=2, test=6),
    )
    coordinator = meet(unlabelled, trainer, tester)
    coordinator.moments(0)
    coordinator.align(0)
    coordinator.evaluate(0, "final")
    assert unlabelled.asked() == [Kind.CAPABILITIES, Kind.MOMENTS]
    assert tester.asked() == [Kind.CAPABILITIES, Kind.MOMENTS, Kind.ALIGN, Kind.EVALUATE]


def test_too_few_labelled_sites_for_the_quorum_stop_the_run_before_anyone_is_asked(meet, make_site):
    sites = [make_site("a"), make_site("b", labelled=0), make_site("c", labelled=0)]
    coordinator = meet(*sites)
    words = r"train\.align: 1 site\(s\) have labelled images, needed are 2"
    with pytest.raises(FederationError, match=words):
        coordinator.align(0)
    assert sites[0].asked() == [Kind.CAPABILITIES]


def test_a_rule_that_needs_more_updates_than_the_quorum_raises_it(meet, make_site):
    overrides = ["federation.aggregation=krum", "federation.quorum=1"]
    coordinator = meet(make_site("a"), make_site("b"), overrides=overrides)
    with pytest.raises(FederationError, match=r"needed are 3 \(federation\.quorum = 1, .*'krum'"):
        coordinator.align(0)
    coordinator.moments(0)  # nothing but updates needs that many


def test_a_site_that_fails_is_recorded_and_the_others_go_on(meet, make_site):
    coordinator = meet(make_site("a", 1.0), make_site("b", 1.0), make_site("c", 1.0))
    coordinator.grid.answers[2] = lambda message: "disk is full"
    coordinator.grid.answers[3] = lambda message: None
    with pytest.raises(FederationError, match="1 of 3 sites"):
        coordinator.align(0)
    coordinator.grid.answers[3] = make_site("c", 1.0)
    coordinator.align(0)
    entry = last_entry(coordinator)
    assert entry["participants"] == ["a", "c"]
    assert entry["refused"] == {"b": "failed at the site: disk is full"}


# --- Enrolled sites that come and go -------------------------------------------------------------


class Roster:
    """Enrolled sites, each on the node of a grid with its number in the list."""

    def __init__(self, *names):
        self.sites = {name: node for node, name in enumerate(names, start=1)}

    def __call__(self):
        return dict(self.sites)

    def away(self, name):
        self.sites[name] = None

    def back(self, name, node):
        self.sites[name] = node


@pytest.fixture
def open_to(make_grid, make_study):
    """A coordinator of enrolled sites, before it has met them; returns it and its roster."""

    def open_to(*sites, overrides=()):
        study = make_study(*overrides)
        grid = make_grid(dict(enumerate(sites, start=1)))
        roster = Roster(*(site.name for site in sites))
        return Coordinator(grid, study, fresh_state(study), roster=roster), roster

    return open_to


def asked_for_capabilities(site):
    return site.asked().count(Kind.CAPABILITIES)


def test_a_node_that_answers_under_another_name_than_it_is_enrolled_is_refused_by_that_name(
    open_to, make_site
):
    coordinator, roster = open_to(make_site("a"), make_site("b"), make_site("c"))
    coordinator.grid.answers[3] = make_site("a")
    coordinator.meet_sites("good")
    assert list(coordinator.state.sites) == ["a", "b"]
    assert last_entry(coordinator)["refused"] == {"c": "answers as 'a'"}
    assert roster()["c"] == 3


def test_an_enrolled_site_that_is_not_connected_is_missing_at_the_start(open_to, make_site):
    coordinator, roster = open_to(make_site("a"), make_site("b"), make_site("c"))
    roster.away("c")
    coordinator.meet_sites("good")
    assert last_entry(coordinator)["missing"] == ["c"]


def test_a_site_that_connects_later_is_asked_once_and_takes_part(open_to, make_site):
    late = make_site("c", 1.0)
    coordinator, roster = open_to(make_site("a", 1.0), make_site("b", 1.0), late)
    roster.away("c")
    coordinator.meet_sites("good")
    coordinator.align(0)
    assert late.requests == []
    roster.back("c", 3)
    coordinator.align(1)
    coordinator.align(2)
    assert late.asked() == [Kind.CAPABILITIES, Kind.ALIGN, Kind.ALIGN]
    stages = [(entry["stage"], entry["participants"]) for entry in coordinator.state.rounds]
    assert stages[-3:] == [
        ("capabilities", ["c"]),
        ("alignment", ["a", "b", "c"]),
        ("alignment", ["a", "b", "c"]),
    ]


def test_a_site_of_an_earlier_start_that_is_gone_is_missing_in_every_exchange(open_to, make_site):
    before, _ = open_to(make_site("a", 1.0), make_site("b", 1.0), make_site("c", 1.0))
    before.meet_sites("good")
    coordinator, roster = open_to(make_site("a", 1.0), make_site("b", 1.0), make_site("c", 1.0))
    coordinator.state.sites = before.state.sites
    roster.away("c")
    coordinator.meet_sites("good")
    coordinator.align(0)
    entry = last_entry(coordinator)
    assert (entry["participants"], entry["missing"]) == (["a", "b"], ["c"])


def test_a_revoked_site_is_asked_no_more_and_not_missed(open_to, make_site):
    coordinator, roster = open_to(*(make_site(name, 1.0) for name in "abc"))
    coordinator.meet_sites("good")
    del roster.sites["c"]
    coordinator.align(0)
    entry = last_entry(coordinator)
    assert (entry["participants"], entry["missing"]) == (["a", "b"], [])
    assert coordinator.grid.asked[-1] == [1, 2]


def test_a_site_with_a_new_key_answers_from_its_new_node(open_to, make_site):
    coordinator, roster = open_to(make_site("a", 1.0), make_site("b", 1.0))
    coordinator.meet_sites("good")
    coordinator.grid.answers[7] = coordinator.grid.answers.pop(2)
    roster.back("b", 7)
    coordinator.align(0)
    assert coordinator.nodes == {"a": 1, "b": 7}
    assert last_entry(coordinator)["participants"] == ["a", "b"]


def test_a_site_that_could_not_join_is_asked_again_after_it_was_away_or_after_a_while(
    open_to, make_site, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr("hica_server.coordinator.time.monotonic", lambda: clock[0])
    wrong = make_site("c", 1.0)
    wrong.changes[Kind.CAPABILITIES] = spoil(tower="other")
    coordinator, roster = open_to(make_site("a", 1.0), make_site("b", 1.0), wrong)
    coordinator.meet_sites("good")
    coordinator.align(0)
    assert asked_for_capabilities(wrong) == 1
    roster.away("c")
    coordinator.align(1)
    roster.back("c", 3)
    coordinator.align(2)
    assert asked_for_capabilities(wrong) == 2
    clock[0] = ASK_AGAIN + 1
    wrong.changes = {}
    coordinator.align(3)
    assert last_entry(coordinator)["participants"] == ["a", "b", "c"]


def test_the_others_do_not_wait_a_whole_round_for_a_newcomer(open_to, make_site):
    overrides = ["federation.gather=3", "federation.deadline=60"]
    coordinator, roster = open_to(make_site("a", 1.0), make_site("b", 1.0), overrides=overrides)
    coordinator.grid.answers[3] = lambda message: None
    coordinator.meet_sites("good")
    roster.back("c", 3)
    coordinator.align(0)
    assert coordinator.grid.deadlines == [60.0, 3.0, 60.0]
    assert coordinator.state.rounds[-2]["missing"] == ["c"]
    assert last_entry(coordinator)["missing"] == []


def test_without_a_roster_nobody_joins_later(meet, make_site):
    coordinator = meet(make_site("a", 1.0), make_site("b", 1.0))
    late = make_site("c", 1.0)
    coordinator.grid.answers[3] = late
    coordinator.align(0)
    assert late.requests == []


# --- Training rounds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weighting", "step"), [("examples", (1 * 1 + 3 * 2) / 4), ("sites", (1 + 2) / 2)]
)
def test_the_weighting_of_the_study_reaches_the_mean(meet, make_site, weighting, step):
    coordinator = meet(
        make_site("a", 1.0, labelled=1),
        make_site("b", 2.0, labelled=3),
        overrides=[f"federation.weighting={weighting}"],
    )
    before = {name: value.copy() for name, value in coordinator.state.shared.items()}
    coordinator.align(0)
    for name, value in coordinator.state.shared.items():
        np.testing.assert_allclose(value, before[name] + step, rtol=1e-6)
    entry = last_entry(coordinator)
    assert entry["loss"] == pytest.approx((1 * 1.0 + 3 * 2.0) / 4)  # per image, in either case
    assert entry["site_loss"] == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("kind", [Kind.PRETRAIN, Kind.ALIGN])
def test_the_rate_falls_as_half_a_cosine_over_the_stage(meet, make_site, kind):
    site = make_site("a", 1.0)
    coordinator = meet(
        site, make_site("b", 1.0), overrides=["alignment.rounds=4", "pretraining.rounds=4"]
    )
    for number in range(4):
        (coordinator.align if kind == Kind.ALIGN else coordinator.pretrain)(number)
    rates = [r.settings["rate"] for r in site.requests if r.kind == kind]
    assert rates == pytest.approx([(1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)])


def test_every_request_carries_all_a_restarted_site_needs(meet, make_site):
    site = make_site("a", 1.0)
    coordinator = meet(site, make_site("b", 1.0))
    coordinator.align(0)
    request = site.requests[-1]
    assert request.study == coordinator.study
    assert set(request.arrays) == {
        "shared.tower.weight",
        f"shared.{BANK_CLASSES}",
        "anchor.classes",
        "anchor.findings",
        "bias",
        "centre",
        "scale",
    }


def test_the_scale_is_the_spread_over_the_features_of_all_sites(meet, make_site):
    sites = [make_site("a", unlabelled=6), make_site("b", unlabelled=9)]
    coordinator = meet(*sites, overrides=["alignment.scaling=global"])
    coordinator.moments(0)
    rows = np.concatenate([site.features for site in sites])
    deviation = rows.std(axis=0)
    expected = deviation + 0.05 * deviation.mean()
    np.testing.assert_allclose(coordinator.state.scale[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(coordinator.state.scale[1], 1.0)  # no region anywhere
    coordinator.align(0)
    sent = sites[0].requests[-1].arrays["scale"]
    np.testing.assert_array_equal(sent, coordinator.state.scale)


def test_without_scaling_the_scale_stays_what_it_was(meet, make_site):
    coordinator = meet(make_site("a"), make_site("b"))
    before = coordinator.state.scale
    coordinator.moments(0)
    assert coordinator.state.scale is before


def test_a_feature_that_never_moves_is_not_blown_up():
    means, counts = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([4.0, 0.0])
    squares = np.array([[4 * (1.0 + 1.0), 4 * 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(spread(means, squares, counts), [[1.025, 0.025], [1.0, 1.0]])


def test_an_update_too_far_from_what_was_sent_is_refused(meet, make_site):
    wild = make_site("c", 100.0)
    coordinator = meet(
        make_site("a", 1.0),
        make_site("b", 1.0),
        wild,
        overrides=["federation.max_update_norm=50"],
    )
    before = coordinator.state.shared["tower.weight"].copy()
    coordinator.align(0)
    # Six weights of the tower and eight of the bank, each moved by 100.
    reason = f"update of norm {100 * math.sqrt(14):.3g}, federation.max_update_norm is 50"
    assert last_entry(coordinator)["refused"] == {"c": reason}
    np.testing.assert_allclose(coordinator.state.shared["tower.weight"], before + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda reply: replace(reply, examples=0), "no example stands behind"),
        (lambda reply: replace(reply, details={}), "loss is None"),
        (lambda reply: replace(reply, details={"loss": float("nan")}), "loss is nan"),
        (lambda reply: replace(reply, details={"loss": "low"}), "loss is 'low'"),
        (
            lambda reply: replace(
                reply, arrays={**reply.arrays, "shared.tower.weight": np.full((2, 3), np.nan, "f")}
            ),
            "'shared.tower.weight' holds NaN",
        ),
        (
            lambda reply: replace(
                reply, arrays={**reply.arrays, "shared.tower.weight": np.zeros((3, 2), "f")}
            ),
            "shape (3, 2), expected (2, 3)",
        ),
    ],
)
def test_a_bad_update_is_refused_by_name_and_leaves_no_trace(meet, make_site, change, words):
    bad = make_site("b", 7.0)
    bad.changes[Kind.ALIGN] = change
    coordinator = meet(make_site("a", 1.0), bad, make_site("c", 1.0))
    before = coordinator.state.shared["tower.weight"].copy()
    coordinator.align(0)
    assert words in last_entry(coordinator)["refused"]["b"]
    np.testing.assert_allclose(coordinator.state.shared["tower.weight"], before + 1)


def test_a_restarted_coordinator_goes_on_with_the_moments_of_the_servers_optimiser(meet, make_site):
    sites = [make_site("a", 1.0), make_site("b", 2.0)]
    coordinator = meet(*sites, overrides=["federation.aggregation=adam"])
    coordinator.align(0)

    def after_restart(**lost):
        again = Coordinator(coordinator.grid, coordinator.study, replace(coordinator.state, **lost))
        again.meet_sites("good")
        again.align(1)
        return again.state.shared["tower.weight"]

    restarted, forgetful = after_restart(), after_restart(optimiser={})
    coordinator.align(1)
    np.testing.assert_array_equal(coordinator.state.shared["tower.weight"], restarted)
    assert not np.array_equal(forgetful, restarted)


# --- Centre and clusters -------------------------------------------------------------------------


def test_the_centre_is_the_mean_over_all_images(meet, make_site):
    sites = [make_site("a", unlabelled=3), make_site("b", unlabelled=8)]
    coordinator = meet(*sites)
    coordinator.moments(0)
    pooled = np.concatenate([site.features for site in sites]).mean(axis=0)
    # No site has a region: that row takes the images' so that it stays finite.
    np.testing.assert_allclose(coordinator.state.centre, [pooled, pooled], rtol=1e-6)
    assert coordinator.state.centre.dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.MOMENTS, lambda run: run.moments(0)),
        (Kind.CLUSTERS, lambda run: run.cluster(0)),
        (Kind.PROTOTYPES, lambda run: run.prototypes(0)),
    ],
)
def test_sums_with_negative_counts_are_refused(meet, make_site, kind, step):
    def negative(reply):
        return replace(reply, arrays={**reply.arrays, "counts": -reply.arrays["counts"]})

    bad = make_site("b")
    bad.changes[kind] = negative
    overrides = ["pretraining.clusters=2"]
    coordinator = meet(make_site("a"), bad, make_site("c"), overrides=overrides)
    alone = meet(make_site("a"), make_site("c"), overrides=overrides)
    step(coordinator)
    step(alone)
    assert last_entry(coordinator)["refused"] == {"b": "negative counts"}
    np.testing.assert_array_equal(coordinator.state.centre, alone.state.centre)
    np.testing.assert_array_equal(coordinator.state.centroids, alone.state.centroids)
    np.testing.assert_array_equal(
        coordinator.state.anchor["classes"], alone.state.anchor["classes"]
    )


def test_clusters_are_those_of_pooled_k_means_from_the_same_start(meet, make_site):
    sites = [make_site("a", unlabelled=20), make_site("b", unlabelled=30)]
    coordinator = meet(*sites, overrides=["pretraining.clusters=4", "pretraining.lloyd_rounds=50"])
    coordinator.cluster(0)
    steps = [r.settings["step"] for r in sites[0].requests if r.kind == Kind.CLUSTERS]
    assert steps == ["start"] + ["lloyd"] * 50 + ["assign"]
    start = next(r.arrays["centroids"] for r in sites[0].requests if "centroids" in r.arrays)
    pooled = np.concatenate([site.features for site in sites])
    reference = KMeans(4, init=start, n_init=1, tol=0, algorithm="lloyd").fit(pooled)
    np.testing.assert_allclose(
        coordinator.state.centroids, reference.cluster_centers_, rtol=0, atol=1e-10
    )
    final = sites[0].requests[-1].arrays["centroids"]
    np.testing.assert_array_equal(final, coordinator.state.centroids)


def test_re_clustering_draws_another_start_and_repeating_a_round_the_same(meet, make_site):
    def centroids(round_):
        coordinator = meet(
            make_site("a", unlabelled=30),
            make_site("b", unlabelled=30),
            overrides=["pretraining.clusters=7", "pretraining.lloyd_rounds=1"],
        )
        coordinator.cluster(round_)
        return coordinator.state.centroids

    np.testing.assert_array_equal(centroids(0), centroids(0))
    assert not np.array_equal(centroids(0), centroids(1))


# --- Bank start and evaluation -------------------------------------------------------------------


def slow_blended_start(texts, sums, counts):
    dim = texts.shape[1]
    means = {
        c: [sums[c][d] / counts[c] for d in range(dim)] for c in range(len(texts)) if counts[c]
    }
    middle = [sum(mean[d] for mean in means.values()) / len(means) for d in range(dim)]
    rows = []
    for c, text in enumerate(texts):
        row = [float(x) for x in text]
        if c in means:
            away = [x - m for x, m in zip(means[c], middle, strict=True)]
            length = math.sqrt(sum(x * x for x in away))
            row = [x + y / length for x, y in zip(row, away, strict=True)]
        length = math.sqrt(sum(x * x for x in row))
        rows.append([x / length for x in row])
    return np.array(rows)


@pytest.mark.parametrize("counts", [[3.0, 5.0, 2.0], [3.0, 0.0, 2.0]])
def test_blended_start_equals_a_slow_loop(counts):
    counts = np.array(counts)
    texts = unit_rows(3, 1)
    sums = np.random.default_rng(2).normal(size=(3, 4)) * (counts > 0)[:, None]
    start = blended_start(texts, sums, counts)
    assert start.dtype == np.float32
    np.testing.assert_allclose(start, slow_blended_start(texts, sums, counts), rtol=1e-6)


def test_without_a_second_class_to_compare_with_the_bank_starts_at_its_texts():
    texts = unit_rows(2, 1)
    counts = np.array([4.0, 0.0])
    start = blended_start(texts, counts[:, None] * np.ones((2, 4)), counts)
    np.testing.assert_allclose(start, texts, rtol=1e-6)


def test_prototypes_move_both_the_bank_and_what_it_is_pulled_to(meet, make_site):
    sites = [make_site("a"), make_site("b")]
    coordinator = meet(*sites)
    texts = coordinator.state.anchor["classes"]
    shots = np.concatenate([site.features[:4] for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    coordinator.prototypes(0)
    sums = np.stack([shots[labels == c].sum(axis=0) for c in range(2)])
    expected = slow_blended_start(texts, sums, np.bincount(labels))
    np.testing.assert_allclose(coordinator.state.anchor["classes"], expected, rtol=1e-5)
    np.testing.assert_array_equal(
        coordinator.state.shared[BANK_CLASSES], coordinator.state.anchor["classes"]
    )


# --- Intercepts and metrics ----------------------------------------------------------------------


def test_intercepts_take_the_newton_steps_of_pooled_scores(meet, make_site):
    sites = [make_site("a"), make_site("b", labelled=6)]
    coordinator = meet(*sites, overrides=["calibration.ridge=0.1"])
    scores = np.concatenate([site.features[: len(site.labels), :2] for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    pooled = np.zeros(2)
    for number in range(3):
        coordinator.calibrate(number)
        pooled = newton_step(pooled, [curvature(scores, labels, pooled)], 0.1)
        np.testing.assert_allclose(coordinator.state.bias, pooled, rtol=0, atol=1e-13)
    assert np.abs(pooled).max() > 0.01
    np.testing.assert_array_equal(sites[0].requests[1].arrays["bias"], np.zeros(2))
    assert last_entry(coordinator)["stage"] == "calibration"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"examples": 0}, "over 0 images"),
        ({"gradient": np.array([9.0, -9.0])}, "up to 9 over 4 images: each adds at most 1"),
        ({"hessian": np.array([[0.5, 0.5], [-0.5, 0.5]])}, "not positive semi-definite"),
        ({"hessian": np.array([[0.5, 0.9], [0.9, 0.5]])}, "not positive semi-definite"),
    ],
)
def test_sums_that_no_images_could_have_are_refused(meet, make_site, change, words):
    def spoiled(reply):
        examples = change.get("examples", reply.examples)
        arrays = {name: change.get(name, value) for name, value in reply.arrays.items()}
        return replace(reply, examples=examples, arrays=arrays)

    liar = make_site("b")
    liar.changes[Kind.CALIBRATE] = spoiled
    coordinator, alone = meet(make_site("a"), liar, make_site("c")), meet(*map(make_site, "ac"))
    coordinator.calibrate(0)
    alone.calibrate(0)
    assert words in last_entry(coordinator)["refused"]["b"]
    np.testing.assert_array_equal(coordinator.state.bias, alone.state.bias)


def test_metrics_of_all_sites_are_kept_and_joined(meet, make_site):
    coordinator = meet(make_site("a", test=10), make_site("b", test=30))
    coordinator.evaluate(0, "zero_shot")
    kept = coordinator.state.evaluations["zero_shot"]
    assert {site: table["n"] for site, table in kept["per_site"].items()} == {"a": 10, "b": 30}
    assert kept["overall"]["n"] == 40
    assert kept["overall"]["accuracy"]["value"] == 1.0


def test_metrics_that_contradict_themselves_are_refused(meet, make_site):
    liar = make_site("b")
    liar.changes[Kind.EVALUATE] = spoil(n=5)
    coordinator = meet(make_site("a"), liar, make_site("c"))
    coordinator.evaluate(0, "final")
    assert list(coordinator.state.evaluations["final"]["per_site"]) == ["a", "c"]
    assert "counts: they sum to 6, but n is 5" in last_entry(coordinator)["refused"]["b"]
