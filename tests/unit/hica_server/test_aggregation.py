import itertools
import math
import statistics

import numpy as np
import pytest

from hica.errors import CheckpointError, FederationError
from hica.steps.step import Update
from hica.study.sections import FederationSection
from hica.wire.checkpoint import load_state, save_state
from hica_server.aggregation import factors, make_aggregator, product_mean

RULES = ("mean", "adam", "yogi", "trimmed-mean", "median", "krum")
SHAPES = {"adapter.weight": (3, 4), "adapter.bias": (3,), "scale": ()}


def aggregator(rule, **changes):
    return make_aggregator(FederationSection(aggregation=rule, **{"malicious": 1} | changes))


def random_arrays(rng, shapes=SHAPES, size=1.0):
    return {k: np.asarray(size * rng.standard_normal(s), np.float32) for k, s in shapes.items()}


def random_updates(seed, count, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [
        Update(f"site {i}", random_arrays(rng, shapes), int(rng.integers(1, 50)))
        for i in range(count)
    ]


def assert_close(result, reference, tolerance=1e-6):
    assert result.keys() == reference.keys()
    for key, array in result.items():
        assert isinstance(array, np.ndarray) and array.dtype == np.float32
        assert array.shape == np.shape(reference[key])
        np.testing.assert_allclose(array, reference[key], rtol=tolerance, atol=tolerance)


def by_coordinate(updates, combine):
    """Apply `combine(values of one coordinate, one for each update)` to every coordinate."""
    result = {}
    for key, first in updates[0].arrays.items():
        out = np.zeros(first.shape)
        for index in np.ndindex(first.shape):
            out[index] = combine([float(update.arrays[key][index]) for update in updates])
        result[key] = out
    return result


def weighted_mean(updates, weights):
    return by_coordinate(
        updates, lambda x: math.fsum(w * v for w, v in zip(weights, x, strict=True)) / sum(weights)
    )


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("weighting", ["examples", "sites"])
def test_mean_equals_the_slow_reference(count, weighting):
    updates = random_updates(0, count)
    weights = [u.examples if weighting == "examples" else 1 for u in updates]
    result = aggregator("mean", weighting=weighting).aggregate(1, updates[0].arrays, updates)
    assert_close(result, weighted_mean(updates, weights))


def test_mean_is_summed_in_float64():
    values = [1e8, 1.0, -1e8]  # in float32 the 1 would be lost
    updates = [Update(str(v), {"w": np.asarray([v], np.float32)}, 1) for v in values]
    result = aggregator("mean").aggregate(1, updates[0].arrays, updates)
    assert result["w"][0] == np.float32(1 / 3)


@pytest.mark.parametrize("count", [5, 8, 11])
def test_trimmed_mean_equals_the_slow_reference(count):
    updates = random_updates(1, count)
    cut = int(0.2 * count)
    reference = by_coordinate(updates, lambda x: statistics.fmean(sorted(x)[cut : len(x) - cut]))
    current = random_arrays(np.random.default_rng(9))
    assert_close(aggregator("trimmed-mean").aggregate(1, current, updates), reference)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_median_equals_the_slow_reference(count):
    updates = random_updates(2, count)
    current = random_arrays(np.random.default_rng(9))
    reference = by_coordinate(updates, statistics.median)
    assert_close(aggregator("median").aggregate(1, current, updates), reference)


def krum_choice(updates, malicious):
    """Blanchard et al. 2017: least sum of squared distances to its n - f - 2 nearest others."""

    def flat(update):
        return np.concatenate([np.ravel(a).astype(np.float64) for a in update.arrays.values()])

    def score(update):
        others = [o for o in updates if o is not update]
        distances = sorted(float(np.sum((flat(update) - flat(o)) ** 2)) for o in others)
        return sum(distances[: len(updates) - malicious - 2])

    return min(updates, key=score)


@pytest.mark.parametrize(("count", "malicious"), [(3, 0), (5, 1), (9, 1), (9, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_krum_returns_the_update_the_slow_reference_chooses(count, malicious, seed):
    updates = random_updates(seed, count)
    current = random_arrays(np.random.default_rng(9))
    result = aggregator("krum", malicious=malicious).aggregate(1, current, updates)
    assert_close(result, krum_choice(updates, malicious).arrays, tolerance=0)


def test_krum_sees_small_differences_between_large_weights():
    rng = np.random.default_rng(0)
    current = random_arrays(rng, {"w": (5000,)}, size=100.0)
    steps = [0.01 * rng.standard_normal(5000) for _ in range(6)]
    steps[3] = np.mean(steps, axis=0)  # nearest to all
    updates = [
        Update(str(i), {"w": (current["w"] + s).astype(np.float32)}, 1) for i, s in enumerate(steps)
    ]
    result = aggregator("krum").aggregate(1, current, updates)
    np.testing.assert_array_equal(result["w"], updates[3].arrays["w"])


@pytest.mark.parametrize("rule", ["trimmed-mean", "median", "krum"])
def test_robust_rules_ignore_a_wild_site_and_the_examples_it_claims(rule):
    rng = np.random.default_rng(3)
    current = random_arrays(rng)
    honest = [
        Update(f"h{i}", {k: v + np.float32(0.01 * i) for k, v in current.items()}, 1)
        for i in range(5)
    ]
    wild = Update("wild", {k: v + np.float32(1e3) for k, v in current.items()}, 10**6)
    result = aggregator(rule).aggregate(1, current, [wild, *honest])
    for key, array in result.items():
        assert np.abs(array - current[key]).max() <= 0.0401


def server_step(rule, rounds, eta=0.01, beta1=0.9, beta2=0.99, tau=1e-3):
    """Adam as in Kingma and Ba (bias corrected), Yogi as in Zaheer et al., both Reddi et al. 2021.

    Returns the weights after each of `rounds`, a list of (updates).
    """
    current = {
        k: np.asarray(v, np.float64) for k, v in random_arrays(np.random.default_rng(9)).items()
    }
    m = dict.fromkeys(current, 0.0)
    v = dict.fromkeys(current, 0.0)
    for t, updates in enumerate(rounds, start=1):
        mean = weighted_mean(updates, [u.examples for u in updates])
        for k in current:
            d = mean[k] - current[k]
            m[k] = beta1 * m[k] + (1 - beta1) * d
            if rule == "adam":
                v[k] = beta2 * v[k] + (1 - beta2) * d**2
                rate = eta * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            else:
                v[k] = v[k] - (1 - beta2) * d**2 * np.sign(v[k] - d**2)
                rate = eta
            current[k] = current[k] + rate * m[k] / (np.sqrt(v[k]) + tau)
            current[k] = np.asarray(current[k], np.float32).astype(np.float64)
    return current


@pytest.mark.parametrize("rule", ["adam", "yogi"])
@pytest.mark.parametrize("first", [0, 1, 17])
def test_server_optimisers_equal_the_slow_reference_at_whatever_round_they_start(rule, first):
    rounds = [random_updates(seed, 3) for seed in range(4)]
    current = random_arrays(np.random.default_rng(9))
    server = aggregator(rule)
    for number, updates in enumerate(rounds, start=first):
        current = server.aggregate(number, current, updates)
    assert_close(current, server_step(rule, rounds))


LORA = {
    "block.q.lora_a.weight": (2, 6),
    "block.q.lora_b.weight": (5, 2),
    "conv.lora_a.weight": (2, 4, 1, 1),
    "conv.lora_b.weight": (7, 2, 1, 1),
    "norm.bias": (3,),
}


def single(values):
    """One update for each of `values` (lists of float32)."""
    return [Update(f"{i}", {"w": np.asarray(v, np.float32)}, 1) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    "updates",
    [
        random_updates(4, 5, LORA),
        single([[1e30], [1.0], [-1e30], [2.0], [0.5]]),  # a sum that depends on its order
        single(np.eye(5)),  # all equally far apart: a tie for krum
    ],
    ids=["lora", "cancelling", "ties"],
)
@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_replies_does_not_matter_to_the_bit(rule, updates):
    current = {key: np.zeros_like(array) for key, array in updates[0].arrays.items()}
    first = aggregator(rule).aggregate(1, current, updates)
    for order in itertools.islice(itertools.permutations(updates), 1, 120, 17):
        again = aggregator(rule).aggregate(1, current, order)
        assert all(first[key].tobytes() == again[key].tobytes() for key in first)


@pytest.mark.parametrize("rule", RULES)
def test_inputs_are_left_alone(rule):
    updates = random_updates(4, 5)
    current = random_arrays(np.random.default_rng(9))
    before = [{k: v.copy() for k, v in u.arrays.items()} for u in updates]
    kept = {k: v.copy() for k, v in current.items()}
    aggregator(rule).aggregate(1, current, updates)
    for update, arrays in zip(updates, before, strict=True):
        assert all(np.array_equal(update.arrays[k], arrays[k]) for k in arrays)
    assert all(np.array_equal(current[k], kept[k]) for k in kept)


@pytest.mark.parametrize("rule", RULES)
def test_a_run_resumed_from_a_checkpoint_equals_the_uninterrupted_one_to_the_bit(rule, tmp_path):
    rounds = [random_updates(seed, 5, LORA) for seed in range(5)]
    start = random_arrays(np.random.default_rng(9), LORA)

    whole, current = aggregator(rule), start
    for number, updates in enumerate(rounds):
        current = whole.aggregate(number, current, updates)

    resumed, weights = aggregator(rule), start
    for number, updates in enumerate(rounds):
        save_state(tmp_path, "weights", weights, {})
        save_state(tmp_path, "optimiser", resumed.state(), {})
        resumed, weights = aggregator(rule), load_state(tmp_path, "weights")[0]
        resumed.restore(load_state(tmp_path, "optimiser")[0])
        weights = resumed.aggregate(number, weights, updates)
    assert all(weights[key].tobytes() == current[key].tobytes() for key in current)


@pytest.mark.parametrize(("kept", "asked"), [("adam", "yogi"), ("yogi", "mean"), ("adam", "krum")])
def test_the_state_of_another_rule_is_refused(kept, asked):
    server = aggregator(kept)
    updates = random_updates(0, 5)
    server.aggregate(1, updates[0].arrays, updates)
    with pytest.raises(CheckpointError, match=f"another aggregation rule \\({kept}\\).*{asked}"):
        aggregator(asked).restore(server.state())


@pytest.mark.parametrize(
    ("rule", "changes", "count", "message"),
    [
        ("krum", {"malicious": 1}, 4, "krum with malicious = 1 needs at least 5 updates, got 4"),
        ("krum", {"malicious": 0}, 2, "krum with malicious = 0 needs at least 3 updates, got 2"),
        ("trimmed-mean", {"trim": 0.2}, 4, "with trim = 0.2 needs at least 5 updates, got 4"),
        ("mean", {}, 0, "mean needs at least 1 updates, got 0"),
        ("adam", {}, 0, "adam needs at least 1 updates, got 0"),
    ],
)
def test_too_few_updates_name_the_rule_and_the_numbers(rule, changes, count, message):
    server = aggregator(rule, **changes)
    current = random_arrays(np.random.default_rng(9))
    with pytest.raises(FederationError, match=message):
        server.aggregate(1, current, random_updates(0, count))
    assert server.aggregate(1, current, random_updates(0, server.minimum)).keys() == current.keys()


def test_trimmed_mean_that_trims_nothing_takes_one_update():
    [update] = random_updates(0, 1)
    result = aggregator("trimmed-mean", trim=0.0).aggregate(1, update.arrays, [update])
    assert_close(result, update.arrays)


def test_updates_that_cannot_be_combined_are_refused_by_name():
    current = random_arrays(np.random.default_rng(9))
    good = Update("north", current, 3)
    torn = Update("south", {key: current[key] for key in list(current)[1:]}, 3)
    with pytest.raises(FederationError, match="south: its update has other arrays"):
        aggregator("mean").aggregate(1, current, [good, torn])
    broad = Update("south", current | {"adapter.bias": np.zeros(1, np.float32)}, 3)
    with pytest.raises(FederationError, match="south: its update has other arrays"):
        aggregator("mean").aggregate(1, current, [good, broad])
    with pytest.raises(FederationError, match="two updates of one site"):
        aggregator("mean").aggregate(1, current, [good, Update("north", current, 1)])
    with pytest.raises(FederationError, match=r"\{'north': 0\}.*weighting = \"sites\""):
        aggregator("mean").aggregate(1, current, [Update("north", current, 0)])


# LoRA: the mean of products.

SIZES = [  # sites, out, in, rank
    (1, 5, 6, 2),
    (3, 5, 6, 2),
    (4, 40, 30, 3),
    (5, 7, 9, 3),  # n·r larger than both sides
    (3, 2, 9, 4),  # rank larger than a side
    (3, 9, 2, 4),
]


def drawn(seed, sites, out, into, rank):
    rng = np.random.default_rng(seed)
    b, a = rng.standard_normal((sites, out, rank)), rng.standard_normal((sites, rank, into))
    weights = rng.random(sites) + 0.1
    return b, a, weights / weights.sum()


def dense_mean(b, a, weights):
    return sum(w * bi @ ai for w, bi, ai in zip(weights, b, a, strict=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_mean_product_is_exact(sizes):
    b, a, weights = drawn(0, *sizes)
    u, s, vt = product_mean(b, a, weights)
    dense = dense_mean(b, a, weights)
    assert np.abs((u * s) @ vt - dense).max() < 1e-12
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-12)
    np.testing.assert_allclose(vt @ vt.T, np.eye(len(s)), atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_factors_are_the_best_approximation_of_their_rank(sizes):
    b, a, weights = drawn(1, *sizes)
    rank = a.shape[1]
    new_b, new_a = factors(product_mean(b, a, weights), a, weights)
    assert new_b.shape == b.shape[1:] and new_a.shape == a.shape[1:]
    u, s, vt = np.linalg.svd(dense_mean(b, a, weights), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vt[:rank]
    np.testing.assert_allclose(new_b @ new_a, best, atol=1e-12)


def test_of_all_such_factors_a_is_the_rotation_nearest_to_the_mean_a_and_as_large():
    b, a, weights = drawn(2, 4, 8, 10, 3)
    _, new_a = factors(product_mean(b, a, weights), a, weights)
    mean_a = np.tensordot(weights, a, axes=1)
    size = sum(w * np.sum(ai**2) for w, ai in zip(weights, a, strict=True))
    np.testing.assert_allclose(new_a @ new_a.T, size / 3 * np.eye(3), atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(50):
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        assert np.sum((new_a - mean_a) ** 2) <= np.sum((rotation @ new_a - mean_a) ** 2)


def lora_updates(products):
    """Updates whose pair has the given B and A, [5, 2] and [2, 6]."""
    rest = random_arrays(np.random.default_rng(5), LORA)
    return [
        Update(
            f"site {i}",
            rest
            | {
                "block.q.lora_b.weight": b.astype(np.float32),
                "block.q.lora_a.weight": a.astype(np.float32),
            },
            1,
        )
        for i, (b, a) in enumerate(products)
    ]


def product(arrays, name):
    b, a = arrays[f"{name}.lora_b.weight"], arrays[f"{name}.lora_a.weight"]
    return b.reshape(len(b), -1).astype(np.float64) @ a.reshape(len(a), -1).astype(np.float64)


@pytest.mark.parametrize("count", [2, 5])
def test_mean_averages_products_of_linear_and_convolution_and_reports_what_is_lost(count):
    updates = random_updates(6, count, LORA)
    server = aggregator("mean")
    result = server.aggregate(1, updates[0].arrays, updates)
    weights = np.asarray([u.examples for u in updates]) / sum(u.examples for u in updates)
    lost = total = 0.0
    for name in ("block.q", "conv"):
        dense = sum(w * product(u.arrays, name) for w, u in zip(weights, updates, strict=True))
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
        np.testing.assert_allclose(product(result, name), (u[:, :2] * s[:2]) @ vt[:2], atol=1e-5)
        lost, total = lost + (s[2:] ** 2).sum(), total + (s**2).sum()
    assert server.last_discarded == pytest.approx(lost / total, abs=1e-6)
    assert result["conv.lora_a.weight"].shape == (2, 4, 1, 1)
    bias = {"norm.bias": result["norm.bias"]}
    only = [Update(u.site, {"norm.bias": u.arrays["norm.bias"]}, u.examples) for u in updates]
    assert_close(bias, weighted_mean(only, [u.examples for u in updates]))


def test_the_mean_of_one_update_is_that_update():
    [update] = random_updates(7, 1, LORA)
    server = aggregator("mean")
    result = server.aggregate(1, random_arrays(np.random.default_rng(9), LORA), [update])
    assert all(result[key].tobytes() == update.arrays[key].tobytes() for key in LORA)
    assert server.last_discarded == 0.0


def test_a_is_kept_while_b_is_still_zero():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 6))
    updates = lora_updates([(np.zeros((5, 2)), a), (np.zeros((5, 2)), a + 1)])
    result = aggregator("mean").aggregate(1, updates[0].arrays, updates)
    np.testing.assert_allclose(result["block.q.lora_a.weight"], a + 0.5, atol=1e-6)
    assert not result["block.q.lora_b.weight"].any()


def test_no_direction_dies_where_the_mean_product_has_a_lower_rank():
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((5, 2)), rng.standard_normal((2, 6))
    b[:, 1] = 0.0
    updates = lora_updates([(b, a), (2 * b, a)])
    result = aggregator("mean").aggregate(1, updates[0].arrays, updates)
    np.testing.assert_allclose(product(result, "block.q"), 1.5 * b @ a, atol=1e-5)
    assert np.linalg.svd(result["block.q.lora_a.weight"], compute_uv=False).min() > 0.5


def test_b_alone_is_averaged_like_any_array():
    shapes = {"block.q.lora_b.weight": (5, 2)}
    updates = random_updates(8, 3, shapes)
    result = aggregator("mean").aggregate(1, updates[0].arrays, updates)
    assert_close(result, weighted_mean(updates, [u.examples for u in updates]))
