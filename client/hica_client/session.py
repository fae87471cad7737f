"""A site's hold on one study: its data prepared, its model built, its state on disk.

A session can be lost at any moment and made again: what must survive (episode, centre,
pseudo-labels) is written under the site's state folder before an answer that depends on it.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.device import select_device
from hica.errors import CheckpointError, ConfigurationError, DataError
from hica.examples.examples import Examples, joined
from hica.examples.pipeline import Pipeline
from hica.images.cache import TensorCache, key_of
from hica.images.episodes import Episode, draw_episode, save_episode, split_by_group
from hica.images.manifest import Record, check_labels, read_manifest
from hica.method.label_propagation import UNKNOWN, propagated
from hica.method.local_training import Batch, embed_all
from hica.method.model import AlignmentModel
from hica.method.prevalence import of_the_rest
from hica.method.pseudo_labels import Vector
from hica.regions import RegionMethod, build
from hica.regions.base import Pixels
from hica.regions.token_cut import PatchFeatures
from hica.seeds import derived_seed
from hica.study import Study
from hica.text.bank import TextBank
from hica.towers import ImageTower
from hica.towers.from_study import adapted_tower
from hica.wire.checkpoint import has_state, load_state, save_state
from hica_client.site import Site


class Session:
    """One study at one site.

    Attributes:
        site: The hospital's own configuration.
        study: The coordinator's.
        train: Rows to learn from, labelled or not.
        pool: Rows of `train` whose labels are not used: for the centre and for stage 1.
        test: Held-out labelled rows; no patient of theirs is in `train`.
        rest: Rows of `train` beyond the shots, whose labels are not used either: for a known
            prevalence; empty where the site gives none.
        episode: Indices into `train` of the labelled shots.
        notes: What the coordinator should know about this site's part, in words.
        run_id: Flower's number of the run whose request is being answered.
    """

    def __init__(self, site: Site, study: Study) -> None:
        self.site = site
        self.study = study
        self.run_id = 0
        self.device = select_device(site.device.use)
        self.state = site.data.state / study.sha256[:16]
        self._embedded: dict[str, tuple[str, Batch]] = {}
        records = read_manifest(site.data.manifest)
        check_labels(records, study.class_names, str(site.data.manifest))
        self.notes: list[str] = []
        self.train, self.test = _roles(records, site, study)
        self.pool = _drawn(self.train, study.pretraining.max_images)
        patients, fewest = len({row.group for row in self.test}), study.federation.min_count
        if 0 < patients < fewest:
            self.test = []  # not to be trained on either: a later manifest may add to them
            self.notes.append(
                f"holds out fewer patients than federation.min_count = {fewest}, of whom even an "
                "accuracy would tell too much: takes no part in the evaluation"
            )
        self.episode: Episode = draw_episode(
            self.train, study.class_names, study.alignment.shots, study.study.seed
        )
        if self.episode.shortfall:
            self.notes.append(
                f"has fewer than {study.alignment.shots} training images of "
                f"{', '.join(sorted(self.episode.shortfall))}: learns from all there are"
            )
        self.rest = self._beyond_the_shots() if site.data.prevalence else []
        self.state.mkdir(parents=True, exist_ok=True)
        save_episode(self.state / "episode.json", self.episode, self.train)

    def _beyond_the_shots(self) -> list[Record]:
        """Rows whose mean prediction is brought to the site's prevalence.

        Raises:
            ConfigurationError: The prevalence is not of the study's classes.
        """
        classes, prevalence = self.study.class_names, self.site.data.prevalence
        if set(classes) != set(prevalence):
            raise ConfigurationError(
                f"site.toml of {self.name}: data.prevalence: gives shares of "
                f"{', '.join(prevalence)}, but the classes of this study are "
                f"{', '.join(classes)}; give the share of each of these, or take prevalence out"
            )
        if self.study.privacy.is_private:
            self.notes.append(
                "knows its prevalence, which a private study does not use: metrics would depend "
                "on images of training, without noise"
            )
            return []
        drawn = set(self.episode.indices)
        rest = [row for index, row in enumerate(self.train) if index not in drawn]
        if not rest:
            self.notes.append(
                "knows its prevalence, but has no training images beyond the shots to use it with"
            )
        return _drawn(rest, self.study.pretraining.max_images)

    @property
    def shares_of_the_rest(self) -> Vector:
        """[C] of the classes among the images that `rest` was drawn from."""
        names = self.study.class_names
        known = np.array([self.site.data.prevalence[name] for name in names])
        shots = [self.train[index].label for index in self.episode.indices]
        counts = [shots.count(name) for name in names]
        return of_the_rest(known / known.sum(), len(self.train), counts)

    @property
    def name(self) -> str:
        """The site's name."""
        return self.site.site.name

    @property
    def test_views(self) -> int:
        """Views of a test image, whose embeddings are averaged; the first of a labelled one."""
        alignment = self.study.alignment
        return 1 + alignment.flip_at_test + alignment.region_view

    def capabilities(self) -> dict[str, Any]:
        """What the coordinator may know before the run; counts below the minimum are hidden."""
        hidden = self.study.federation.min_count
        shots = [self.train[index] for index in self.episode.indices]
        per_class = {
            name: sum(record.label == name for record in shots) for name in self.study.class_names
        }
        return {
            "labelled": len(shots),
            "unlabelled": len(self.pool),
            "test": len(self.test),
            "classes": {k: v if v == 0 or v >= hidden else None for k, v in per_class.items()},
            "shortfall": sorted(self.episode.shortfall),
            "notes": self.notes,
            "tower": self.tower_fingerprint,
            "device": str(self.device),
            "versions": {
                name: importlib.metadata.version(name) for name in ("hica", "torch", "flwr")
            },
        }

    @cached_property
    def pipeline(self) -> Pipeline:
        """Tower, regions and cache; the tower is on the site's device."""
        regions, weights = self.study.regions, self.site.data.weights
        adapted = adapted_tower(self.study, weights, self.device)
        method = region_method(self.study, weights, adapted.tower, self.device)
        cache = TensorCache(self.site.data.cache)
        return Pipeline(adapted, method, regions.count, cache, self.device)

    @property
    def tower_fingerprint(self) -> str:
        """Hash of the frozen tower this site loaded; must be the coordinator's."""
        return self.pipeline.tower.tower.fingerprint

    def model(self, bank: TextBank, shared: dict[str, Tensor]) -> AlignmentModel:
        """The model with the coordinator's bank and weights; features as they are, no intercepts.

        Args:
            bank: Its texts are where a trained bank starts, and all of a fixed one.
            shared: Names and shapes of `AlignmentModel.shared`.

        Raises:
            MessageError: Weights that do not fit the study's model.
        """
        model = AlignmentModel(
            self.pipeline.tower,
            bank,
            self.study.alignment.train_text_bank,
            unit_features=self.study.privacy.is_private,
        )
        model = model.to(self.device)
        model.load_shared(shared)
        return model

    def centre(self, federation: Tensor) -> Tensor:
        """What is subtracted from features here, [2, D].

        Args:
            federation: [2, D] of all sites; the site's own goes before it where the study says so
                and the site has images to take it from.
        """
        centring = self.study.alignment.centring
        if centring == "none":
            return torch.zeros_like(federation)
        own = centring == "site" and bool(self.pool)
        return torch.from_numpy(self.kept("centre")["centre"]) if own else federation

    def labelled(self, bank: TextBank) -> Examples:
        """The episode with its training views."""
        return self._prepared("labelled", bank)

    def unlabelled(self, bank: TextBank) -> Examples:
        """The pool, its labels unused."""
        return self._prepared("unlabelled", bank)

    def for_the_centre(self, bank: TextBank) -> Examples:
        """Some of the pool, whatever the order of its rows."""
        return self._prepared("centre", bank)

    def held_out(self, bank: TextBank) -> Examples:
        """The test rows."""
        return self._prepared("test", bank)

    def beyond_shots(self, bank: TextBank) -> Examples:
        """The rest, its labels unused."""
        return self._prepared("rest", bank)

    def _prepared(self, role: str, bank: TextBank) -> Examples:
        """Examples of a role, made once per session."""
        cache: dict[str, Examples] = self.__dict__.setdefault("_examples", {})
        if role not in cache:
            alignment = self.study.alignment
            rows, views = {
                "labelled": (
                    [self.train[i] for i in self.episode.indices],
                    max(alignment.views, self.test_views if alignment.region_view else 1),
                ),
                "unlabelled": (self.pool, 1),
                "centre": (_drawn(self.pool, alignment.centre_images), 1),
                "test": (self.test, self.test_views),
                "rest": (self.rest, self.test_views),
            }[role]
            # A region's view comes after those that a test image has without it.
            zoomed = 1 + alignment.flip_at_test if alignment.region_view else None
            zoomed = None if role in ("unlabelled", "centre") else zoomed
            names = self.study.class_names
            labels = [
                names.index(row.label) if row.label and role in ("labelled", "test") else -1
                for row in rows
            ]
            cache[role] = self.pipeline.examples(
                rows, labels, bank, views, f"{self.name}: preparing {role} images", zoomed
            )
        return cache[role]

    def labelled_and_spread(self, model: AlignmentModel, bank: TextBank) -> Examples:
        """The episode, and images of the pool with labels spread from it.

        Which labels is decided once, at the site's first round of stage 2: after that the labels
        would confirm themselves.
        """
        shots = self.labelled(bank)
        if not has_state(self.state, "spread"):
            near, far = (self.embedded(role, model, bank) for role in ("labelled", "unlabelled"))
            one, other = (part.images.double().numpy() for part in (near, far))
            seed = derived_seed(self.study.study.seed, self.name, "spread") % 2**32
            labels = propagated(one, shots.labels.numpy(), other, seed)
            drawn = {self.train[index].name for index in self.episode.indices}
            own = np.array([record.name in drawn for record in self.pool], dtype=bool)
            self.keep("spread", labels=np.where(own, UNKNOWN, labels))
        spread = torch.from_numpy(self.kept("spread")["labels"])
        index = torch.nonzero(spread >= 0)[:, 0]
        more = self.unlabelled(bank).rows(index)
        findings = [self.pool[row].findings for row in index.tolist()]
        positives = bank.positives(spread[index], findings)
        return joined(shots, replace(more, labels=spread[index], positives=positives))

    def embedded(self, role: str, model: AlignmentModel, bank: TextBank) -> Batch:
        """Unit embeddings of the images of a role, in the views that a test image is shown in.

        Kept while the weights stay the same: k-means and intercepts ask for them once a step.

        Args:
            role: `labelled`, `unlabelled`, `test` or `rest`.
            model: Its weights, centre and scale decide.
            bank: Gives the findings of each image.
        """
        weights = [*model.shared().values(), model.centre, model.scale]
        key = hashlib.sha256(b"".join(w.detach().cpu().numpy().tobytes() for w in weights))
        if self._embedded.get(role, ("", None))[0] != key.hexdigest():
            examples = self._prepared(role, bank).first_views(self.test_views)
            self._embedded[role] = (key.hexdigest(), embed_all(model, examples))
        return self._embedded[role][1]

    def keep(self, name: str, **arrays: NDArray[Any]) -> None:
        """Write site state that later rounds of this study depend on."""
        save_state(self.state, name, arrays, {})

    def kept(self, name: str) -> dict[str, NDArray[Any]]:
        """Read site state.

        Raises:
            CheckpointError: The state folder was emptied during a study, or the site joined it too
                late for this step.
        """
        if not has_state(self.state, name):
            raise CheckpointError(
                f"{self.state / name}: missing. If the site has just joined, it takes part again "
                f"in later steps. Else the state folder of {self.name} was emptied while the study "
                "ran: restore it, or start the study anew"
            )
        return load_state(self.state, name)[0]


