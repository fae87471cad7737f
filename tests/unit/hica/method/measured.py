"""Predictions to measure, and what a site says of them."""

import numpy as np
from sklearn.metrics import roc_auc_score

from hica.method.evaluation import site_metrics


def predictions(n, class_count, seed, decimals=2):
    """Probabilities better than chance, rounded so that scores tie, labels and patients."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % class_count
    logits = rng.normal(size=(n, class_count)) + 1.2 * np.eye(class_count)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = probabilities.round(decimals)
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(axis=1)
    return probabilities.clip(0, 1), labels, [f"p{i // 3}" for i in range(n)]


def sklearn_auroc(probabilities, labels):
    if probabilities.shape[1] == 2:
        return roc_auc_score(labels, probabilities[:, 1])
    return roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")


def counted(patients_per_class, min_count=5):
    """Metrics of a site with one image a patient and this many patients of each class."""
    class_count = len(patients_per_class)
    labels = np.repeat(np.arange(class_count), patients_per_class)
    probabilities = np.full((len(labels), class_count), 1 / class_count)
    groups = [str(i) for i in range(len(labels))]
    return site_metrics(
        probabilities, labels, groups, class_count, resamples=5, seed=0, min_count=min_count
    )
