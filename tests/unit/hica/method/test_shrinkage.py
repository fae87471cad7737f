"""A site's own share is what differs beyond chance."""

import numpy as np
import pytest

from hica.method.shrinkage import ClassMeans, class_means, own_share

WIDTH, SHOTS, SITES, CLASSES = 400, 8, 4, 3
LABELS = np.repeat(np.arange(CLASSES), SHOTS)


def shots_of(rng, centres):
    """[C·8, D] shots about class centres [C, D]."""
    return centres[LABELS] + rng.normal(size=(len(LABELS), WIDTH))


def federation(seed, apart):
    """Shares of sites with the same centres but of the last, whose own are `apart` from them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, WIDTH))
    other = centres + apart * rng.normal(size=centres.shape)
    sites = [shots_of(rng, centres if s < SITES - 1 else other) for s in range(SITES)]
    everyone = np.mean([class_means(rows, LABELS, CLASSES).rows for rows in sites], axis=0)
    return [own_share(class_means(rows, LABELS, CLASSES), everyone, SITES) for rows in sites]


def test_means_and_errors_are_those_of_the_rows():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(6, 5)), np.array([0, 0, 0, 1, 1, 2])
    found = class_means(rows, labels, 4)
    for name in range(3):
        np.testing.assert_allclose(found.rows[name], rows[labels == name].mean(axis=0))
    np.testing.assert_array_equal(found.rows[3], 0.0)
    assert found.errors[0] == pytest.approx(np.trace(np.cov(rows[:3].T)) / 3, rel=1e-12)
    assert found.errors[1] == pytest.approx(np.trace(np.cov(rows[3:5].T)) / 2, rel=1e-12)
    assert np.isinf(found.errors[2:]).all()


def test_the_share_is_that_of_james_and_stein():
    rng = np.random.default_rng(1)
    own = ClassMeans(rng.normal(size=(2, 5)), np.array([0.3, 0.5]))
    everyone = rng.normal(size=(2, 5))
    between = (own.rows[0] - own.rows[1]) - (everyone[0] - everyone[1])
    # Of two centred means each is half their difference: distances and errors are half as large.
    expected = 1 - (0.3 + 0.5) * (3 / 4) / (between @ between)
    assert 0 < expected == pytest.approx(own_share(own, everyone, 4), rel=1e-12)


def test_sites_that_are_alike_keep_to_what_they_share():
    shares = np.array([federation(seed, apart=0.0) for seed in range(20)])
    assert shares.mean() < 0.05


def test_a_site_that_differs_keeps_to_its_own():
    shares = np.array([federation(seed, apart=2.0) for seed in range(20)])
    assert (shares[:, -1] > 0.9).all()
    assert (shares[:, :-1] < shares[:, -1:]).all()


def test_the_more_a_site_differs_the_larger_is_its_share():
    shares = [federation(3, apart)[-1] for apart in (0.25, 0.5, 1.0, 2.0)]
    assert shares == sorted(shares) and shares[0] < 0.5 < shares[-1]


def test_a_common_shift_of_all_classes_is_no_difference():
    rng = np.random.default_rng(4)
    own = class_means(shots_of(rng, rng.normal(size=(CLASSES, WIDTH))), LABELS, CLASSES)
    everyone = own.rows + 0.1 * rng.normal(size=own.rows.shape)
    shifted = own_share(own, everyone + rng.normal(size=WIDTH), SITES)
    assert shifted == pytest.approx(own_share(own, everyone, SITES), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "sites"),
    [
        ([0, 1, 2], 4),  # one shot of each class
        ([0, 0, 0, 1], 4),  # two of one class alone
        ([0, 0, 1, 1], 1),  # there is nobody else
    ],
)
def test_a_site_with_nothing_to_go_by_keeps_to_what_all_share(labels, sites):
    rng = np.random.default_rng(5)
    own = class_means(rng.normal(size=(len(labels), 6)), np.array(labels), 3)
    assert own_share(own, rng.normal(size=(3, 6)), sites) == 0.0


def test_means_that_are_the_same_leave_nothing_to_share_out():
    rows = np.eye(2, 4)
    assert own_share(ClassMeans(rows, np.ones(2)), rows, 3) == 0.0
