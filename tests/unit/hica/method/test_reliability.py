import numpy as np
import pytest

from hica.method.reliability import expected_calibration_error

from .measured import predictions


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_equals_a_loop(bins):
    probabilities, labels, _ = predictions(200, 3, seed=2)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    expected = 0.0
    for b in range(bins):
        inside = [i for i in range(200) if b / bins < confidence[i] <= (b + 1) / bins + 1e-15]
        if inside:
            right = np.mean([predicted[i] == labels[i] for i in inside])
            sure = np.mean([confidence[i] for i in inside])
            expected += len(inside) / 200 * abs(right - sure)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_calibration_error_of_a_known_case():
    probabilities = [[0.9, 0.1]] * 10  # 90 % sure and right half of the time
    assert expected_calibration_error(probabilities, [0, 1] * 5) == pytest.approx(0.4)
