"""The models that a site predicts with: the shared one, and its own two where it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hica.deployment.kit import read_kit
from hica.errors import CheckpointError, FederationError
from hica.images.manifest import Record
from hica.images.pixels import pixels_of
from hica.method.examples import Examples
from hica.method.local_training import Batch, embed_all
from hica.method.model import AlignmentModel
from hica.regions import extract
from hica.steps.model_file import load_model, model_path
from hica.steps.personal import (
    ALONE_MODEL,
    OTHERS,
    OWN,
    PERSONAL_MODEL,
    arrays_of_model,
    kept_logits,
    load_own,
    mixed,
    mixture,
    own_weight,
)
from hica.steps.predictions import intercepts, logits, scores_of
from hica.steps.state import Bank, State
from hica.steps.step import Part
from hica.study import Study
from hica_client.draws import site_roles
from hica_client.result import is_told, kept_result
from hica_client.session import Session
from hica_client.site import Site, load_site

Matrix = NDArray[np.floating[Any]]
SHARED = "shared"


@dataclass(frozen=True)
class Seen:
    """What the models make of some images.

    Attributes:
        logits: [n, C], of all three models as one, or of the shared one alone.
        embedded: Unit embeddings of the images and their regions by the shared model.
        voices: Logits [n, C] of each model by its name; of held-out images none.
    """

    logits: Matrix
    embedded: Batch
    voices: Mapping[str, Matrix] = field(default_factory=dict)


class SiteModels:
    """A finished study's models at a site.

    `own` is whether the site's own two take part. They have one tower, so each is loaded before it
    is asked: ask for many images at once.
    """

    def __init__(self, site: Site, study: Study, own: bool = True) -> None:
        """Open the study's final model.

        Raises:
            FederationError: The site has not been told that the study is over.
            CheckpointError: What was kept is damaged or gone, or of an earlier version.
        """
        if not is_told(site, study.sha256):
            raise FederationError(
                f"{site.file}: the study {study.study.name!r} has left no model here yet: it comes "
                "at the end of the study, while `hica-client run` runs"
            )
        self.model_sha256 = str(kept_result(site, study)["model_sha256"])
        self.session = Session(site, study, site_roles(site, study, keep=False))
        learnt = load_model(model_path(site.study_folder(study.sha256)).parent)
        self._model = self.session.model(learnt)
        self._kept: dict[str, Mapping[str, NDArray[Any]]] = {SHARED: arrays_of_model(self._model)}
        self._current = SHARED
        self._known_intercepts: dict[str, Any] = {}
        self.weight = own_weight(self.session) if own else None
        if self.weight is not None:
            self._own_intercepts = self.session.kept(OWN)["intercepts"]
            for name in (PERSONAL_MODEL, ALONE_MODEL):
                self._kept[name] = self.session.kept(name)
                if not set(OTHERS) <= self._kept[name].keys():
                    raise CheckpointError(
                        f"{self.session.state / name}: is of an earlier version of hica, which "
                        "kept too little to predict with; predict with --model shared"
                    )

    @property
    def study(self) -> Study:
        """The study that the models are of."""
        return self.session.study

    def _loaded(self, name: str) -> AlignmentModel:
        """The tower as one of the models: the shared one, or one of the site's own."""
        if name != self._current:
            load_own(self._model, self._kept[name])
            self._current = name
        self._model.eval()
        return self._model

    def by_itself(self, name: str) -> tuple[AlignmentModel, State, Any]:
        """One of the models, what was learnt of it, and its intercepts [C] in a prediction.

        Of the shared model they are the federation's, also where the site knows its prevalence.

        Raises:
            FederationError: The site has no models of its own.
        """
        if name not in self._kept:
            raise FederationError(
                f"{self.session.name}: has no model of its own from the study "
                f"{self.study.study.name!r}: the study trains none, or the site had no labelled "
                "image; use the shared one"
            )
        model = self._loaded(name)
        kept = dict(self._kept[name])
        centre, scale, bias, classes, findings = (kept.pop(other) for other in OTHERS)
        own = torch.from_numpy(bias)
        if name != SHARED:
            own = self._intercepts(model) + torch.from_numpy(self._own_intercepts)
        learnt = State(
            shared=kept,
            bank=Bank(classes, findings),
            centre=centre,
            scale=scale,
            bias=own.double().numpy(),
        )
        return model, learnt, own

    def examples(self, records: Sequence[Record]) -> Examples:
        """Images prepared as the study's test images are.

        Raises:
            DataError: One cannot be read; names the file.
        """
        session, alignment = self.session, self.study.alignment
        zoomed = 1 + alignment.flip_at_test if alignment.region_view else None
        return session.pipeline.examples(
            records, [-1] * len(records), session.texts, session.test_views, "", zoomed
        ).first_views(session.test_views)

    def seen(self, examples: Examples) -> Seen:
        """Logits and embeddings of prepared images."""
        shared = self._loaded(SHARED)
        embedded = embed_all(shared, examples)
        said = self._said(shared, embedded)
        if self.weight is None:
            return Seen(said, embedded, {SHARED: said})
        own = {}
        for name in (PERSONAL_MODEL, ALONE_MODEL):
            model = self._loaded(name)
            own[name] = self._said(model, embed_all(model, examples)) + self._own_intercepts
        said = said + self._own_intercepts
        return Seen(mixture(said, own, self.weight), embedded, {SHARED: said, **own})

    def _said(self, model: AlignmentModel, embedded: Batch) -> Matrix:
        scores = scores_of(self.study, embedded, model)
        return np.asarray((scores + self._intercepts(model)).numpy())

    def _intercepts(self, model: AlignmentModel) -> Any:
        """Those of a loaded model, computed once."""
        if self._current not in self._known_intercepts:
            self._known_intercepts[self._current] = intercepts(self.session, model)
        return self._known_intercepts[self._current]

    def held_out(self) -> Seen:
        """What the models make of the site's held-out images.

        What its own said of them was kept when they were made.
        """
        model = self._loaded(SHARED)
        said = logits(self.session, model)
        embedded = self.session.embedded("test", model)
        has_own = self.weight is not None and kept_logits(self.session) is not None
        return Seen(mixed(self.session, said) if has_own else said, embedded)

    @property
    def weights(self) -> dict[str, float]:
        """How much each model counts in a prediction, by its name; together 1."""
        if self.weight is None:
            return {SHARED: 1.0}
        own = dict.fromkeys((PERSONAL_MODEL, ALONE_MODEL), self.weight / 2)
        return {SHARED: 1 - self.weight, **own}

    def embedded(self, examples: Examples, name: str) -> Batch:
        """Unit embeddings of prepared images and their regions by one of the models."""
        return embed_all(self._loaded(name), examples)

    def texts(self, name: str = SHARED) -> tuple[Matrix, Matrix]:
        """Unit rows of class texts [C, D] and finding texts [M, D], as a model has them."""
        classes, findings = self._loaded(name).unit_bank()
        return classes.detach().cpu().numpy(), findings.detach().cpu().numpy()

    def pixels(self, record: Record) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The square of pixels [S, S, 3] that the tower sees, and its regions [k, S, S].

        Raises:
            DataError: The image cannot be read.
        """
        pipeline = self.session.pipeline
        pixels, mask, _ = pixels_of(record, pipeline.tower.tower.preprocess, pipeline.cache)
        regions = extract(pipeline.method, pixels, mask, pipeline.region_count)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), regions.numpy()

    def patch_cosines(self, pixels: NDArray[np.uint8], texts: Matrix, name: str = SHARED) -> Matrix:
        """Cosine of each patch of what the tower sees, [S, S, 3], to texts [T, D]: [T, g, g].

        Patches are the positions of the tower's last map, placed as regions are.
        """
        model, tower = self._loaded(name), self.session.pipeline.tower
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.session.device)
        with torch.no_grad():
            patches = model.placed(tower.patch_features(images)[0], 1).float().cpu().numpy()
        grid = tower.tower.grid
        return np.asarray((texts @ patches.T).reshape(len(texts), grid, grid))

    def class_map(self, pixels: NDArray[np.uint8], number: int) -> Matrix:
        """Where what the tower sees, [S, S, 3], is more like a class than like the others [g, g].

        By the shared model.
        """
        return above_others(self.patch_cosines(pixels, self.texts()[0]), number)

    def shots(self, name: str) -> tuple[list[Record], Matrix]:
        """The labelled images that this site's part was learnt from; unit rows [n, D]."""
        ids = [bytes(each).hex() for each in self.session.images("labelled")]
        row_of = {self.session.roles.ids[row.name]: row for row in self.session.roles.shots}
        if not ids:
            return [], np.zeros((0, self.session.width))
        embedded = self.session.embedded("labelled", self._loaded(name))
        return [row_of[each] for each in ids], embedded.images.numpy()

    def learnt_from(self) -> Batch:
        """Embeddings of the images that the site's part of the study was learnt from."""
        part: Part = "unlabelled" if self.session.roles.pool else "labelled"
        return self.session.embedded(part, self._loaded(SHARED))


def above_others(cosines: Matrix, number: int) -> Matrix:
    """Cosines [T, ...] to one of the texts, less the mean of those to the others."""
    if len(cosines) == 1:
        return np.asarray(cosines[number])
    return np.asarray(cosines[number] - np.delete(cosines, number, axis=0).mean(axis=0))


def site_models(site_file: Path, own: bool = True) -> SiteModels:
    """The models of the start kit's study at a site; see `SiteModels`.

    Raises:
        ConfigurationError: The site file or the start kit cannot be used.
        FederationError: The study is not over at this site.
        CheckpointError: What was kept is damaged or gone.
    """
    site = load_site(site_file)
    return SiteModels(site, read_kit(site.federation.kit)[1], own)
