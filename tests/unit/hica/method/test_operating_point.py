import numpy as np
import pytest
from scipy.stats import binomtest

from hica.errors import DataError
from hica.method.operating_point import operating_point


def drawn(seed=0, n=200):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.clip(rng.normal(0.4 + 0.3 * positive, 0.2), 0, 1), positive, list(map(str, range(n)))


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
def test_it_is_the_best_of_all_thresholds(wanted):
    p, positive, groups = drawn()
    reach = {t: ((p[positive] >= t).mean(), (p[~positive] < t).mean()) for t in [*p, 2.0]}
    found = operating_point(p, positive, groups, sensitivity=wanted)
    assert found.specificity.value == max(b for a, b in reach.values() if a >= wanted)
    assert found.sensitivity.value >= wanted
    found = operating_point(p, positive, groups, specificity=wanted)
    assert found.sensitivity.value == max(a for a, b in reach.values() if b >= wanted)
    assert found.specificity.value >= wanted


def test_intervals_are_exact():
    p, positive, groups = drawn(1)
    found = operating_point(p, positive, groups, sensitivity=0.9)
    k = int((p[positive] >= found.threshold).sum())
    expected = binomtest(k, int(positive.sum())).proportion_ci(0.95, "exact")
    assert (found.sensitivity.low, found.sensitivity.high) == pytest.approx(tuple(expected))


def test_each_patient_counts_once():
    p, positive, groups = drawn(2)
    many = np.r_[p, np.repeat(p[positive][:1], 50)], np.r_[positive, np.ones(50, bool)]
    names = groups + [groups[int(np.flatnonzero(positive)[0])]] * 50
    one = operating_point(p, positive, groups, sensitivity=0.9)
    assert operating_point(*many, names, sensitivity=0.9) == one


def test_one_class_alone_has_none():
    p, positive, groups = drawn(3)
    for side in (np.ones_like(positive), np.zeros_like(positive)):
        with pytest.raises(DataError, match="needs patients with the class and without it"):
            operating_point(p, side, groups, sensitivity=0.9)
    with pytest.raises(ValueError, match="neither"):
        operating_point(p, positive, groups)
