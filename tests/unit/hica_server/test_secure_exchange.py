"""The five exchanges of a secure sum, and the coordinator's turns made of them."""

from dataclasses import replace

import numpy as np
import pytest

from hica.deployment.keys import generate, read_private
from hica.errors import FederationError
from hica.method.pseudo_labels import cluster_sums, drawn_start, lloyd_step
from hica.secure_sum.wire import SignedKeys
from hica.seeds import derived_seed
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import DRAWN_START, LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.prototypes import PROTOTYPES
from hica.wire.messages import Kind

from .secure_site import SecureSite

SECURE = [Kind.KEYS, Kind.SHARES, ALIGNMENT.kind, Kind.SURVIVORS, Kind.UNMASK]


@pytest.fixture
def keys(tmp_path):
    """A key for each of five sites."""
    made = {}
    for name in "abcde":
        public = generate(tmp_path / name)
        made[name] = (read_private(tmp_path / name), public)
    return made


@pytest.fixture
def meet(make_run, make_site, keys):
    """A run with its sites, a to e as many as wanted; and the same without secrets.

    `registered` says of whom the coordinator knows the keys.
    """

    def meet(count, *overrides, registered="", secure=True, **fields):
        names = "abcde"[:count]
        public = {name: keys[name][1] for name in names}
        plain = [
            make_site(name, step=0.01 * number, **{key: f(number) for key, f in fields.items()})
            for number, name in enumerate(names, start=1)
        ]
        sites = [SecureSite(site, keys[site.name][0], public) for site in plain]
        run = make_run(
            *(sites if secure else plain),
            overrides=[f"privacy.secure_aggregation={str(secure).lower()}", *overrides],
            registered={name: public[name] for name in registered} or None,
        )
        return run.meet(), sites

    return meet


def weight(run):
    return run.learnt.shared["tower.weight"]


# --- The same as without -------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["examples", "sites"])
@pytest.mark.parametrize("rule", ["mean", "adam", "yogi"])
def test_a_round_ends_in_the_weights_of_a_round_without_secrets(meet, rule, weighting):
    overrides = [f"federation.aggregation={rule}", f"federation.weighting={weighting}"]
    fields = {"labelled": lambda number: 2 * number}
    one, other = (
        meet(4, *overrides, secure=secure, **fields)[0].take(ALIGNMENT).take(ALIGNMENT, 1)
        for secure in (True, False)
    )
    np.testing.assert_allclose(weight(one), weight(other), atol=2e-6)
    assert one.last["loss"] == pytest.approx(other.last["loss"])
    assert one.last["participants"] == ["a", "b", "c", "d"]
    assert one.last["site_loss"] == {} and other.last["site_loss"]
    assert one.last["bytes_up"] > other.last["bytes_up"]


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (CENTRE, lambda learnt: learnt.centre),
        (PROTOTYPES, lambda learnt: learnt.bank.classes),
        (CALIBRATION, lambda learnt: learnt.bias),
    ],
)
def test_statistics_are_those_without_secrets(meet, step, result):
    results = [result(meet(3, secure=secure)[0].take(step).learnt) for secure in (True, False)]
    np.testing.assert_allclose(*results, rtol=0, atol=1e-7)
    assert np.abs(results[0]).max() > 1e-3


def test_clusters_start_from_no_sites_own_and_are_k_means_from_there(meet):
    run, sites = meet(3, "pretraining.clusters=3", "pretraining.lloyd_rounds=4")
    run.take_all("clusters")
    steps = [r.settings["step"] for r in sites[0].site.requests if r.kind == LLOYD.kind]
    assert steps == ["lloyd"] * 3 + ["assign"]  # the third has changed nothing: it is settled
    pooled = np.concatenate([site.site.features for site in sites])
    expected = drawn_start(3, 4, derived_seed(0, "clusters", 0) % 2**32)
    for _ in range(4):
        expected = lloyd_step(expected, [cluster_sums(pooled, expected)])
    np.testing.assert_allclose(run.learnt.centroids, expected, atol=1e-9)
    assert sites[0].asked.count(Kind.KEYS) == 3  # what is told only needs no sum