def region_method(
    study: Study, weights: Path, tower: ImageTower, device: torch.device
) -> RegionMethod:
    """The study's region method.

    Args:
        study: Names the method.
        weights: The site's folder of weights.
        tower: The image tower as it was loaded, before anything of it is trained.
        device: Where the tower is and the method's own model goes.

    Raises:
        ConfigurationError: A method without the weights it needs.
    """
    regions = study.regions
    cuts = regions.method == "token-cut"
    return build(
        regions.method,
        checkpoint=regions.checkpoint,
        weights=weights,
        model=regions.model,
        patches=_frozen_patches(tower, device) if cuts else None,
        tower=tower.fingerprint,
        device=str(device),
    )


def _frozen_patches(tower: ImageTower, device: torch.device) -> PatchFeatures:
    """Patch features of the tower as it is now: a copy, as the tower itself is trained in place."""
    frozen = copy.deepcopy(tower).eval()

    @torch.no_grad()
    def patches(pixels: Pixels) -> NDArray[np.float32]:
        images = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).to(device)
        features = frozen(frozen.preprocess.normalise(images)).patches[0]
        result: NDArray[np.float32] = features.float().cpu().numpy()
        return result

    return patches


def _drawn(rows: list[Record], count: int) -> list[Record]:
    """At most `count` rows: the same for every seed, on any machine, in any order of rows."""
    if len(rows) <= count:
        return rows
    return sorted(rows, key=lambda row: key_of("pool", row.name))[:count]


def _roles(records: list[Record], site: Site, study: Study) -> tuple[list[Record], list[Record]]:
    """Training and test rows: the manifest's split where it has one, else by patient."""
    if any(record.split for record in records):
        train = [record for record in records if record.split != "test"]
        test = [record for record in records if record.split == "test"]
        shared = {record.group for record in train} & {record.group for record in test}
        if shared:
            raise DataError(
                f"{site.data.manifest}: patients or duplicate groups on both sides of the split: "
                f"{sorted(shared)[:5]}; keep each on one side"
            )
    else:
        labelled = [i for i, record in enumerate(records) if record.label]
        _, held_out = split_by_group(
            [records[i] for i in labelled], site.data.test_fraction, study.study.seed
        )
        groups = {records[labelled[i]].group for i in held_out}
        train = [record for record in records if record.group not in groups]
        test = [record for record in records if record.group in groups]
    return train, [record for record in test if record.label]
