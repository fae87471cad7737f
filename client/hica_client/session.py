"""A site's hold on one study: its data prepared, its model built, its state on disk.

A session can be lost at any moment and made again: what must survive (draw, centre, pseudo-labels)
is written under the site's state folder before an answer that depends on it.
"""

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.cohort.pipeline import Pipeline
from hica.cohort.region_method import region_method
from hica.cohort.roles import Roles
from hica.device import select_device
from hica.errors import CheckpointError
from hica.images.cache import TensorCache
from hica.images.manifest import Record
from hica.method.examples import Examples
from hica.method.local_training import EMBEDDED, Batch, embed_all
from hica.method.model import AlignmentModel
from hica.method.pseudo_labels import Vector
from hica.steps.alone import adapted, adapting, alone, learnt_alone
from hica.steps.state import Bank, State
from hica.steps.step import Part, Role
from hica.study import Study
from hica.text.bank import TextBank
from hica.towers.adaptation import AdaptedTower
from hica.towers.from_study import adapted_tower
from hica.wire.checkpoint import has_state, load_state, save_state
from hica.wire.weight_names import BANK_CLASSES, BANK_FINDINGS
from hica_client.answers import Answers
from hica_client.decisions import Standing, stamp, standing
from hica_client.draws import site_roles
from hica_client.site import Site


