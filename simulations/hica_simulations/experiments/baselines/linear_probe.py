"""Linear probe: logistic regression on frozen features of the pooled shots.

The plainest use of a pretrained tower, and hard to beat with few shots (Radford et al., 2021,
section 3; Tian et al., 2020).
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hica_simulations.experiments.baselines.episode import Doubles, Episode

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Grid of C, the inverse regularisation."""
FOLDS = 5


def fit_predict(episode: Episode) -> Doubles:
    """Fit on the shots; probabilities [m, C] of the test images, 0 for a class without shots.

    Features are standardised; C is chosen by log loss in stratified 5-fold cross-validation on the
    shots alone (fewer folds where a class has fewer shots; the middle of the grid with one).

    Raises:
        ValueError: Fewer than two classes among the labels.
    """
    present, counts = np.unique(episode.labels, return_counts=True)
    if len(present) < 2:
        raise ValueError(f"a linear probe needs shots of two classes, got class {present}")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = min(FOLDS, int(counts.min()))
    if folds >= 2:
        probe = GridSearchCV(
            probe,
            {"logisticregression__C": STRENGTHS},
            scoring="neg_log_loss",
            cv=StratifiedKFold(folds, shuffle=True, random_state=episode.seed),
        )
    else:
        probe.set_params(logisticregression__C=STRENGTHS[len(STRENGTHS) // 2])
    probe.fit(episode.shots, episode.labels)
    probabilities = np.zeros((len(episode.queries), episode.class_count))
    probabilities[:, present] = probe.predict_proba(episode.queries)
    return probabilities
