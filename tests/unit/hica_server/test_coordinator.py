import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans

from hica.errors import FederationError
from hica.method.calibration import curvature, newton_step
from hica.privacy.budget import noise_deviation
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import DRAWN_START, LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.wire.messages import Kind
from hica.wire.weight_names import BANK_CLASSES


@pytest.fixture
def meet(make_run):
    """A run whose coordinator has met these sites."""
    return lambda *sites, **more: make_run(*sites, **more).meet()


# --- Who is asked, and what is noted -------------------------------------------------------------


def test_only_sites_with_images_of_the_role_are_asked(meet, make_site):
    unlabelled, trainer, tester = (
        make_site("a", labelled=0, test=0),
        make_site("b"),
        make_site("c", labelled=2, unlabelled=2, test=6),
    )
    meet(unlabelled, trainer, tester).take(CENTRE).take(ALIGNMENT).take(EVALUATION)
    assert unlabelled.asked() == [Kind.CAPABILITIES, CENTRE.kind]
    kinds = [CENTRE.kind, ALIGNMENT.kind, EVALUATION.kind]
    assert tester.asked() == [Kind.CAPABILITIES, *kinds]


def test_too_few_labelled_sites_for_the_quorum_stop_the_run_before_anyone_is_asked(meet, make_site):
    sites = [make_site("a"), make_site("b", labelled=0), make_site("c", labelled=0)]
    run = meet(*sites)
    words = r"train\.align: 1 site\(s\) have labelled images, needed are 2"
    with pytest.raises(FederationError, match=words):
        run.take(ALIGNMENT)
    assert sites[0].asked() == [Kind.CAPABILITIES]


def test_a_rule_that_needs_more_updates_than_the_quorum_raises_it(meet, make_site):
    overrides = ["federation.aggregation=krum", "federation.quorum=1"]
    run = meet(make_site("a"), make_site("b"), overrides=overrides)
    with pytest.raises(FederationError, match=r"needed are 3 \(federation\.quorum = 1, .*'krum'"):
        run.take(ALIGNMENT)
    run.take(CENTRE)  # nothing but updates needs that many


def test_a_site_that_fails_is_recorded_and_the_others_go_on(meet, make_site):
    run = meet(make_site("a", 1.0), make_site("b", 1.0), make_site("c", 1.0))
    run.grid.answers[2] = lambda message: "disk is full"
    run.grid.answers[3] = lambda message: None
    before = run.learnt
    with pytest.raises(FederationError, match="1 of 3 sites"):
        run.take(ALIGNMENT)
    assert run.learnt is before
    run.grid.answers[3] = make_site("c", 1.0)
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "c"]
    assert run.last["refused"] == {"b": "failed at the site: disk is full"}


def test_every_exchange_is_noted_and_told_as_it_is(meet, make_site):
    run = meet(make_site("a", 1.0), make_site("b", 1.0)).take(CENTRE).take(ALIGNMENT, 1)
    assert run.told == run.state.rounds
    assert [(entry["stage"], entry["round"]) for entry in run.told] == [
        ("capabilities", 0),
        ("centre", 0),
        ("alignment", 1),
    ]
    fields = ["stage", "round", "seconds", "bytes_up", "bytes_down", "participants"]
    fields += ["refused", "missing", "loss"]
    assert list(run.told[1]) == fields
    assert list(run.told[2]) == [*fields, "site_loss", "lora_discarded"]
    assert all(entry["bytes_up"] > 0 and entry["bytes_down"] > 0 for entry in run.told)


def test_who_joins_later_is_noted_before_the_exchange_it_joins(make_run, make_site):
    sites = {"a": 1, "b": 2, "c": None}
    run = make_run(*(make_site(name, 1.0) for name in "abc"), roster=lambda: dict(sites))
    run.meet().take(ALIGNMENT)
    sites["c"] = 3
    run.take(ALIGNMENT, 1).take(ALIGNMENT, 2)
    stages = [(entry["stage"], entry["participants"]) for entry in run.state.rounds]
    assert stages[1:] == [
        ("alignment", ["a", "b"]),
        ("capabilities", ["c"]),
        ("alignment", ["a", "b", "c"]),
        ("alignment", ["a", "b", "c"]),
    ]


def test_a_site_of_an_earlier_start_that_is_gone_is_missing_in_every_exchange(make_run, make_site):
    sites = {"a": 1, "b": 2, "c": 3}
    scripted = [make_site(name, 1.0) for name in "abc"]
    before = make_run(*scripted, roster=lambda: dict(sites)).meet()
    sites["c"] = None
    run = make_run(*scripted, roster=lambda: dict(sites), state=before.state)
    run.meet().take(ALIGNMENT)
    assert (run.last["participants"], run.last["missing"]) == (["a", "b"], ["c"])