class Session:
    """One study at one site: the data that the study's steps see (`hica.steps.step.SiteData`).

    `roles` says which of the site's rows are learnt from, shots, and held out. `run_id` is Flower's
    number of the run whose request is being answered.
    Without `roles` they are drawn, or read where the study has drawn them.
    """

    def __init__(self, site: Site, study: Study, roles: Roles | None = None) -> None:
        self.site = site
        self.study = study
        self.run_id = 0
        self.device = select_device(site.device.use)
        self.state = site.study_folder(study.sha256)
        self._decided = stamp(site)
        self.standing: Standing = standing(site)
        self.roles = roles or site_roles(site, study, keep=True)
        self._left_out = self._rejected_ids()
        self._examples: dict[Part, Examples] = {}
        self._embedded: dict[Part, tuple[str, Batch]] = {}
        self._ids: dict[Part, NDArray[np.uint8]] = {}

    @property
    def name(self) -> str:
        """The site's name."""
        return self.site.site.name

    @property
    def rest_shares(self) -> Vector | None:
        """See `SiteData.rest_shares`."""
        return self.roles.rest_shares

    @property
    def withdrawn(self) -> int:
        """See `SiteData.withdrawn`."""
        return self.roles.withdrawn

    @property
    def shots_in_pool(self) -> NDArray[np.bool_]:
        """See `SiteData.shots_in_pool`."""
        shots = {record.name for record in self.roles.shots}
        return np.array([record.name in shots for record in self.roles.pool], dtype=bool)

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """See `SiteData.rejected`."""
        ids = [bytes(image).hex() for image in self.images("unlabelled")]
        return np.array([each in self._left_out for each in ids], dtype=bool)

    def _rejected_ids(self) -> frozenset[str]:
        """Images that stage 1 and spread labels leave out, as the study's draw calls them.

        A private study leaves out single images only. What is said of a whole cluster depends on
        all patients in it: one more of them could take the others out of training.
        """
        single = self.standing.reviewed.rejected
        ids = frozenset(self.roles.ids[row.name] for row in self.roles.pool if row.sha256 in single)
        if self.study.privacy.is_private:
            return ids
        return ids | self.standing.in_rejected_clusters(self.study.sha256)

    def look_again(self) -> None:
        """Take in what reviewers have decided since; a secure sum that is under way goes on."""
        if self._decided == (now := stamp(self.site)):
            return
        self._decided, self.standing = now, standing(self.site)
        self.roles = site_roles(self.site, self.study, keep=True)
        self._left_out = self._rejected_ids()
        self.pipeline = replace(self.pipeline, rejected=self.standing.regions)
        self._examples, self._embedded, self._ids = {}, {}, {}

    @property
    def test_views(self) -> int:
        """Views of a test image, whose embeddings are averaged; the first of a labelled one."""
        alignment = self.study.alignment
        return 1 + alignment.flip_at_test + alignment.region_view

    def capabilities(self) -> dict[str, Any]:
        """What the coordinator may know before the run, without counts of few patients."""
        roles, classes = self.roles, self.study.class_names
        hidden = None in roles.classes_told
        return {
            "labelled": self.told("labelled"),
            "unlabelled": self.told("unlabelled"),
            "test": self.told("test"),
            "classes": dict(zip(classes, roles.classes_told, strict=True)),
            "shortfall": [] if hidden else sorted(roles.episode.shortfall),
            "notes": list(dict.fromkeys(note.told for note in roles.notes if note.told)),
            "tower": self.tower_fingerprint,
            "device": str(self.device),
            "versions": {
                name: importlib.metadata.version(name) for name in ("hica", "torch", "flwr")
            },
        }

    @cached_property
    def answers(self) -> Answers:
        """What was answered of this study."""
        return Answers(self.state / "answers", self.study)

    @cached_property
    def _tower_and_start(self) -> tuple[AdaptedTower, dict[str, NDArray[Any]]]:
        """The adapted tower, and a copy of what of it will be trained."""
        data = self.site.data
        adapted = adapted_tower(self.study, data.weights, self.device, data.hubs)
        weights = adapted.trainable().items()
        return adapted, {f"tower.{name}": w.detach().cpu().numpy().copy() for name, w in weights}

    @cached_property
    def pipeline(self) -> Pipeline:
        """Tower, regions and cache; the tower is on the site's device."""
        regions, weights = self.study.regions, self.site.data.weights
        hubs, adapted = self.site.data.hubs, self._tower_and_start[0]
        method = region_method(self.study, weights, adapted.tower, self.device, hubs)
        cache = TensorCache(self.site.data.cache)
        rejected = self.standing.regions
        return Pipeline(adapted, method, regions.count, cache, self.device, rejected)

    @property
    def start(self) -> dict[str, NDArray[Any]]:
        """The trained weights before any training, by name; of a trained text bank zeros."""
        start = self._tower_and_start[1]
        if self.study.alignment.train_text_bank:
            rows = {
                BANK_CLASSES: len(self.study.classes),
                BANK_FINDINGS: len(self.study.finding_names),
            }
            start = start | {
                name: np.zeros((number, self.width), np.float32) for name, number in rows.items()
            }
        return start

    @property
    def tower_fingerprint(self) -> str:
        """Hash of the frozen tower this site loaded; must be the coordinator's."""
        return self.pipeline.tower.tower.fingerprint

    @property
    def width(self) -> int:
        """D, the width of a feature."""
        return self.pipeline.tower.tower.dim

    @cached_property
    def texts(self) -> TextBank:
        """Which finding is whose; its vectors are the requests' to say, and empty here."""
        nothing = torch.zeros(len(self.study.classes), 0)
        return TextBank.assemble(self.study.class_texts, nothing, nothing)

    def model(self, state: State, centred: bool = True) -> AlignmentModel:
        """The study's model with what the federation has learnt.

        `state` is as a request carries it, or as a finished run has it. `centred`: whether features
        are centred; the centre itself is estimated without.

        Raises:
            CheckpointError: The site's own centre is missing.
            MessageError: Weights that do not fit the study's model.
        """
        bank = TextBank.assemble(self.study.class_texts, *map(torch.from_numpy, state.bank))
        private, trained = self.study.privacy.is_private, self.study.alignment.train_text_bank
        model = AlignmentModel(self.pipeline.tower, bank, trained, unit_features=private)
        centre = torch.from_numpy(state.centre)
        model.to(self.device).load(
            {name: torch.from_numpy(value) for name, value in state.shared.items()},
            self._centre(centre) if centred else torch.zeros_like(centre),
            torch.from_numpy(state.scale),
            torch.from_numpy(state.bias),
        )
        return model

    def alone(self, texts: Bank) -> AlignmentModel:
        """See `SiteData.alone`."""
        with self._by_itself(alone(self.study)) as site:
            return site.model(learnt_alone(site, texts))

    def adapted(self, learnt: State) -> AlignmentModel:
        """See `SiteData.adapted`."""
        with self._by_itself(adapting(self.study)) as site:
            return site.model(adapted(site, learnt))

    @contextmanager
    def _by_itself(self, study: Study) -> Iterator[Self]:
        """The same images and tower in another study; what its steps keep is dropped again."""
        for part in get_args(Part):
            if self.size(part):
                self.examples(part)  # of a private study, those that can be read
        with tempfile.TemporaryDirectory() as folder:
            site = type(self)(self.site, study, self.roles)
            site.state = Path(folder)
            site._tower_and_start, site.pipeline = self._tower_and_start, self.pipeline
            site._examples, site._ids = self._examples, self._ids
            site._left_out = self._left_out
            yield site

    def _centre(self, federation: Tensor) -> Tensor:
        """What is subtracted from features here, [2, D]: the site's own centre, or that of all."""
        centring = self.study.alignment.centring
        if centring == "none":
            return torch.zeros_like(federation)
        own = centring == "site" and bool(self.roles.pool)
        return torch.from_numpy(self.kept("centre")["centre"]) if own else federation

    def rows(self, part: Part) -> list[Record]:
        """The rows of a part of the site's images."""
        roles = self.roles
        return {
            "labelled": roles.shots,
            "unlabelled": roles.pool,
            "centre": roles.centre,
            "test": roles.test,
            "rest": roles.rest,
        }[part]

    def size(self, part: Part) -> int:
        """How many images a part has."""
        return len(self.rows(part))

    def told(self, role: Role) -> int:
        """See `SiteData.told`."""
        roles = self.roles
        counts = {
            "labelled": roles.shots_told,
            "unlabelled": roles.pool_told,
            "test": roles.test_told,
        }
        return counts[role]

    def examples(self, part: Part) -> Examples:
        """Some of the site's images in their training views, made once per session."""
        if part not in self._examples:
            alignment, rows = self.study.alignment, self.rows(part)
            views = {
                "labelled": max(alignment.views, self.test_views if alignment.region_view else 1),
                "test": self.test_views,
                "rest": self.test_views,
            }
            # A region's view comes after those that a test image has without it.
            zoomed = 1 + alignment.flip_at_test if alignment.region_view else None
            names, labelled = self.study.class_names, part in ("labelled", "test")
            if self.study.privacy.is_private and part != "test":
                # A refusal would tell of the one patient whose image cannot be read.
                count = views.get(part, 1)
                rows = [row for row in rows if self.pipeline.is_readable(row, count)]
            ids = [bytes.fromhex(self.roles.ids[row.name]) for row in rows]
            self._ids[part] = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)
            self._examples[part] = self.pipeline.examples(
                rows,
                [names.index(row.label) if row.label and labelled else -1 for row in rows],
                self.texts,
                views.get(part, 1),
                f"{self.name}: preparing {part} images",
                zoomed if part in views else None,
            )
        return self._examples[part]

    def images(self, part: Part) -> NDArray[np.uint8]:
        """See `SiteData.images`."""
        self.examples(part)  # of a private study, those that can be read
        return self._ids[part]

    def embedded(self, part: Part, model: AlignmentModel) -> Batch:
        """Unit embeddings of some of the site's images, in the views a test image is shown in.

        Kept while the model's weights, centre and scale stay the same: k-means and intercepts ask
        for them once a step.
        """
        weights = [*model.shared().values(), model.centre, model.scale]
        key = hashlib.sha256(b"".join(w.detach().cpu().numpy().tobytes() for w in weights))
        if self._embedded.get(part, ("", None))[0] != key.hexdigest():
            examples = self.examples(part).first_views(self.test_views)
            # Metrics leave, and must not tell of images of a hidden class in their last digits.
            together = 1 if part == "test" else EMBEDDED
            self._embedded[part] = (key.hexdigest(), embed_all(model, examples, together))
        return self._embedded[part][1]

    def positives(self, part: Part, rows: Tensor, labels: Tensor) -> Tensor:
        """See `SiteData.positives`."""
        records = self.rows(part)
        return self.texts.positives(labels, [records[row].findings for row in rows.tolist()])

    def keep(self, kept: Mapping[str, Mapping[str, NDArray[Any]]], question: str) -> None:
        """Write site state that later rounds depend on, and of which question it is."""
        for name, arrays in kept.items():
            save_state(self.state, name, arrays, {"question": question})

    def kept_of(self, name: str) -> str | None:
        """Hash of the question that site state is of; None where nothing was kept."""
        return load_state(self.state, name)[1]["question"] if self.has_kept(name) else None

    def has_kept(self, name: str) -> bool:
        """See `SiteData.has_kept`."""
        return has_state(self.state, name)

    def kept(self, name: str) -> dict[str, NDArray[Any]]:
        """Read site state.

        Raises:
            CheckpointError: The state folder was emptied during a study, or the site joined it too
                late for this step.
        """
        if not self.has_kept(name):
            raise CheckpointError(
                f"{self.state / name}: missing. If the site has just joined, it takes part again "
                f"in later steps. Else the state folder of {self.name} was emptied while the study "
                "ran: restore it, or start the study anew"
            )
        return load_state(self.state, name)[0]
