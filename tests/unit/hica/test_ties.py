import numpy as np
import pytest

from hica.ties import first_largest


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_of_equal_scores_the_first_is_taken(scale, sign):
    rounding = 1 + 1e-14 * np.arange(4)
    rows = np.array([[-3, 2, 2, 2], [2, 2, -3, -3]]) * scale * rounding[:: int(sign)]
    assert first_largest(rows).tolist() == [1, 0]


def test_scores_that_differ_are_ranked():
    rows = np.random.default_rng(0).normal(size=(50, 7, 9))
    assert np.array_equal(first_largest(rows), rows.argmax(axis=-1))
    assert first_largest(np.array([1.0, 1.0 + 1e-8])) == 1
    assert first_largest(np.array([1.0, 1.0 + 1e-8]), tolerance=1e-6) == 0
    assert first_largest(np.zeros(3)) == 0
