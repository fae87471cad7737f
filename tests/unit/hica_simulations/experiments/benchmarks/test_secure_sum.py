import numpy as np
import pytest

from hica.errors import MessageError
from hica_simulations.experiments.benchmarks.secure_sum import RANGE, Federation, compare_secure_sum


@pytest.fixture
def federation():
    return Federation(sites=5, weights=1000)


@pytest.mark.parametrize("lost", [0, 1])
def test_both_ways_have_the_same_sum(federation, lost):
    expected = federation.plain() * (5 - lost) / 5
    np.testing.assert_allclose(federation.secure(lost), expected, atol=5 * RANGE.step(5))


def test_what_was_not_protected_would_not_be_measured(federation):
    with pytest.raises(MessageError, match="at least 4 of 5 must stay"):
        federation.secure(lost=2)


def test_the_parts_of_sites_and_coordinator_are_noted(federation):
    federation.secure()
    assert federation.seconds.keys() == {"sites", "coordinator"}
    assert all(seconds > 0 for seconds in federation.seconds.values())


def test_every_size_has_a_ratio_and_three_parts():
    figures = compare_secure_sum(2, [(4, 100), (5, 100)])
    assert [figure.unit for figure in figures] == ["×", "s", "s", "s"] * 2
    assert figures[0].name == "4 sites, 0.0001 M weights: secure / plain"
    assert all(figure.value > 0 for figure in figures)
