"""The five exchanges of a secure sum, and the coordinator's steps made of them."""

from dataclasses import replace

import numpy as np
import pytest

from hica.deployment.keys import generate, read_private
from hica.errors import FederationError
from hica.secure_sum.wire import SignedKeys
from hica.wire.messages import Kind
from hica_server.coordinator import Coordinator
from hica_server.state import RunState

from .secure_site import SecureSite

SECURE = [Kind.KEYS, Kind.SHARES, Kind.ALIGN, Kind.SURVIVORS, Kind.UNMASK]


@pytest.fixture
def keys(tmp_path):
    """A key for each of five sites."""
    made = {}
    for name in "abcde":
        public = generate(tmp_path / name)
        made[name] = (read_private(tmp_path / name), public)
    return made


@pytest.fixture
def meet(make_grid, make_study, make_site, keys):
    """A coordinator and its sites, a to e as many as wanted; and the same without secrets."""

    def meet(count, *overrides, registered=False, secure=True, **fields):
        names = "abcde"[:count]
        public = {name: keys[name][1] for name in names}
        plain = [
            make_site(name, step=0.01 * number, **{key: f(number) for key, f in fields.items()})
            for number, name in enumerate(names, start=1)
        ]
        sites = [SecureSite(site, keys[site.name][0], public) for site in plain]
        flag = f"privacy.secure_aggregation={str(secure).lower()}"
        study = make_study(flag, *overrides)
        grid = make_grid(dict(enumerate(sites if secure else plain, start=1)))
        coordinator = Coordinator(
            grid, study, fresh_state(study), registered=public if registered else None
        )
        coordinator.meet_sites("good")
        return coordinator, sites

    return meet


def fresh_state(study, dim=4):
    rows = np.eye(2, dim, dtype=np.float32)
    return RunState(
        study.sha256,
        shared={"tower.weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
        anchor={"classes": rows, "findings": np.zeros((0, dim), np.float32)},
        centre=np.zeros((2, dim), np.float32),
        bias=np.zeros(2),
    )


def last(coordinator):
    return coordinator.state.rounds[-1]


# --- The same as without -------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["examples", "sites"])
@pytest.mark.parametrize("rule", ["mean", "adam", "yogi"])
def test_a_round_ends_in_the_weights_of_a_round_without_secrets(meet, rule, weighting):
    overrides = [f"federation.aggregation={rule}", f"federation.weighting={weighting}"]
    fields = {"labelled": lambda number: 2 * number}
    ended = []
    for secure in (True, False):
        coordinator, _ = meet(4, *overrides, secure=secure, **fields)
        coordinator.align(0)
        coordinator.align(1)
        ended.append(coordinator)
    one, other = ended
    np.testing.assert_allclose(
        one.state.shared["tower.weight"], other.state.shared["tower.weight"], atol=2e-6
    )
    assert last(one)["loss"] == pytest.approx(last(other)["loss"])
    assert last(one)["participants"] == ["a", "b", "c", "d"]
    assert last(one)["site_loss"] == {} and other.state.rounds[-1]["site_loss"]
    assert last(one)["bytes_up"] > last(other)["bytes_up"]


def test_statistics_are_those_without_secrets(meet):
    for step, result in (
        (lambda run: run.moments(0), lambda run: run.state.centre),
        (lambda run: run.prototypes(0), lambda run: run.state.anchor["classes"]),
        (lambda run: run.calibrate(0), lambda run: run.state.bias),
    ):
        results = []
        for secure in (True, False):
            coordinator, _ = meet(3, secure=secure)
            coordinator.state.shared["bank.classes"] = coordinator.state.anchor["classes"]
            step(coordinator)
            results.append(result(coordinator))
        np.testing.assert_allclose(*results, rtol=0, atol=1e-7)
        assert np.abs(results[0]).max() > 1e-3


def test_clusters_start_from_no_sites_own_and_are_k_means_from_there(meet):
    from hica.method.pseudo_labels import cluster_sums, drawn_start, lloyd_step
    from hica.seeds import derived_seed

    coordinator, sites = meet(3, "pretraining.clusters=3", "pretraining.lloyd_rounds=4")
    coordinator.cluster(0)
    steps = [r.settings["step"] for r in sites[0].site.requests if r.kind == Kind.CLUSTERS]
    assert steps == ["lloyd"] * 4 + ["assign"]
    pooled = np.concatenate([site.site.features for site in sites])
    expected = drawn_start(3, 4, derived_seed(0, "clusters", 0) % 2**32)
    for _ in range(4):
        expected = lloyd_step(expected, [cluster_sums(pooled, expected)])
    np.testing.assert_allclose(coordinator.state.centroids, expected, atol=1e-9)
    assert sites[0].asked.count(Kind.KEYS) == 4  # what is told only needs no sum


def test_the_exchanges_are_five_and_metrics_are_plain(meet):
    coordinator, sites = meet(3)
    coordinator.align(0)
    coordinator.evaluate(0, "final")
    assert sites[0].asked == [Kind.CAPABILITIES, *SECURE, Kind.EVALUATE]
    assert coordinator.state.evaluations["final"]["overall"]["n"] == 18


# --- Dropouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SECURE)
def test_a_site_that_drops_out_is_missing_and_the_others_go_on(meet, kind):
    coordinator, sites = meet(4, "federation.weighting=sites")
    sites[3].silent = [kind]
    before = coordinator.state.shared["tower.weight"].copy()
    coordinator.align(0)
    in_the_sum = kind in (Kind.SURVIVORS, Kind.UNMASK)
    step = np.mean([0.01, 0.02, 0.03, 0.04] if in_the_sum else [0.01, 0.02, 0.03])
    np.testing.assert_allclose(coordinator.state.shared["tower.weight"], before + step, atol=1e-6)
    entry = last(coordinator)
    assert entry["participants"] == ["a", "b", "c", "d"][: 4 if in_the_sum else 3]
    assert entry["missing"] == ([] if in_the_sum else ["d"])


@pytest.mark.parametrize("kind", SECURE)
def test_below_the_threshold_a_new_session_is_tried(meet, kind):
    coordinator, sites = meet(3)
    sites[2].silent = [kind]
    coordinator.align(0)
    assert last(coordinator)["participants"] == ["a", "b", "c"]
    assert len(set(sites[0].sessions)) == len(sites[0].sessions) == 2


def test_below_the_threshold_in_every_try_the_run_stops_and_nothing_has_changed(meet):
    coordinator, sites = meet(4)
    for site in sites[2:]:
        site.silent = [Kind.ALIGN] * 2
    before = coordinator.state.shared["tower.weight"].copy()
    words = (
        r"train\.align round 0: no secure sum, and nothing was learnt of any site: .*2 of 4 sites "
        r"gave a usable answer, the threshold of the secure sum is 3 \(c: no answer within 5 s; "
        r"d: no answer .*run the same command again, which starts with new keys"
    )
    with pytest.raises(FederationError, match=words):
        coordinator.align(0)
    np.testing.assert_array_equal(coordinator.state.shared["tower.weight"], before)
    coordinator.align(0)
    assert last(coordinator)["participants"] == ["a", "b", "c", "d"]


def test_with_fewer_than_three_sites_nobody_is_asked(meet):
    coordinator, sites = meet(2, "federation.quorum=1")
    with pytest.raises(FederationError, match=r"2 site\(s\) have labelled .* needed are 3 .*sec"):
        coordinator.align(0)
    assert sites[0].asked == [Kind.CAPABILITIES]


# --- Sites and coordinators that cheat -----------------------------------------------------------


def test_a_coordinator_that_swaps_a_key_gets_no_sum(meet):
    coordinator, sites = meet(4)

    def swap(reply):
        keys = SignedKeys.from_json(reply.details)
        return replace(reply, details=replace(keys, mask_key=bytes(range(32))).to_json())

    sites[3].changes[Kind.KEYS] = swap  # as if on the way through the coordinator
    with pytest.raises(
        FederationError, match=r"a: failed at the site: the keys of 'd' are not sig"
    ):
        coordinator.align(0)
    assert Kind.ALIGN not in sites[0].asked


def test_an_honest_coordinator_leaves_out_who_has_not_signed_its_keys(meet):
    coordinator, sites = meet(4, registered=True)
    sites[3].key = sites[2].key
    sites[3].registered = {**sites[3].registered, "d": sites[2].registered["c"]}
    coordinator.align(0)
    entry = last(coordinator)
    assert entry["participants"] == ["a", "b", "c"]
    assert "the keys of 'd' are not signed by its registered key" in entry["refused"]["d"]


def test_a_site_that_joined_after_the_kits_is_left_out(meet):
    coordinator, _ = meet(4, registered=True)
    coordinator.registered = {n: k for n, k in coordinator.registered.items() if n != "d"}
    coordinator.align(0)
    assert "is not in the start kits' list of keys" in last(coordinator)["refused"]["d"]


def test_a_site_that_sends_anothers_keys_is_refused(meet):
    coordinator, sites = meet(4)
    sites[3].changes[Kind.KEYS] = lambda reply: replace(
        reply, details={**reply.details, "site": "a"}
    )
    coordinator.align(0)
    assert last(coordinator)["refused"] == {"d": "sends the keys of 'a'"}


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.SHARES])
def test_nonsense_in_an_answer_is_refused_by_name(meet, kind):
    coordinator, sites = meet(4)
    sites[3].changes[kind] = lambda reply: replace(reply, details={"sealed": 3})
    coordinator.align(0)
    assert "no table of" in last(coordinator)["refused"]["d"]


