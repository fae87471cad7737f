"""Roles: which of a site's rows are learnt from, which are shots, and which are held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hica.cohort.private_draw import draw_units, place
from hica.errors import ConfigurationError, DataError
from hica.images.cache import key_of
from hica.images.episodes import Episode, draw_episode, split_by_group
from hica.images.manifest import Record, check_labels, read_manifest
from hica.method.prevalence import of_the_rest
from hica.method.pseudo_labels import Vector
from hica.study import Study


@dataclass(frozen=True)
class Roles:
    """The rows of one site in one study.

    Attributes:
        train: Rows to learn from, labelled or not.
        pool: Rows of `train` whose labels are not used: for the centre and for stage 1.
        test: Held-out labelled rows; no patient of theirs is in `train`.
        rest: Rows of `train` beyond the shots, whose labels are not used either: for a known
            prevalence; empty where the site gives none.
        episode: Indices into `train` of the labelled shots.
        notes: What the coordinator should know about this site's part, in words.
        rest_shares: [C] of the classes among the images that `rest` was drawn from; None: not
            known.
        shots_told: [C] shots of each class as the coordinator is told: their numbers, in a private
            study of patients and rounded (`hica.cohort.private_draw`).
        pool_told: The same of the pool.
    """

    train: list[Record]
    pool: list[Record]
    test: list[Record]
    rest: list[Record]
    episode: Episode
    notes: list[str]
    rest_shares: Vector | None
    shots_told: list[int]
    pool_told: int

    @property
    def shots(self) -> list[Record]:
        """The labelled rows of the episode."""
        return [self.train[index] for index in self.episode.indices]


def assign_roles(
    site: str, manifest: Path, study: Study, test_fraction: float, prevalence: Mapping[str, float]
) -> Roles:
    """Read a manifest (CSV) and say what each row is for.

    A private study draws patients, each by itself (`hica.cohort.private_draw`). `test_fraction` is
    the share of the patients held out, where the manifest has no `split` column; `prevalence` is
    the share of each class at the site, empty where it is not known.

    Raises:
        ConfigurationError: The prevalence is not of the study's classes.
        DataError: The manifest cannot be used; names row and remedy.
    """
    records = read_manifest(manifest)
    check_labels(records, study.class_names, str(manifest))
    notes: list[str] = []
    train, test = _split(records, str(manifest), test_fraction, study)
    patients, fewest = len({row.group for row in test}), study.federation.min_count
    if 0 < patients < fewest:
        test = []  # not to be trained on either: a later manifest may add to them
        notes.append(
            f"holds out fewer patients than federation.min_count = {fewest}, of whom even an "
            "accuracy would tell too much: takes no part in the evaluation"
        )
    episode, shots_told = _episode(train, study)
    if episode.shortfall:
        notes.append(
            f"has fewer than {study.alignment.shots} training {_counted(study)} of "
            f"{', '.join(sorted(episode.shortfall))}: learns from all there are"
        )
    rest: list[Record] = []
    shares = None
    if prevalence:
        rest = _beyond_the_shots(site, study, train, episode, prevalence, notes)
        shares = _shares(study, train, episode, prevalence) if rest else None
    pool, pool_told = _pool(train, study)
    return Roles(train, pool, test, rest, episode, notes, shares, shots_told, pool_told)


def _counted(study: Study) -> str:
    """What shots are counted in."""
    by_patient = study.privacy.is_private and study.privacy.unit == "patient"
    return "patients" if by_patient else "images"


def _episode(train: list[Record], study: Study) -> tuple[Episode, list[int]]:
    """The shots, and how many of each class the coordinator is told of."""
    classes, shots, seed = study.class_names, study.alignment.shots, study.study.seed
    if not study.privacy.is_private:
        episode = draw_episode(train, classes, shots, seed)
        labels = [train[index].label for index in episode.indices]
        return episode, [labels.count(name) for name in classes]
    rows = {name: [i for i, record in enumerate(train) if record.label == name] for name in classes}
    draws = [draw_units(train, rows[name], shots, seed, study.privacy.unit) for name in classes]
    told = [draw.announced for draw in draws]
    lacking = {name: shots - count for name, count in zip(classes, told, strict=True)}
    shortfall = {name: count for name, count in lacking.items() if count}
    return Episode([row for draw in draws for row in draw.rows], shortfall), told


def _pool(train: list[Record], study: Study) -> tuple[list[Record], int]:
    """The images whose labels are not used, and how many the coordinator is told of."""
    most = study.pretraining.max_images
    if not study.privacy.is_private:
        pool = drawn(train, most)
        return pool, len(pool)
    draw = draw_units(train, range(len(train)), most, "pool", study.privacy.unit)
    return [train[row] for row in draw.rows], draw.announced


def drawn(rows: list[Record], count: int) -> list[Record]:
    """At most `count` rows: the same for every seed, on any machine, in any order of rows."""
    if len(rows) <= count:
        return rows
    return sorted(rows, key=lambda row: key_of("pool", row.name))[:count]


def _beyond_the_shots(
    site: str,
    study: Study,
    train: list[Record],
    episode: Episode,
    prevalence: Mapping[str, float],
    notes: list[str],
) -> list[Record]:
    """Rows whose mean prediction is brought to the site's prevalence."""
    classes = study.class_names
    if set(classes) != set(prevalence):
        raise ConfigurationError(
            f"site.toml of {site}: data.prevalence: gives shares of "
            f"{', '.join(prevalence)}, but the classes of this study are "
            f"{', '.join(classes)}; give the share of each of these, or take prevalence out"
        )
    if study.privacy.is_private:
        notes.append(
            "knows its prevalence, which a private study does not use: metrics would depend "
            "on images of training, without noise"
        )
        return []
    shots = set(episode.indices)
    rest = [row for index, row in enumerate(train) if index not in shots]
    if not rest:
        notes.append(
            "knows its prevalence, but has no training images beyond the shots to use it with"
        )
    return drawn(rest, study.pretraining.max_images)


def _shares(
    study: Study, train: Sequence[Record], episode: Episode, prevalence: Mapping[str, float]
) -> Vector:
    """[C] of the classes among the images beyond the shots."""
    names = study.class_names
    known = np.array([prevalence[name] for name in names])
    shots = [train[index].label for index in episode.indices]
    counts = [shots.count(name) for name in names]
    return of_the_rest(known / known.sum(), len(train), counts)


def _split(
    records: list[Record], manifest: str, test_fraction: float, study: Study
) -> tuple[list[Record], list[Record]]:
    """Training and test rows: the manifest's split where it has one, else by patient."""
    seed = study.study.seed
    if any(record.split for record in records):
        train = [record for record in records if record.split != "test"]
        test = [record for record in records if record.split == "test"]
        shared = {record.group for record in train} & {record.group for record in test}
        if shared:
            raise DataError(
                f"{manifest}: patients or duplicate groups on both sides of the split: "
                f"{sorted(shared)[:5]}; keep each on one side"
            )
    else:
        labelled = [record for record in records if record.label]
        if study.privacy.is_private:
            names = {record.group for record in labelled}
            held = {name for name in names if place(f"test {seed}", name) < test_fraction}
        else:
            _, held_out = split_by_group(labelled, test_fraction, seed)
            held = {labelled[index].group for index in held_out}
        train = [record for record in records if record.group not in held]
        test = [record for record in records if record.group in held]
    return train, [record for record in test if record.label]
