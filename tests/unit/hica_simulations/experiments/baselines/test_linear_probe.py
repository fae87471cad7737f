import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hica_simulations.experiments.baselines import linear_probe
from hica_simulations.experiments.baselines.episode import Episode
from hica_simulations.experiments.baselines.linear_probe import STRENGTHS


def fit_predict(train, labels, test, classes, seed):
    here, there = np.zeros(len(train), np.int64), np.zeros(len(test), np.int64)
    episode = Episode(train[:, None], labels, here, test[:, None], there, classes, seed)
    return linear_probe.fit_predict(episode)


def blobs(per_class, classes=3, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    return 4.0 * np.eye(classes, dim)[labels] + rng.standard_normal((len(labels), dim)), labels


def test_separable_classes_are_told_apart():
    train, labels = blobs(20)
    test, truth = blobs(50, seed=1)
    probabilities = fit_predict(train, labels, test, 3, seed=0)
    assert probabilities.shape == (150, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert np.mean(probabilities.argmax(axis=1) == truth) > 0.95


def test_the_strength_is_the_cross_validated_one():
    train, labels = blobs(20)
    test, _ = blobs(5, seed=1)
    # Noise calls for strong regularisation, well separated classes for weak.
    shuffled = np.random.default_rng(3).permutation(labels)
    assert np.ptp(fit_predict(train, shuffled, test, 3, seed=0)) < 0.2
    assert fit_predict(train, labels, test, 3, seed=0).max() > 0.95


def test_one_shot_equals_logistic_regression_on_standardised_features():
    train, labels = blobs(1)
    test, _ = blobs(4, seed=1)
    mean, std = train.mean(axis=0), train.std(axis=0)
    middle = STRENGTHS[len(STRENGTHS) // 2]
    plain = LogisticRegression(C=middle, max_iter=1000).fit((train - mean) / std, labels)
    np.testing.assert_allclose(
        fit_predict(train, labels, test, 3, seed=0), plain.predict_proba((test - mean) / std)
    )


def test_features_of_any_scale_give_the_same_answer():
    train, labels = blobs(8)
    test, _ = blobs(4, seed=1)
    np.testing.assert_allclose(
        fit_predict(1e3 * train + 7, labels, 1e3 * test + 7, 3, seed=0),
        fit_predict(train, labels, test, 3, seed=0),
        atol=1e-6,
    )


def test_a_class_without_shots_has_probability_zero():
    train, labels = blobs(6)
    keep = labels != 1
    probabilities = fit_predict(train[keep], labels[keep], train, 4, seed=0)
    assert np.all(probabilities[:, [1, 3]] == 0)
    assert np.all(probabilities[:, [0, 2]] > 0)


def test_shots_of_one_class_are_refused():
    train, _ = blobs(4)
    with pytest.raises(ValueError, match="needs shots of two classes"):
        fit_predict(train, np.zeros(len(train), int), train, 3, seed=0)
