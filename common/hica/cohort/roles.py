"""Roles: which of a site's rows are learnt from, which are shots, and which are held out."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from hica.cohort.private_draw import draw_units, place, rounded
from hica.errors import ConfigurationError, DataError
from hica.images.cache import key_of
from hica.images.episodes import Episode, draw_episode, split_by_group
from hica.images.manifest import Record
from hica.images.manifest_checks import check_labels, check_split
from hica.method.disclosure import counts_told, patients_of, small_classes
from hica.method.prevalence import of_the_rest
from hica.method.pseudo_labels import Vector
from hica.study import Study

NOBODY = "holds out nobody: takes no part in the evaluation"


class Note(NamedTuple):
    """What should be known about a site's part, in words."""

    here: str
    """For the site itself."""
    told: str
    """For the coordinator: names and counts no class where one has few patients."""


@dataclass(frozen=True)
class Roles:
    """The rows of one site in one study.

    Attributes:
        train: Rows to learn from, labelled or not.
        pool: Rows of `train` whose labels are not used: for stage 1.
        centre: Rows of `pool` for the centre.
        test: Held-out labelled rows; no patient of theirs is in `train`.
        rest: Rows of `train` beyond the shots, whose labels are not used either: for a known
            prevalence; empty where the site gives none.
        episode: Indices into `train` of the labelled shots.
        notes: What site and coordinator should know about this site's part.
        rest_shares: [C] of the classes among the images that `rest` was drawn from; None: not
            known.
        shots_told: How many the coordinator is told of: shots, in a private study patients, and
            rounded (`hica.cohort.private_draw`).
        classes_told: [C] the same for each class; None where that is hidden.
        pool_told: Of the pool, as `shots_told`.
        test_told: Held-out rows that are evaluated: not those of a class of few patients
            (`hica.method.disclosure`).
        ids: Of the rows of a kept draw, by their names: of each image its own, wherever it lies
            (`hica.cohort.draw`).
        withdrawn: Patients who have withdrawn since the draw.
    """

    train: list[Record]
    pool: list[Record]
    centre: list[Record]
    test: list[Record]
    rest: list[Record]
    episode: Episode
    notes: list[Note]
    rest_shares: Vector | None
    shots_told: int
    classes_told: list[int | None]
    pool_told: int
    test_told: int
    ids: Mapping[str, str] = field(default_factory=dict)
    withdrawn: int = 0

    @property
    def shots(self) -> list[Record]:
        """The labelled rows of the episode."""
        return [self.train[index] for index in self.episode.indices]

    @property
    def train_in_use(self) -> list[Record]:
        """Rows of `train` that the study looks at, each once."""
        rows = {row.name: row for row in (*self.pool, *self.shots, *self.rest)}
        return list(rows.values())


def assign_roles(
    site: str,
    records: Sequence[Record],
    manifest: str,
    study: Study,
    test_fraction: float,
    prevalence: Mapping[str, float],
    rejected: Set[str] = frozenset(),
) -> Roles:
    """Say what each row of a site's manifest is for; `manifest` is what messages call it.

    A private study draws patients, each by itself (`hica.cohort.private_draw`). `test_fraction` is
    the share of the patients held out, where the manifest has no `split` column; `prevalence` is
    the share of each class at the site, empty where it is not known; `rejected` are names of rows
    that are no shots.

    Raises:
        ConfigurationError: The prevalence is not of the study's classes.
        DataError: The manifest cannot be used; names row and remedy.
    """
    check_labels(records, study.class_names, manifest)
    check_split(records, manifest)
    notes: list[Note] = []
    train, held_out = _split(records, manifest, test_fraction, study)
    test, test_told = evaluated(held_out, study, notes)
    if not held_out and any(record.label for record in train):
        notes.append(Note(NOBODY, NOBODY))
    passed_over = [replace(row, label=None) if row.name in rejected else row for row in train]
    episode, shots, patients = _episode(passed_over, study)
    classes_told = counts_told(shots, patients, study.federation.min_count)
    if episode.shortfall:
        notes.append(_shortfall_note(study, episode, hidden=None in classes_told))
    rest: list[Record] = []
    shares = None
    if prevalence:
        rest = _beyond_the_shots(site, study, train, episode, prevalence, notes)
        shares = _shares(study, train, episode, prevalence) if rest else None
    pool, pool_told = _pool(train, study)
    return Roles(
        train=train,
        pool=pool,
        centre=drawn(pool, study.alignment.centre_images),
        test=test,
        rest=rest,
        episode=episode,
        notes=notes,
        rest_shares=shares,
        shots_told=sum(shots),
        classes_told=classes_told,
        pool_told=pool_told,
        test_told=test_told,
    )


