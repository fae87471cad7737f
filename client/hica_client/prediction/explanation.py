"""Explain: what stands behind the prediction of one image, by the models that made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.errors import ConfigurationError
from hica.images.manifest import Record
from hica.images.pixels import image_of
from hica.method.local_training import Batch
from hica_client.prediction.models import Seen, SiteModels, above_others
from hica_client.prediction.predict import Prediction, Predictor

NEAREST_SHOTS = 6
"""Shots that are shown."""

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Voice:
    """What one of the models says by itself.

    Attributes:
        model: `shared`, `personal` or `alone`.
        weight: Its share in the logits of the prediction; those of all models are together 1.
        probabilities: Of each class, at the temperature of the prediction.
    """

    model: str
    weight: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class RegionMatch:
    """A region of the image, held against every finding.

    Attributes:
        region: Its number, from 1; the largest is the first.
        area: Share of the image that it covers.
        finding: The nearest; None where the study has no findings.
        classes: Those that list this finding.
        similarities: Cosine to each finding, by its text.
    """

    region: int
    area: float
    finding: str | None
    classes: tuple[str, ...]
    similarities: dict[str, float]


@dataclass(frozen=True)
class Shot:
    """A labelled image of this site that the study was trained on.

    Attributes:
        image: Its file, as the manifest names it.
        label: Its class.
        similarity: Cosine to the image that is explained.
        same: Whether it is that very image.
    """

    image: str
    label: str
    similarity: float
    same: bool


@dataclass(frozen=True)
class TextMap:
    """Where the image is like a text, by position of the tower's last map.

    Attributes:
        text: Name of a class, or a finding.
        kind: `class` or `finding`.
        cosines: [g][g], rows from the top.
        above_others: [g][g], the same less the mean of those to the other classes, or findings:
            what is drawn.
    """

    text: str
    kind: str
    cosines: list[list[float]]
    above_others: list[list[float]]


@dataclass(frozen=True)
class Explanation:
    """What stands behind a prediction.

    Attributes:
        prediction: What is said of the image.
        by: The model by which regions, maps and nearest shots are.
        region_share: Share of the region scores in the prediction; 0: regions do not count in it.
        voices: What each model says; first the one of the largest weight.
        regions: See `RegionMatch`.
        maps: See `TextMap`.
        shots: The nearest, first the most similar.
    """

    prediction: Prediction
    by: str
    region_share: float
    voices: tuple[Voice, ...]
    regions: tuple[RegionMatch, ...]
    maps: tuple[TextMap, ...]
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Pictured:
    """An explanation with what is drawn of it.

    Attributes:
        said: The explanation.
        pixels: The square that the tower sees, [S, S, 3].
        masks: Its regions [k, S, S].
        shots: The rows of the nearest shots.
    """

    said: Explanation
    pixels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    shots: tuple[Record, ...]


def explained(
    predictor: Predictor, record: Record, texts: Sequence[str], by: str | None = None
) -> Pictured:
    """Explain the prediction of an image.

    `texts` are the classes and findings that maps are made of: without them of the likeliest class,
    and of the finding that a region matches best. `by` is the model that regions, maps and nearest
    shots are by: without it the one that counts the most.

    Raises:
        DataError: The image cannot be read.
        ConfigurationError: No such class or finding, or this site has no such model.
    """
    models = predictor.models
    by = _model_of(models, by)
    named = [_kind_of(models, text) for text in texts]
    examples = models.examples([record])
    seen = models.seen(examples)
    (prediction,) = predictor.of_seen([record], seen)
    embedded = models.embedded(examples, by)
    pixels, masks = models.pixels(record)
    regions = _regions(models, embedded, masks, by)
    if not named:
        named = [("class", max(prediction.probabilities, key=prediction.probabilities.__getitem__))]
        matched = [each for each in regions if each.finding is not None]
        if matched:
            best = max(matched, key=lambda each: max(each.similarities.values()))
            named.append(("finding", str(best.finding)))
    rows, shots = _nearest_shots(models, embedded, image_of(record)[1], by)
    said = Explanation(
        prediction=prediction,
        by=by,
        region_share=models.study.alignment.region_blend if models.study.finding_names else 0.0,
        voices=_voices(predictor, seen),
        regions=regions,
        maps=tuple(_map(models, pixels, kind, text, by) for kind, text in named),
        shots=shots,
    )
    return Pictured(said, pixels, masks, rows)


def _model_of(models: SiteModels, by: str | None) -> str:
    """The model that was asked for, or the one that counts the most."""
    weights = models.weights
    if by is None:
        return max(weights, key=weights.__getitem__)
    if by not in weights:
        raise ConfigurationError(
            f"--by {by}: this site has no model of its own in this study, or --model shared leaves "
            "it out; explain with --by shared"
        )
    return by


def _kind_of(models: SiteModels, text: str) -> tuple[str, str]:
    """Whether a text is a class or a finding."""
    study = models.study
    for kind, names in (("class", study.class_names), ("finding", study.finding_names)):
        if text in names:
            return kind, text
    findings = f"; the findings are {', '.join(study.finding_names)}" if study.finding_names else ""
    raise ConfigurationError(
        f"--text {text!r}: no class or finding of the study; the classes are "
        f"{', '.join(study.class_names)}{findings}"
    )


def _voices(predictor: Predictor, seen: Seen) -> tuple[Voice, ...]:
    weights = predictor.models.weights
    order = sorted(weights, key=lambda name: -weights[name])
    return tuple(
        Voice(name, weights[name], predictor.named_probabilities(seen.voices[name])[0])
        for name in order
    )


def _regions(
    models: SiteModels, embedded: Batch, masks: NDArray[np.bool_], by: str
) -> tuple[RegionMatch, ...]:
    """Each region against each finding: cosines [K, M]."""
    names, listings = models.study.finding_names, models.study.classes
    similarity = embedded.regions[0] @ torch.from_numpy(models.texts(by)[1]).T
    found = []
    for row, mask in enumerate(masks):
        if not embedded.valid[0, row]:  # smaller than what the tower's map can show
            continue
        cosines = {name: float(similarity[row, m]) for m, name in enumerate(names)}
        best = max(cosines, key=cosines.__getitem__) if cosines else None
        classes = tuple(each.name for each in listings if best in each.findings)
        found.append(RegionMatch(row + 1, float(mask.mean()), best, classes, cosines))
    return tuple(found)


def _map(models: SiteModels, pixels: NDArray[np.uint8], kind: str, text: str, by: str) -> TextMap:
    classes, findings = models.texts(by)
    study = models.study
    names, rows = (
        (study.class_names, classes) if kind == "class" else (study.finding_names, findings)
    )
    cosines, number = models.patch_cosines(pixels, rows, by), names.index(text)
    above = above_others(cosines, number)
    return TextMap(text, kind, cosines[number].tolist(), above.tolist())


def _nearest_shots(
    models: SiteModels, embedded: Batch, image: str, by: str
) -> tuple[tuple[Record, ...], tuple[Shot, ...]]:
    rows, images = models.shots(by)
    cosines = images @ embedded.images[0].numpy() if rows else np.zeros(0)
    nearest = np.argsort(-cosines, kind="stable")[:NEAREST_SHOTS]
    ids = models.session.roles.ids
    found = [rows[each] for each in nearest]
    shots = (
        Shot(row.name, str(row.label), float(cosines[each]), ids[row.name] == image)
        for each, row in zip(nearest, found, strict=True)
    )
    return tuple(found), tuple(shots)
