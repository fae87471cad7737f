import warnings

import numpy as np
import pytest

from hica.errors import DataError
from hica.method.evaluation import site_metrics

from .measured import counted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a"] * 3 + ["b"] * 9}, "no class has min_count = 4 patients"),
        ({"labels": np.full(12, -1)}, r"labels lie in -1\.\.-1"),
        ({"labels": np.full(12, 3)}, "expected 0..2"),
        ({"labels": np.zeros(11, int)}, "do not describe the same images"),
        ({"groups": ["a"]}, "do not describe the same images"),
        ({"probabilities": np.full((12, 2), 0.5)}, "do not describe the same images"),
        ({"probabilities": np.full((12, 3), np.nan)}, "not finite"),
        ({"probabilities": np.full((12, 3), 7.0)}, "apply the softmax"),
    ],
)
def test_predictions_that_cannot_be_measured_are_refused(change, message):
    table = {
        "probabilities": np.full((12, 3), 1 / 3),
        "labels": np.arange(12) % 3,
        "groups": [str(i) for i in range(12)],
    }
    with pytest.raises(DataError, match=message):
        site_metrics(**(table | change), class_count=3, resamples=5, seed=0, min_count=4)


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_a_refusal_does_not_tell_of_a_patient_who_is_not_evaluated(value):
    probabilities = np.full((12, 2), 0.5)
    probabilities[-1] = value
    groups = [str(i) for i in range(12)]
    labels = np.array([0] * 11 + [1])
    got = site_metrics(probabilities, labels, groups, 2, resamples=5, seed=0, min_count=5)
    assert (got.n, got.counts) == (11, (11, None))


def test_no_warnings_on_extreme_inputs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = counted([6, 0])
        site_metrics(
            np.eye(2)[[0, 1] * 6], [0, 1] * 6, list("abcdefghijkl"), 2, seed=0, min_count=1
        )
    assert got.auroc is None
