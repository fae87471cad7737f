"""Unseen classes: named by their texts alone, for images of a study that was not trained on them.

Nothing of them is calibrated, and no set of classes promises anything about them: there are no
held-out images of theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hica.errors import ConfigurationError, HicaError, WeightsError
from hica.steps.predictions import probabilities_of
from hica.study import Section, Study, read_toml, validated
from hica.study.sections import ClassSection
from hica.text.bank import ClassTexts, widened_classes
from hica.text.from_study import refined_text_tower
from hica.towers import TextTower
from hica.towers.tiny import UNKNOWN, TinyTextTower
from hica_client.prediction.models import SiteModels
from hica_client.site import Site

NEVER_TRAINED = (
    "by texts alone: these classes were never trained, nothing here is calibrated, and there is no "
    "coverage for them"
)
TINY = (
    "the text tower of this study is the built-in one, which knows only the study's own texts and "
    "was never held against other images: expect no more than chance"
)


class NewClasses(Section):
    """The file of `--classes`: tables `[[classes]]` as in `study.toml`."""

    classes: list[ClassSection] = Field(min_length=1)
    """Those that the study does not have."""


@dataclass(frozen=True)
class Unseen:
    """Classes of a study and further ones, each by its text.

    Attributes:
        names: The study's C, then the U new ones.
        new: The new ones.
        texts: Unit rows [C + U, D], as the study made its own before anything was trained.
        temperature: What cosines are divided by.
        notes: What must be known of them.
    """

    names: tuple[str, ...]
    new: tuple[str, ...]
    texts: NDArray[np.floating[Any]]
    temperature: float
    notes: tuple[str, ...]

    def shares(self, images: NDArray[np.floating[Any]]) -> list[dict[str, float]]:
        """Of each image [n, D], unit rows: softmax of the cosines to the texts, by class."""
        shares = probabilities_of(images @ self.texts.T / self.temperature)
        return [
            {name: float(share) for name, share in zip(self.names, row, strict=True)}
            for row in shares
        ]


def read_classes(path: Path, study: Study) -> list[ClassSection]:
    """The classes of a file, which the study does not have.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    found = validated(NewClasses, read_toml(path), str(path)).classes
    names = [each.name for each in found]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: classes need different names, got {names}")
    known = [name for name in names if name in study.class_names]
    if known:
        raise ConfigurationError(
            f"{path}: classes.name: {', '.join(known)}: the study has this class, and it is "
            "predicted without --classes; leave it out of the file"
        )
    return found


def unseen_classes(path: Path, models: SiteModels) -> Unseen:
    """The classes of a file, embedded by the study's text tower.

    Raises:
        ConfigurationError: The file cannot be used, or two classes cannot be told apart by it.
        WeightsError: The text tower is not at this site.
    """
    site, study = models.session.site, models.study
    found = read_classes(path, study)
    tower = _tower(site, study)
    notes = [NEVER_TRAINED]
    if isinstance(tower, TinyTextTower):
        _check_words(path, tower, found)
        notes.append(TINY)
    new: list[ClassTexts] = [(each.name, each.prompts, [], False) for each in found]
    settings, seed = study.text, study.study.seed
    try:
        texts = widened_classes(
            tower, study.class_texts, new, models.session.width, settings.max_similarity, seed
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    names = tuple(each.name for each in found)
    return Unseen(
        (*study.class_names, *names),
        names,
        texts.numpy(),
        study.alignment.temperature,
        tuple(notes),
    )


def _tower(site: Site, study: Study) -> TextTower:
    """The study's text tower, refined as the coordinator did; a site otherwise needs none."""
    try:
        return refined_text_tower(study, site.data.weights, site.data.hubs)
    except HicaError as error:
        corpus = f" The file of text.corpus ({study.text.corpus}) belongs there, too."
        raise WeightsError(
            f"--classes: needs the study's text tower (model.text = {study.model.text!r}), which "
            f"is not whole in {site.data.weights}: {error}. Ask the coordinator which weights they "
            f"are, and bring them there: hica-client backbone import {site.file} FOLDER, or "
            f"hica-client backbone fetch (docs/weights.md).{corpus if study.text.corpus else ''}"
        ) from None


def _check_words(path: Path, tower: TinyTextTower, classes: Sequence[ClassSection]) -> None:
    """Check that a tower of few words knows one of each class."""
    for each in classes:
        if not (tower.tokenize(each.prompts) > UNKNOWN).any():
            raise ConfigurationError(
                f"{path}: class {each.name!r}: the study's text tower is the built-in one, and "
                "knows none of the words of its prompts; use words of the study's own texts, or "
                "leave out --classes"
            )
