import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from hica.errors import MessageError
from hica.method.evaluation import site_metrics
from hica.method.stratified import combine

from .measured import predictions


def test_interval_of_the_federation_covers_the_truth():
    rng = np.random.default_rng(6)
    truth, sizes, trials, covered = 0.75, (40, 25, 60), 100, 0
    for trial in range(trials):
        sites = []
        for patients in sizes:
            labels = np.repeat(rng.integers(0, 2, patients), 2)
            right = rng.random(patients * 2) < truth
            probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
            groups = [str(i // 2) for i in range(patients * 2)]
            sites.append(
                site_metrics(
                    probabilities, labels, groups, 2, resamples=100, seed=trial, min_count=1
                )
            )
        overall = combine(sites).accuracy
        covered += overall.low <= truth <= overall.high
    assert 0.90 <= covered / trials <= 0.985


def test_combined_accuracy_equals_the_pooled_one():
    parts = [predictions(n, 3, seed=n) for n in (30, 90, 45)]
    sites = [site_metrics(*part, 3, resamples=50, seed=0, min_count=1) for part in parts]
    pooled = [np.concatenate([part[i] for part in parts]) for i in (0, 1)]
    overall = combine(sites)
    assert overall.n == 165
    assert overall.accuracy.value == pytest.approx(
        accuracy_score(pooled[1], pooled[0].argmax(axis=1))
    )
    errors = [site.n / 165 * site.accuracy.standard_error for site in sites]
    reach = 1.96 * np.sqrt(np.sum(np.square(errors)))
    assert overall.accuracy.high - overall.accuracy.value == pytest.approx(reach)
    weighted = sum(site.n / 165 * site.auroc.value for site in sites)
    assert overall.auroc.value == pytest.approx(weighted)
    assert overall.to_dict()["auroc"]["value"] == overall.auroc.value


def test_site_of_one_class_has_no_say_in_auroc():
    probabilities, labels, groups = predictions(60, 2, seed=7)
    both = site_metrics(probabilities, labels, groups, 2, resamples=50, seed=0, min_count=1)
    ones = labels == 1
    one_class = site_metrics(
        probabilities[ones],
        labels[ones],
        [str(i) for i in range(30)],
        2,
        resamples=50,
        seed=0,
        min_count=1,
    )
    assert one_class.auroc is None
    assert combine([both, one_class]).auroc.value == pytest.approx(both.auroc.value)
    assert combine([one_class]).auroc is None
    assert combine([one_class]).to_dict()["auroc"] is None


def test_combining_no_sites_is_refused():
    with pytest.raises(MessageError, match="no site reported metrics"):
        combine([])
