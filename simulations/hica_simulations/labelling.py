"""Labelling: which of a site's training images somebody has labelled, where it is not all of them.

A site labels as many images as `alignment.shots`, without knowing of which class they are: drawn at
random, or those that `hica-client suggest` names. All of them are shots then.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hica.cohort.roles import assign_roles
from hica.images.manifest import Record
from hica.method.suggestions import suggested
from hica.seeds import derived_seed
from hica.study import Study
from hica_client.review.looking import by_tower
from hica_client.session import Session
from hica_client.site import DataSection, Site, SiteSection
from hica_simulations.scenario import Labelling

TOGETHER = 32
"""Images that are in memory at a time."""


def with_labels(
    name: str,
    records: Sequence[Record],
    study: Study,
    labelling: Labelling,
    places: tuple[Path, Path],
) -> list[Record]:
    """Rows of a site of which only the training images that were labelled have a label.

    `places` are the folders of weights and of the cache.

    Raises:
        DataError: An image cannot be read, where its features decide.
    """
    train = [record for record in records if record.split == "train" and record.label]
    if labelling == "all":
        return list(records)
    if labelling == "random":
        chosen = at_random(train, study.alignment.shots, study.study.seed)
    else:
        chosen = as_suggested(name, train, study, places)
    rest = {record.name for record in train} - {record.name for record in chosen}
    return [replace(r, label=None) if r.name in rest else r for r in records]


def at_random(train: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Images in an order drawn by `seed`, of every patient one before the second of any."""
    order = sorted(train, key=lambda row: (derived_seed(seed, "labelled", row.name), row.name))
    nth: dict[str, int] = {}
    places = []
    for record in order:
        places.append(nth.get(record.group, 0))
        nth[record.group] = places[-1] + 1
    first = sorted(range(len(order)), key=lambda index: places[index])
    return [order[index] for index in first[:count]]


def as_suggested(
    name: str, train: Sequence[Record], study: Study, places: tuple[Path, Path]
) -> list[Record]:
    """The images that `hica-client suggest` names at a site where nothing is labelled yet."""
    weights, cache = places
    data = DataSection(manifest=Path(), weights=weights, cache=cache, state=cache / "nowhere")
    site = Site(site=SiteSection(name=name), data=data)
    unlabelled = [replace(record, label=None) for record in train]
    session = Session(site, study, assign_roles(name, unlabelled, "", study, 0.5, {}))
    look = by_tower(session)
    starts = range(0, len(train), TOGETHER)
    rows = np.concatenate([look(train[at : at + TOGETHER]).embeddings for at in starts])
    seed = derived_seed(study.study.seed, "suggestions", name) % 2**32
    nothing = np.zeros((0, rows.shape[1]))
    groups = [record.group for record in train]
    found = suggested(rows, groups, nothing, study.alignment.shots, seed)
    return [train[each.row] for each in found]
