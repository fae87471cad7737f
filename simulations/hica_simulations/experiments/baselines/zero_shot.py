"""Zero-shot: each image goes to the class whose prompts lie nearest (Radford et al., 2021, §3.1).

The text bank holds the mean of each class's prompts: the prompt ensemble of §3.1.4. No label is
used; the shots only say where the centre of the features lies.
"""

from hica_simulations.experiments.baselines.episode import Doubles, Episode, probabilities


def fit_predict(episode: Episode) -> Doubles:
    """Softmax over the cosines to the class texts, [m, C]."""
    return probabilities(episode.unit_queries @ episode.class_texts.T)
