"""From a study to its text tower: where configuration meets the towers' plain parameters."""

from pathlib import Path

from hica.errors import ConfigurationError
from hica.study import Study
from hica.text.refinement import read_corpus, read_pairs, refine, study_pairs
from hica.towers import TextTower, load_text_tower
from hica.towers.from_study import checkpoint_of

GENTLE = 1e-4
"""Highest learning rate that leaves a tower the language that it was trained on."""


def refined_text_tower(study: Study, texts: Path, hubs: bool = False) -> TextTower:
    """The study's text tower, refined on its texts; weights and corpus are in the folder `texts`.

    `hubs` is whether what is pinned may be fetched from a hub.

    Raises:
        CheckpointError: The tower's weights are missing.
        ConfigurationError: An unknown tower, or a corpus that cannot be read.
    """
    settings, seed = study.text, study.study.seed
    pairs = study_pairs(study.class_texts)
    corpus: list[str] = []
    if settings.corpus:
        pairs += read_pairs(settings.corpus, texts)
        corpus = read_corpus(settings.corpus, texts)
    tower = load_text_tower(
        study.model.text,
        image=study.model.image,
        pretrained=study.model.pretrained,
        checkpoint=checkpoint_of(study, texts),
        sha256=study.model.sha256,
        text_sha256=study.model.text_sha256,
        vocabulary=[text for pair in pairs for text in pair] + corpus,
        seed=seed,
        weights=texts,
        hubs=hubs,
    )
    if settings.epochs and tower.knows_language and settings.learning_rate > GENTLE:
        raise ConfigurationError(
            f"text.learning_rate = {settings.learning_rate:g}: at this rate {study.model.text} "
            "would forget the language that it knows; set text.epochs = 0, or a rate of "
            f"{GENTLE:g} at most"
        )
    if settings.epochs:
        refine(tower, pairs, corpus, settings.epochs, settings.learning_rate, seed)
    return tower