def evaluated(test: list[Record], study: Study, notes: list[Note]) -> tuple[list[Record], int]:
    """The held-out rows, none where no class has enough patients; and how many are evaluated.

    Why some are not is added to `notes`, where it is not there yet.
    """
    classes, fewest = study.class_names, study.federation.min_count
    groups = [row.group for row in test]
    patients = patients_of([row.label for row in test], groups, classes)
    small = {classes[c] for c in small_classes(patients, fewest)}
    number = sum(row.label not in small for row in test)
    if small and number:
        here = (
            f"holds out fewer patients of {', '.join(sorted(small))} than federation.min_count = "
            f"{fewest}: they are not evaluated, as even an accuracy would tell too much of them"
        )
        told = "holds out too few patients of a class to evaluate them (federation.min_count)"
        note = Note(here, told)
    elif small:
        test = []  # not to be trained on either: a later manifest may add to them
        words = (
            f"holds out fewer patients of each class than federation.min_count = {fewest}, of whom "
            "even an accuracy would tell too much: takes no part in the evaluation"
        )
        note = Note(words, words)
    else:
        return test, number
    if note not in notes:
        notes.append(note)
    return test, number


def _shortfall_note(study: Study, episode: Episode, hidden: bool) -> Note:
    """That a class has fewer images than the study asks for."""
    here = (
        f"has fewer than {study.alignment.shots} training {_counted(study)} of "
        f"{', '.join(sorted(episode.shortfall))}: learns from all there are"
    )
    told = (
        f"has fewer training {_counted(study)} of a class than the study asks for: learns from all "
        "there are (federation.min_count hides of which class, and how many)"
    )
    return Note(here, told if hidden else here)


def _counted(study: Study) -> str:
    """What shots are counted in."""
    by_patient = study.privacy.is_private and study.privacy.unit == "patient"
    return "patients" if by_patient else "images"


def _episode(train: list[Record], study: Study) -> tuple[Episode, list[int], list[int]]:
    """The shots; how many of each class [C] the coordinator may be told of, and their patients."""
    classes, shots, seed = study.class_names, study.alignment.shots, study.study.seed
    if not study.privacy.is_private:
        episode = draw_episode(train, classes, shots, seed)
        chosen = [train[index] for index in episode.indices]
        labels = [row.label for row in chosen]
        patients = patients_of(labels, [row.group for row in chosen], classes)
        return episode, [labels.count(name) for name in classes], patients
    rows = {name: [i for i, record in enumerate(train) if record.label == name] for name in classes}
    draws = [draw_units(train, rows[name], shots, seed, study.privacy.unit) for name in classes]
    told = [draw.announced for draw in draws]
    # Which patients were drawn is not public; how many there are, rounded, is.
    there = [rounded(len({train[row].group for row in rows[name]})) for name in classes]
    lacking = {name: shots - count for name, count in zip(classes, told, strict=True)}
    shortfall = {name: count for name, count in lacking.items() if count}
    episode = Episode([row for draw in draws for row in draw.rows], shortfall)
    return episode, told, [min(pair) for pair in zip(told, there, strict=True)]


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
    notes: list[Note],
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
        words = (
            "knows its prevalence, which a private study does not use: metrics would depend "
            "on images of training, without noise"
        )
        notes.append(Note(words, words))
        return []
    shots = set(episode.indices)
    rest = [row for index, row in enumerate(train) if index not in shots]
    if not rest:
        words = "knows its prevalence, but has no training images beyond the shots to use it with"
        notes.append(Note(words, words))
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
    records: Sequence[Record], manifest: str, test_fraction: float, study: Study
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
