"""Shares: how the groups (patients, near-duplicates) of one manifest are dealt out to n sites.

Every function returns the `which`-th of n parts. Parts are drawn label by label from a seed; the
n parts of one draw are disjoint and together hold every group.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hica.images.manifest import Record
from hica.seeds import derived_seed

LEAST = 10
"""Fewest groups of a skewed part, as far as draws allow it."""
DRAWS = 100
"""Draws of the proportions before the last one is taken as it is."""


def even_part(records: Sequence[Record], which: int, count: int, seed: int) -> list[Record]:
    """The `which`-th of `count` equal shares of every label's groups, dealt out in turn.

    `which` is 1 to `count`; draws of the same seed are the same.
    """
    by_label = _groups_by_label(records, seed)
    return _of(records, {g for groups in by_label.values() for g in groups[which - 1 :: count]})


def sized_part(
    records: Sequence[Record], which: int, sizes: Sequence[int], seed: int
) -> list[Record]:
    """The `which`-th part, where part k holds `sizes[k - 1]` of `sum(sizes)` of every label.

    `which` is 1 to the number of sizes, all positive; draws of the same seed are the same.
    """
    kept: set[str] = set()
    for groups in _groups_by_label(records, seed).values():
        kept.update(_block(groups, which, sizes))
    return _of(records, kept)


def skewed_part(
    records: Sequence[Record], which: int, count: int, alpha: float, seed: int, source: str = ""
) -> list[Record]:
    """The `which`-th of `count` parts, each label in proportions of its own.

    The proportions of a label over the parts are drawn from Dirichlet(α, …, α), as in Yurochkin
    et al. (2019, arXiv 1905.12022): the label skew of Hsu et al. (2019, arXiv 1909.06335), who
    draw each part's proportions over the labels instead, without a label running out. All are drawn
    again while a part has fewer than ten groups, as Li et al. do (2022, NIID-Bench, arXiv
    2102.02079); with an α that hardly ever gives that, the last of a hundred draws is taken.

    `which` is 1 to `count`. With a large α parts are even, with a small one most of a label lies in
    one part. Draws of the same seed and `source`, which names what is shared out, are the same.
    """
    by_label = _groups_by_label(records, seed)
    parts: list[set[str]] = []
    for draw in range(DRAWS):
        parts = [set() for _ in range(count)]
        for label, groups in by_label.items():
            again = (draw,) if draw else ()
            generator = np.random.default_rng(derived_seed(seed, "skew", source, label, *again))
            shares = generator.dirichlet([alpha] * count)
            for number, part in enumerate(parts, start=1):
                part.update(_block(groups, number, shares))
        if min(map(len, parts)) >= LEAST:
            break
    return _of(records, parts[which - 1])


def _groups_by_label(records: Sequence[Record], seed: int) -> dict[str, list[str]]:
    """Groups in hashed order, by the label of their first image; `""` where it has none."""
    label_of: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.name):
        label_of.setdefault(record.group, record.label or "")
    by_label: defaultdict[str, list[str]] = defaultdict(list)

    def hashed(group: str) -> str:
        return hashlib.sha256(f"{seed}|part|{group}".encode()).hexdigest()

    for group in sorted(label_of, key=hashed):
        by_label[label_of[group]].append(group)
    return by_label


def _block(
    groups: Sequence[str], which: int, shares: Sequence[float] | np.typing.NDArray[np.float64]
) -> Sequence[str]:
    """The `which`-th of consecutive blocks in proportion to `shares`.

    The ends of the blocks are rounded, not their lengths: so every group lies in exactly one.
    """
    ends = np.cumsum([0.0, *shares])
    cuts = np.rint(ends / ends[-1] * len(groups)).astype(int)
    return groups[cuts[which - 1] : cuts[which]]


def _of(records: Sequence[Record], groups: set[str]) -> list[Record]:
    return [record for record in records if record.group in groups]