def test_once_k_means_has_converged_nobody_is_asked_and_a_site_may_be_gone(meet):
    """The same sum over fewer sites would be refused, and the run would stand still."""
    run, sites = meet(4, "pretraining.clusters=3", "pretraining.lloyd_rounds=8")
    run.take(DRAWN_START)
    for number in range(3):
        run.take(LLOYD, number)
    assert run.state.settled
    before, asked = run.learnt.centroids, len(sites[0].asked)
    sites[3].silent = list(SECURE)
    for number in range(3, 8):
        run.take(LLOYD, number)
    assert len(sites[0].asked) == asked
    np.testing.assert_array_equal(run.learnt.centroids, before)
    run.take(ALIGNMENT)
    assert run.state.settled == "" and run.last["participants"] == ["a", "b", "c"]


def test_a_sum_that_was_uncovered_over_fewer_sites_is_asked_of_these_again(meet):
    """The coordinator died before it had saved the sum, and a site has come back since."""
    run, sites = meet(4, "federation.weighting=sites")
    for site in sites[:3]:
        site.uncovered_over = ["a", "b", "c"]
    before = weight(run).copy()
    run.take(ALIGNMENT)
    np.testing.assert_allclose(weight(run), before + 0.02, atol=1e-6)
    assert run.last["participants"] == ["a", "b", "c"]


@pytest.mark.parametrize("claimed", [["a"], ["a", "b", "x"], ["a", "b", "c", "d", "e"], [""]])
def test_one_site_that_claims_another_group_moves_nobody(meet, claimed):
    run, sites = meet(4, "federation.weighting=sites")
    sites[0].uncovered_over = claimed
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c", "d"]  # its own masks come off all the same


def test_the_exchanges_are_five_and_metrics_are_plain(meet):
    run, sites = meet(3)
    run.take(ALIGNMENT).take(EVALUATION, 1)
    assert sites[0].asked == [Kind.CAPABILITIES, *SECURE, EVALUATION.kind]
    assert run.learnt.evaluations["final"]["overall"]["n"] == 18


# --- Dropouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SECURE)
def test_a_site_that_drops_out_is_missing_and_the_others_go_on(meet, kind):
    run, sites = meet(4, "federation.weighting=sites")
    sites[3].silent = [kind]
    before = weight(run).copy()
    run.take(ALIGNMENT)
    in_the_sum = kind in (Kind.SURVIVORS, Kind.UNMASK)
    step = np.mean([0.01, 0.02, 0.03, 0.04] if in_the_sum else [0.01, 0.02, 0.03])
    np.testing.assert_allclose(weight(run), before + step, atol=1e-6)
    assert run.last["participants"] == ["a", "b", "c", "d"][: 4 if in_the_sum else 3]
    assert run.last["missing"] == ([] if in_the_sum else ["d"])


@pytest.mark.parametrize("kind", SECURE)
def test_below_the_threshold_a_new_session_is_tried(meet, kind):
    run, sites = meet(3)
    sites[2].silent = [kind]
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c"]
    assert len(set(sites[0].sessions)) == len(sites[0].sessions) == 2


def test_below_the_threshold_in_every_try_the_run_stops_and_nothing_has_changed(meet):
    run, sites = meet(4)
    for site in sites[2:]:
        site.silent = [ALIGNMENT.kind] * 2
    before = weight(run).copy()
    words = (
        r"train\.align round 1: no secure sum, and nothing was learnt of any site: .*2 of 4 sites "
        r"gave a usable answer, the threshold of the secure sum is 3 \(c: no answer within 5 s; "
        r"d: no answer .*run the same command again, which starts with new keys"
    )
    with pytest.raises(FederationError, match=words):
        run.take(ALIGNMENT)
    np.testing.assert_array_equal(weight(run), before)
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c", "d"]


