import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from hica.method import bootstrap
from hica.method.evaluation import site_metrics

from .measured import predictions, sklearn_auroc


@pytest.mark.parametrize("class_count", [2, 3])
def test_bootstrap_equals_a_loop_over_the_same_draws(class_count):
    probabilities, labels, groups = predictions(48, class_count, seed=3)
    got = site_metrics(
        probabilities, labels, groups, class_count, resamples=40, seed=9, min_count=1
    )
    names = sorted(set(groups))
    draws = np.random.default_rng(9).multinomial(len(names), [1 / len(names)] * len(names), 40)
    values = {"accuracy": [], "balanced_accuracy": [], "auroc": []}
    for draw in draws:
        index = [
            i
            for name, times in zip(names, draw, strict=True)
            for _ in range(times)
            for i in range(48)
            if groups[i] == name
        ]
        p, y = probabilities[index], labels[index]
        values["accuracy"].append(accuracy_score(y, p.argmax(axis=1)))
        values["balanced_accuracy"].append(balanced_accuracy_score(y, p.argmax(axis=1)))
        values["auroc"].append(sklearn_auroc(p, y))
    for field, drawn in values.items():
        estimate = getattr(got, field)
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
        assert estimate.standard_error == pytest.approx(np.std(drawn, ddof=1), abs=1e-12)


def test_bootstrap_in_blocks_equals_bootstrap_at_once(monkeypatch):
    probabilities, labels, groups = predictions(60, 3, seed=4)
    arguments = (probabilities, labels, groups, 3)
    whole = site_metrics(*arguments, resamples=50, seed=0, min_count=1)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 7 * 60)
    assert site_metrics(*arguments, resamples=50, seed=0, min_count=1) == whole


def test_patients_make_wider_intervals_than_their_images_would():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(30) % 2, 10)  # 30 patients with 10 images, all alike
    right = np.repeat(rng.random(30) < 0.7, 10)
    predicted = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2)[predicted] * 0.6 + 0.2
    patients = [str(i // 10) for i in range(300)]
    images = [str(i) for i in range(300)]
    by_patient = site_metrics(probabilities, labels, patients, 2, seed=0, min_count=5)
    by_image = site_metrics(probabilities, labels, images, 2, seed=0, min_count=5)
    ratio = by_patient.accuracy.standard_error / by_image.accuracy.standard_error
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)


def test_one_patient_says_nothing():
    probabilities, labels, _ = predictions(10, 2, seed=8)
    got = site_metrics(probabilities, labels, ["p"] * 10, 2, seed=0, min_count=1)
    assert (got.accuracy.low, got.accuracy.high, got.accuracy.standard_error) == (0, 1, 0.5)
