import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hica.secure_sum.quantise import Range, quantise, range_for, restore

RANGES = st.builds(
    lambda exponent, bits: Range(2.0**exponent, bits),
    st.integers(-20, 30),
    st.sampled_from([32, 64]),
)


@given(RANGES, st.integers(1, 100), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_a_sum_is_off_by_half_a_step_a_site_at_most(range_, sites, present, seed):
    present = min(present, sites)
    draws = np.random.default_rng(seed)
    values = draws.uniform(-range_.limit, range_.limit, (present, 6))
    values[0, :2] = range_.limit, -range_.limit
    total = np.sum([quantise(row, range_, sites) for row in values], axis=0, dtype=range_.dtype)
    error = np.abs(restore(total, range_, sites) - values.sum(axis=0)).max()
    rounding = present * range_.limit * 2**-50  # of the float64 sums compared
    assert error <= present * range_.step(sites) / 2 + rounding


@given(RANGES, st.integers(1, 100), st.sampled_from([1, -1]))
def test_the_largest_numbers_of_all_sites_do_not_wrap(range_, sites, sign):
    values = np.full((sites, 1), sign * range_.limit * 1e6)
    total = np.sum([quantise(row, range_, sites) for row in values], axis=0, dtype=range_.dtype)
    assert restore(total, range_, sites) == sign * sites * range_.limit


@given(arrays(np.float64, array_shapes(), elements=st.floats(-8, 8)), st.integers(1, 100))
def test_values_come_back_and_always_the_same(values, sites):
    range_ = Range(8.0, 32)
    integers = quantise(values, range_, sites)
    assert integers.shape == values.shape and integers.dtype == np.uint32
    np.testing.assert_array_equal(integers, quantise(values, range_, sites))
    assert np.abs(restore(integers, range_, sites) - values).max() <= range_.step(sites) / 2


def test_numbers_of_examples_come_back_exactly():
    range_ = range_for(4096 * 200 * 4, 64)
    counts = np.array([0.0, 1.0, 7.0, 200.0])
    np.testing.assert_array_equal(restore(quantise(counts, range_, 20), range_, 20), counts)


def test_what_lies_beyond_is_clipped_and_said(caplog):
    range_ = Range(8.0, 32)
    values = np.array([9.0, -100.0, 1.0])
    np.testing.assert_allclose(
        restore(quantise(values, range_, 3, "weights"), range_, 3), [8.0, -8.0, 1.0], atol=1e-7
    )
    assert "weights: 2 values beyond ±8 were clipped" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_counts_as_zero(bad, caplog):
    found = quantise(np.array([1.0, bad]), Range(8.0, 32), 3, "bank")
    np.testing.assert_array_equal(found, quantise(np.array([1.0, 0.0]), Range(8.0, 32), 3))
    assert "bank: values that are not finite count as zero" in caplog.text


def test_what_is_masked_in_place_must_be_contiguous():
    columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert quantise(columns, Range(8.0, 32), 3).flags.c_contiguous
    assert quantise(columns.T[::2], Range(8.0, 64), 3).flags.c_contiguous


def test_a_range_is_a_power_of_two():
    assert [range_for(x, 64).limit for x in (1.0, 3.0, 4.0, 0.3)] == [1.0, 4.0, 4.0, 0.5]
    for limit in (3.0, 0.0, -2.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="no power of two"):
            Range(limit, 32)


@pytest.mark.parametrize("sites", [3, 4, 20, 100])
def test_the_step_is_as_small_as_the_modulus_allows(sites):
    step = Range(8.0, 32).step(sites)
    assert step <= 2 * 8 * sites / 2**31 < 4 * step
