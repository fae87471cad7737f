import pytest

from hica.errors import ConfigurationError
from hica.method.intervals import paired_interval


def test_paired_interval_of_a_known_case():
    # mean 2, sd 1, n = 3: t(0.975, 2) = 4.302653, reach = 4.302653 / sqrt(3)
    interval = paired_interval([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)


def test_paired_interval_needs_two_seeds():
    with pytest.raises(ConfigurationError, match="at least 2, got 1"):
        paired_interval([0.1])
