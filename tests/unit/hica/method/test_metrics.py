import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from hica.method import metrics

from .measured import predictions, sklearn_auroc


@pytest.mark.parametrize("n", [5, 60, 301])
@pytest.mark.parametrize("class_count", [2, 3, 5])
def test_values_equal_scikit_learn(n, class_count):
    probabilities, labels, _ = predictions(n, class_count, seed=n)
    predicted = probabilities.argmax(axis=1)
    assert metrics.accuracy(probabilities, labels) == pytest.approx(
        accuracy_score(labels, predicted), abs=1e-12
    )
    assert metrics.balanced_accuracy(probabilities, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-12
    )
    assert metrics.macro_auroc(probabilities, labels) == pytest.approx(
        sklearn_auroc(probabilities, labels), abs=1e-12
    )


def test_auroc_over_the_classes_present():
    probabilities, labels, _ = predictions(90, 3, seed=1)
    two = labels != 1
    expected = np.mean([roc_auc_score(labels[two] == c, probabilities[two, c]) for c in (0, 2)])
    assert metrics.macro_auroc(probabilities[two], labels[two]) == pytest.approx(expected)
    assert np.isnan(metrics.macro_auroc(probabilities[labels == 1], labels[labels == 1]))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", metrics.accuracy),
        ("balanced_accuracy", metrics.balanced_accuracy),
        ("auroc", metrics.macro_auroc),
    ],
)
def test_a_weighted_metric_is_that_of_images_written_out_so_often(name, reference):
    probabilities, labels, _ = predictions(40, 3, seed=2)
    often = np.stack([np.ones(40, int), np.random.default_rng(3).integers(0, 4, 40)])
    found = metrics.weighted_metric(name, probabilities, labels, often.astype(float))
    written_out = [np.repeat(np.arange(40), row) for row in often]
    expected = [reference(probabilities[at], labels[at]) for at in written_out]
    assert found == pytest.approx(expected, abs=1e-12)
    only = metrics.weighted_metric("auroc", probabilities, labels, [(labels == 0).astype(float)])
    assert np.isnan(only).all()  # of one class there is nothing to rank
