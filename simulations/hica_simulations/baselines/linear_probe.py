"""Linear probe: logistic regression on frozen features of the pooled shots.

The plainest use of a pretrained tower, and hard to beat with few shots (Radford et al., 2021,
section 3; Tian et al., 2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Grid of C, the inverse regularisation."""
FOLDS = 5


def fit_predict(
    train_features: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test_features: NDArray[np.floating],
    class_count: int,
    seed: int,
) -> NDArray[np.float64]:
    """Fit on the shots, predict the test images.

    Features are standardised; C is chosen by log loss in stratified 5-fold cross-validation on the
    shots alone (fewer folds where a class has fewer shots; the middle of the grid with one).

    Args:
        train_features: [n, D].
        train_labels: [n] class indices; a class may be missing and then gets probability 0.
        test_features: [n_test, D].
        class_count: C.
        seed: Of the folds.

    Returns:
        Probabilities [n_test, C].

    Raises:
        ValueError: Fewer than two classes among the labels.
    """
    present, counts = np.unique(train_labels, return_counts=True)
    if len(present) < 2:
        raise ValueError(f"a linear probe needs shots of two classes, got class {present}")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = min(FOLDS, int(counts.min()))
    if folds >= 2:
        probe = GridSearchCV(
            probe,
            {"logisticregression__C": STRENGTHS},
            scoring="neg_log_loss",
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        )
    else:
        probe.set_params(logisticregression__C=STRENGTHS[len(STRENGTHS) // 2])
    probe.fit(np.asarray(train_features, np.float64), train_labels)
    probabilities = np.zeros((len(test_features), class_count))
    probabilities[:, present] = probe.predict_proba(np.asarray(test_features, np.float64))
    return probabilities