def test_with_fewer_than_three_sites_nobody_is_asked(meet):
    run, sites = meet(2, "federation.quorum=1")
    with pytest.raises(FederationError, match=r"2 site\(s\) have labelled .* needed are 3 .*sec"):
        run.take(ALIGNMENT)
    assert sites[0].asked == [Kind.CAPABILITIES]


# --- Sites and coordinators that cheat -----------------------------------------------------------


def test_a_coordinator_that_swaps_a_key_gets_no_sum(meet):
    run, sites = meet(4)

    def swap(reply):
        keys = SignedKeys.from_json(reply.details)
        return replace(reply, details=replace(keys, mask_key=bytes(range(32))).to_json())

    sites[3].changes[Kind.KEYS] = swap  # as if on the way through the coordinator
    with pytest.raises(
        FederationError, match=r"a: failed at the site: the keys of 'd' are not sig"
    ):
        run.take(ALIGNMENT)
    assert ALIGNMENT.kind not in sites[0].asked


def test_an_honest_coordinator_leaves_out_who_has_not_signed_its_keys(meet):
    run, sites = meet(4, registered="abcd")
    sites[3].key = sites[2].key
    sites[3].registered = {**sites[3].registered, "d": sites[2].registered["c"]}
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c"]
    assert "the keys of 'd' are not signed by its registered key" in run.last["refused"]["d"]


def test_a_site_that_joined_after_the_kits_is_left_out(meet):
    run, _ = meet(4, registered="abc")
    run.take(ALIGNMENT)
    assert "is not in the start kits' list of keys" in run.last["refused"]["d"]


def test_a_site_that_sends_anothers_keys_is_refused(meet):
    run, sites = meet(4)
    sites[3].changes[Kind.KEYS] = lambda reply: replace(
        reply, details={**reply.details, "site": "a"}
    )
    run.take(ALIGNMENT)
    assert run.last["refused"] == {"d": "sends the keys of 'a'"}


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.SHARES])
def test_nonsense_in_an_answer_is_refused_by_name(meet, kind):
    run, sites = meet(4)
    sites[3].changes[kind] = lambda reply: replace(reply, details={"sealed": 3})
    run.take(ALIGNMENT)
    assert "no table of" in run.last["refused"]["d"]


@pytest.mark.parametrize("kind", [Kind.SURVIVORS, Kind.UNMASK])
def test_nonsense_after_the_numbers_are_in_does_not_harm_the_sum(meet, kind):
    run, sites = meet(4)
    sites[3].changes[kind] = lambda reply: replace(reply, details={"signature": "zz"})
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c", "d"]


def test_masked_numbers_of_another_shape_are_refused(meet):
    run, sites = meet(4)
    sites[3].changes[ALIGNMENT.kind] = lambda reply: replace(
        reply, arrays={name: array[:1] for name, array in reply.arrays.items()}
    )
    run.take(ALIGNMENT)
    assert "shape (1, 3), expected (2, 3)" in run.last["refused"]["d"]


def test_a_sum_that_no_right_answers_have_stops_the_run(meet):
    run, sites = meet(3)
    reply = sites[0].site.reply

    def negative(request):
        answer = reply(request)
        return replace(answer, arrays={**answer.arrays, "counts": -100 + answer.arrays["counts"]})

    sites[0].site.reply = negative
    words = r"secure sum over a, b, c cannot be right: array 'counts' holds values from -"
    with pytest.raises(FederationError, match=words):
        run.take(CENTRE)


def test_wrong_shares_stop_the_try_and_the_next_is_another_session(meet):
    run, sites = meet(3)
    wrong = [True]

    def spoil(reply):
        if not wrong:
            return reply
        wrong.pop()
        masks = dict.fromkeys(reply.details["self_masks"], "00" * 16)
        return replace(reply, details={**reply.details, "self_masks": masks})

    sites[0].changes[Kind.UNMASK] = spoil
    run.take(ALIGNMENT)
    assert len(sites[0].sessions) == 2
