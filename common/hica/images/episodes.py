"""Episodes: the few labelled images a site learns from, and its held-out groups.

Every draw sorts by a hash of seed and name, so that it is the same on any machine, in any version
of any library, and whatever the order of the rows.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from hica.images.manifest import Record


@dataclass(frozen=True)
class Episode:
    """A few-shot draw."""

    indices: list[int]
    """Rows of the records it was drawn from, class by class in the study's order."""
    shortfall: dict[str, int]
    """Images lacking to `shots`, for the classes that have fewer."""


def draw_episode(
    records: Sequence[Record], classes: Sequence[str], shots: int, seed: int
) -> Episode:
    """Draw `shots` images of each class, from as many groups (patients) as there are.

    One image of every group comes first, then second images, and so on. A draw of fewer shots is
    the beginning of a draw of more with the same seed. A class with fewer images than shots gives
    all it has and is named in the shortfall. Records are those of a site's training side; labels
    that are no class, and None, are passed over.
    """
    indices: list[int] = []
    shortfall: dict[str, int] = {}
    for name in classes:
        groups = _hashed_groups(
            records, [i for i, r in enumerate(records) if r.label == name], seed
        )
        turns = chain.from_iterable(zip_longest(*groups))
        drawn = [index for index in turns if index is not None][:shots]
        indices += drawn
        if len(drawn) < shots:
            shortfall[name] = shots - len(drawn)
    return Episode(indices, shortfall)


def split_by_group(
    records: Sequence[Record], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Hold out about `fraction`, 0 to 1, of every class for the test, whole groups at a time.

    Groups come in hashed order, the same for the same seed; one is held out if that brings the
    classes nearer to their shares. Where groups hold one label, every class ends within half its
    largest group of its share. Unlabelled images count as a class of their own. Gives indices of
    the training side and of the test side, ascending.
    """
    wanted = {label: fraction * n for label, n in Counter(r.label for r in records).items()}
    test: list[int] = []
    for group in _hashed_groups(records, range(len(records)), seed):
        counts = Counter(records[index].label for index in group)
        if sum(abs(wanted[label] - n) - abs(wanted[label]) for label, n in counts.items()) < 0:
            test += group
            for label, n in counts.items():
                wanted[label] -= n
    held_out = set(test)
    return [index for index in range(len(records)) if index not in held_out], sorted(test)


def _hashed_groups(records: Sequence[Record], indices: Sequence[int], seed: int) -> list[list[int]]:
    """`indices` by group; groups, and the images within each, in hashed order."""

    def order(name: str) -> str:
        return hashlib.sha256(f"{seed}|{name}".encode()).hexdigest()

    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(indices, key=lambda index: order(records[index].name)):
        groups[records[index].group].append(index)
    return [groups[name] for name in sorted(groups, key=order)]