def test_a_revoked_site_is_asked_no_more_and_not_missed(make_run, make_site):
    sites = {"a": 1, "b": 2, "c": 3}
    run = make_run(*(make_site(name, 1.0) for name in "abc"), roster=lambda: dict(sites)).meet()
    del sites["c"]
    run.take(ALIGNMENT)
    assert (run.last["participants"], run.last["missing"]) == (["a", "b"], [])
    assert run.grid.asked[-1] == [1, 2]


def test_others_wait_for_a_newcomer_only_for_a_while_and_then_as_long_as_ever(make_run, make_site):
    sites = {"a": 1, "b": 2}
    overrides = ["federation.gather=3", "federation.deadline=60"]
    scripted = [make_site("a", 1.0), make_site("b", 1.0), lambda message: None]
    run = make_run(*scripted, overrides=overrides, roster=lambda: dict(sites)).meet()
    sites["c"] = 3
    run.take(ALIGNMENT)
    assert run.grid.deadlines == [60.0, 3.0, 60.0]
    assert run.state.rounds[-2]["missing"] == ["c"]
    assert run.last["missing"] == []


def test_every_request_carries_all_a_restarted_site_needs(meet, make_site):
    site = make_site("a", 1.0)
    run = meet(site, make_site("b", 1.0)).take(ALIGNMENT)
    request = site.requests[-1]
    assert request.study == run.study
    assert set(request.arrays) == {
        "shared.tower.weight",
        f"shared.{BANK_CLASSES}",
        "anchor.classes",
        "anchor.findings",
        "bias",
        "centre",
        "scale",
    }


def test_sums_of_another_shape_are_refused_by_name(meet, make_site):
    wide = make_site("c", dim=5)
    run = meet(make_site("a"), make_site("b"), wide).take(CENTRE)
    assert run.last["refused"] == {"c": "array 'sums' has shape (2, 5), expected (2, 4)"}


# --- Training rounds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weighting", "step"), [("examples", (1 * 1 + 3 * 2) / 4), ("sites", (1 + 2) / 2)]
)
def test_the_weighting_of_the_study_reaches_the_mean(meet, make_site, weighting, step):
    run = meet(
        make_site("a", 1.0, labelled=1),
        make_site("b", 2.0, labelled=3),
        overrides=[f"federation.weighting={weighting}"],
    )
    before = {name: value.copy() for name, value in run.learnt.shared.items()}
    run.take(ALIGNMENT)
    for name, value in run.learnt.shared.items():
        np.testing.assert_allclose(value, before[name] + step, rtol=1e-6)
    assert run.last["loss"] == pytest.approx((1 * 1.0 + 3 * 2.0) / 4)  # per image, in either case
    assert run.last["site_loss"] == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("step", [PRETRAINING, ALIGNMENT])
def test_the_rate_falls_as_half_a_cosine_over_the_stage(meet, make_site, step):
    site = make_site("a", 1.0)
    run = meet(site, make_site("b", 1.0), overrides=["alignment.rounds=4", "pretraining.rounds=4"])
    for number in range(4):
        run.take(step, number)
    rates = [r.settings["rate"] for r in site.requests if r.kind == step.kind]
    assert rates == pytest.approx([(1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)])