@pytest.mark.parametrize("kind", [Kind.SURVIVORS, Kind.UNMASK])
def test_nonsense_after_the_numbers_are_in_does_not_harm_the_sum(meet, kind):
    coordinator, sites = meet(4)
    sites[3].changes[kind] = lambda reply: replace(reply, details={"signature": "zz"})
    coordinator.align(0)
    assert last(coordinator)["participants"] == ["a", "b", "c", "d"]


def test_masked_numbers_of_another_shape_are_refused(meet):
    coordinator, sites = meet(4)
    sites[3].changes[Kind.ALIGN] = lambda reply: replace(
        reply, arrays={name: array[:1] for name, array in reply.arrays.items()}
    )
    coordinator.align(0)
    assert "shape (1, 3), expected (2, 3)" in last(coordinator)["refused"]["d"]


def test_a_sum_that_no_right_answers_have_stops_the_run(meet):
    coordinator, sites = meet(3)
    reply = sites[0].site.reply

    def negative(request):
        answer = reply(request)
        return replace(answer, arrays={**answer.arrays, "counts": -100 + answer.arrays["counts"]})

    sites[0].site.reply = negative
    with pytest.raises(FederationError, match=r"secure sum over a, b, c cannot be right: negative"):
        coordinator.moments(0)


def test_wrong_shares_stop_the_try_and_the_next_is_another_session(meet):
    coordinator, sites = meet(3)
    wrong = [True]

    def spoil(reply):
        if not wrong:
            return reply
        wrong.pop()
        masks = dict.fromkeys(reply.details["self_masks"], "00" * 16)
        return replace(reply, details={**reply.details, "self_masks": masks})

    sites[0].changes[Kind.UNMASK] = spoil
    coordinator.align(0)
    assert len(sites[0].sessions) == 2
