import math

import numpy as np
import pytest

from hica.method.metrics import macro_auroc
from hica_simulations.experiments.tables.statistics import patients_interval, seeds_interval
from hica_simulations.predictions import Predictions

METRICS = {
    "accuracy": lambda p, y: np.mean(p.argmax(axis=1) == y),
    "balanced_accuracy": lambda p, y: np.mean(
        [np.mean(p.argmax(axis=1)[y == c] == c) for c in np.unique(y)]
    ),
    "auroc": macro_auroc,
}


def test_the_mean_difference_over_seeds_has_a_t_interval():
    # mean 2, sd 1, n = 3: t(0.975, 2) = 4.302653, reach = 4.302653 / sqrt(3)
    found = seeds_interval([1.5, 2.5, 3.5], [0.5, 0.5, 0.5])
    assert found == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)


def test_one_seed_or_other_seeds_have_no_interval():
    assert seeds_interval([0.5], [0.4]) is None
    assert seeds_interval([0.5, 0.6], [0.4]) is None


@pytest.mark.parametrize("metric", METRICS)
def test_patients_are_drawn_with_all_their_images_in_all_seeds_at_once(metric, predictions):
    """Against a loop that writes out every resample, image by image."""
    classes, resamples = 3, 60
    pairs = [(predictions(2, 9, classes, n), predictions(0.5, 9, classes, n + 9)) for n in (0, 1)]
    found = patients_interval(pairs, metric, resamples, seed=5)
    names = sorted(set(pairs[0][0].groups))
    rng = np.random.default_rng(5)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    values = []
    for draw in draws:
        differences = []
        for ours, theirs in pairs:
            times = [draw[names.index(group)] for group in ours.groups]
            at = np.repeat(np.arange(len(times)), times)
            labels = ours.labels[at]
            differences.append(
                METRICS[metric](ours.probabilities[at], labels)
                - METRICS[metric](theirs.probabilities[at], labels)
            )
        values.append(np.mean(differences))
    plain = [
        METRICS[metric](one.probabilities, one.labels)
        - METRICS[metric](two.probabilities, two.labels)
        for one, two in pairs
    ]
    expected = (np.mean(plain), *np.percentile(values, [2.5, 97.5]))
    assert found == pytest.approx(expected, abs=1e-12)
    assert found.low < found.value < found.high


def test_equal_methods_differ_by_nothing_whoever_the_patients_are(predictions):
    same = predictions(1.0)
    assert patients_interval([(same, same)], "auroc", 50) == (0.0, 0.0, 0.0)


def test_patients_of_one_class_have_no_auroc():
    ones = Predictions(np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([1, 1]), ["p", "q"], ["a", "a"])
    found = patients_interval([(ones, ones)], "auroc", 20)
    assert math.isnan(found.value) and (found.low, found.high) == (-math.inf, math.inf)


def test_predictions_of_other_images_are_refused(predictions):
    with pytest.raises(ValueError, match="the same images"):
        patients_interval([(predictions(1.0), predictions(1.0, patients=11))], "auroc")