def test_the_scale_is_the_spread_over_the_features_of_all_sites(meet, make_site):
    sites = [make_site("a", unlabelled=6), make_site("b", unlabelled=9)]
    run = meet(*sites, overrides=["alignment.scaling=global"]).take(CENTRE)
    rows = np.concatenate([site.features for site in sites])
    deviation = rows.std(axis=0)
    expected = deviation + 0.05 * deviation.mean()
    np.testing.assert_allclose(run.learnt.scale[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(run.learnt.scale[1], 1.0)  # no region anywhere
    run.take(ALIGNMENT)
    sent = sites[0].requests[-1].arrays["scale"]
    np.testing.assert_array_equal(sent, run.learnt.scale)


def test_without_scaling_the_scale_stays_what_it_was(meet, make_site):
    run = meet(make_site("a"), make_site("b"))
    before = run.learnt.scale
    run.take(CENTRE)
    assert run.learnt.scale is before


def test_an_update_too_far_from_what_was_sent_is_refused(meet, make_site):
    wild = make_site("c", 100.0)
    sites = [make_site("a", 1.0), make_site("b", 1.0), wild]
    run = meet(*sites, overrides=["federation.max_update_norm=50"])
    before = run.learnt.shared["tower.weight"].copy()
    run.take(ALIGNMENT)
    # Six weights of the tower and eight of the bank, each moved by 100.
    reason = f"update of norm {100 * math.sqrt(14):.3g}, federation.max_update_norm is 50"
    assert run.last["refused"] == {"c": reason}
    np.testing.assert_allclose(run.learnt.shared["tower.weight"], before + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda reply: replace(reply, examples=0), "no example stands behind"),
        (lambda reply: replace(reply, details={}), "loss is None"),
        (
            lambda reply: replace(reply, details={"loss": float("nan")}),
            "details: loss: Input should be a finite number",
        ),
        (
            lambda reply: replace(reply, details={"loss": "low"}),
            "details: loss: Input should be a valid number",
        ),
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
    bad.changes[ALIGNMENT.kind] = change
    run = meet(make_site("a", 1.0), bad, make_site("c", 1.0))
    before = run.learnt.shared["tower.weight"].copy()
    run.take(ALIGNMENT)
    assert words in run.last["refused"]["b"]
    np.testing.assert_allclose(run.learnt.shared["tower.weight"], before + 1)


def test_a_restarted_coordinator_goes_on_with_the_moments_of_the_servers_optimiser(meet, make_site):
    sites = [make_site("a", 1.0), make_site("b", 2.0)]
    overrides = ["federation.aggregation=adam"]
    run = meet(*sites, overrides=overrides).take(ALIGNMENT)

    def after_restart(**lost):
        state = replace(run.state, learnt=replace(run.learnt, **lost))
        again = meet(*sites, overrides=overrides, state=state).take(ALIGNMENT, 1)
        return again.learnt.shared["tower.weight"]

    restarted, forgetful = after_restart(), after_restart(optimiser={})
    run.take(ALIGNMENT, 1)
    np.testing.assert_array_equal(run.learnt.shared["tower.weight"], restarted)
    assert not np.array_equal(forgetful, restarted)


# --- Centre and clusters -------------------------------------------------------------------------


def test_the_centre_is_the_mean_over_all_images(meet, make_site):
    sites = [make_site("a", unlabelled=3), make_site("b", unlabelled=8)]
    run = meet(*sites).take(CENTRE)
    pooled = np.concatenate([site.features for site in sites]).mean(axis=0)
    # No site has a region: that row takes the images' so that it stays finite.
    np.testing.assert_allclose(run.learnt.centre, [pooled, pooled], rtol=1e-6)
    assert run.learnt.centre.dtype == np.float32


@pytest.mark.parametrize("step", [CENTRE, LLOYD, PROTOTYPES])
def test_sums_with_negative_counts_are_refused(meet, make_site, step):
    def negative(reply):
        arrays = {**reply.arrays}
        if "counts" in arrays:
            arrays["counts"] = -arrays["counts"]
        return replace(reply, arrays=arrays)

    bad = make_site("b")
    bad.changes[step.kind] = negative
    overrides = ["pretraining.clusters=2"]
    run = meet(make_site("a"), bad, make_site("c"), overrides=overrides)
    alone = meet(make_site("a"), make_site("c"), overrides=overrides)
    for each in (run, alone):
        each.take_all(step.name)
    told = [entry for entry in run.state.rounds if entry["stage"] == step.name and entry["refused"]]
    assert len(told) == (6 if step is LLOYD else 1)  # the start of k-means, and five steps
    for entry in told:
        assert "array 'counts' holds values from -" in entry["refused"]["b"]
        assert "possible are 0 to" in entry["refused"]["b"]
    for name, array in alone.learnt.arrays().items():
        np.testing.assert_array_equal(run.learnt.arrays()[name], array)
    np.testing.assert_array_equal(run.learnt.centroids, alone.learnt.centroids)


def test_clusters_are_those_of_pooled_k_means_from_the_same_start(meet, make_site):
    sites = [make_site("a", unlabelled=20), make_site("b", unlabelled=30)]
    run = meet(*sites, overrides=["pretraining.clusters=4", "pretraining.lloyd_rounds=50"])
    run.take_all("clusters")
    steps = [r.settings["step"] for r in sites[0].requests if r.kind == LLOYD.kind]
    assert steps == ["start"] + ["lloyd"] * 50 + ["assign"]
    start = next(r.arrays["centroids"] for r in sites[0].requests if "centroids" in r.arrays)
    pooled = np.concatenate([site.features for site in sites])
    reference = KMeans(4, init=start, n_init=1, tol=0, algorithm="lloyd").fit(pooled)
    np.testing.assert_allclose(run.learnt.centroids, reference.cluster_centers_, rtol=0, atol=1e-10)
    final = sites[0].requests[-1].arrays["centroids"]
    np.testing.assert_array_equal(final, run.learnt.centroids)


def test_re_clustering_draws_another_start_and_repeating_a_round_the_same(meet, make_site):
    def centroids(round_):
        run = meet(
            make_site("a", unlabelled=30),
            make_site("b", unlabelled=30),
            overrides=[
                "pretraining.clusters=7",
                "pretraining.lloyd_rounds=1",
                "pretraining.recluster_every=1",
            ],
        )
        return run.take_all("clusters", round_).learnt.centroids

    np.testing.assert_array_equal(centroids(0), centroids(0))
    assert not np.array_equal(centroids(0), centroids(1))


PRIVATE = ["privacy.epsilon=3.0", "privacy.delta=1e-3", "privacy.mechanism=dp-sgd"]
PRIVATE += ["calibration.rounds=0"]


def test_a_drawn_start_asks_nobody_and_is_no_exchange(meet, make_site):
    site = make_site("a")
    run = meet(site, make_site("b"), overrides=PRIVATE).take(DRAWN_START)
    assert run.learnt.centroids.shape == (run.study.pretraining.clusters, 4)
    assert [entry["stage"] for entry in run.state.rounds] == ["capabilities"]
    assert site.asked() == [Kind.CAPABILITIES]


@pytest.mark.parametrize("private", [True, False])
def test_a_step_combines_the_sums_and_how_much_noise_is_in_them(
    meet, make_site, monkeypatch, private
):
    given = []

    def combine(state, received):
        given.append(received)
        return state

    sites = [make_site(name) for name in "abc"]
    run = meet(*sites, overrides=PRIVATE if private else [])
    monkeypatch.setattr(PROTOTYPES, "combine", combine)
    run.take(PROTOTYPES)
    [received] = given
    assert (received.study, received.turn.step) == (run.study, PROTOTYPES)
    assert [reply.site for reply in received.replies] == ["a", "b", "c"]
    np.testing.assert_array_equal(received.arrays["counts"], [6.0, 6.0])
    assert received.sites == 3
    assert received.deviation == noise_deviation(run.study, 3)
    assert (received.deviation > 0) == private


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


def test_prototypes_move_both_the_bank_and_what_it_is_pulled_to(meet, make_site):
    sites = [make_site("a"), make_site("b")]
    run = meet(*sites)
    texts = run.learnt.bank.classes
    shots = np.concatenate([site.features[:4] for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    run.take(PROTOTYPES)
    sums = np.stack([shots[labels == c].sum(axis=0) for c in range(2)])
    expected = slow_blended_start(texts, sums, np.bincount(labels))
    np.testing.assert_allclose(run.learnt.bank.classes, expected, rtol=1e-5)
    np.testing.assert_array_equal(run.learnt.shared[BANK_CLASSES], run.learnt.bank.classes)


# --- Intercepts and metrics ----------------------------------------------------------------------


def test_intercepts_take_the_newton_steps_of_pooled_scores(meet, make_site):
    sites = [make_site("a"), make_site("b", labelled=6)]
    run = meet(*sites, overrides=["calibration.ridge=0.1"])
    scores = np.concatenate([site.features[: len(site.labels), :2] for site in sites])
    labels = np.concatenate([site.labels for site in sites])
    pooled = np.zeros(2)
    for number in range(3):
        run.take(CALIBRATION, number)
        pooled = newton_step(pooled, [curvature(scores, labels, pooled)], 0.1)
        np.testing.assert_allclose(run.learnt.bias, pooled, rtol=0, atol=1e-13)
    assert np.abs(pooled).max() > 0.005
    np.testing.assert_array_equal(sites[0].requests[1].arrays["bias"], np.zeros(2))
    assert (run.last["stage"], run.last["round"]) == ("calibration", 2)


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
    liar.changes[CALIBRATION.kind] = spoiled
    run = meet(make_site("a"), liar, make_site("c")).take(CALIBRATION)
    alone = meet(*map(make_site, "ac")).take(CALIBRATION)
    assert words in run.last["refused"]["b"]
    np.testing.assert_array_equal(run.learnt.bias, alone.learnt.bias)


def test_metrics_of_all_sites_are_kept_and_joined(meet, make_site):
    run = meet(make_site("a", test=10), make_site("b", test=30)).take(EVALUATION)
    kept = run.learnt.evaluations["zero_shot"]
    assert {site: table["n"] for site, table in kept["per_site"].items()} == {"a": 10, "b": 30}
    assert kept["overall"]["n"] == 40
    assert kept["overall"]["accuracy"]["value"] == 1.0


def test_metrics_that_contradict_themselves_are_refused(meet, make_site):
    liar = make_site("b")
    liar.changes[EVALUATION.kind] = lambda reply: replace(reply, details=reply.details | {"n": 5})
    run = meet(make_site("a"), liar, make_site("c")).take(EVALUATION, 1)
    assert list(run.learnt.evaluations["final"]["per_site"]) == ["a", "c"]
    assert "counts: they sum to 6, but n is 5" in run.last["refused"]["b"]
