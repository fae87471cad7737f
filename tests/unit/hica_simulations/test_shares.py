from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hica.images.manifest import Record
from hica_simulations.shares import LEAST, even_part, sized_part, skewed_part

LABELS = ("normal", "benign", "malignant", None)


def made(groups):
    """Two images a group, labels in turn; the unlabelled are shared out as a label of their own."""
    return [
        Record(Path(f"{n:04d}.png"), label=LABELS[n // 2 % len(LABELS)], patient_id=f"p{n // 2}")
        for n in range(2 * groups)
    ]


def counts(part):
    return np.array([Counter(record.label for record in part)[label] for label in LABELS])


WAYS = [
    lambda records, k, seed=0: even_part(records, k, 4, seed),
    lambda records, k, seed=0: sized_part(records, k, [4, 2, 1, 1], seed),
    lambda records, k, seed=0: skewed_part(records, k, 4, 0.3, seed),
    lambda records, k, seed=0: skewed_part(records, k, 4, 1e-6, seed),
]


@pytest.mark.parametrize("part", WAYS)
@pytest.mark.parametrize("groups", [1, 3, 17, 160])
def test_parts_are_disjoint_and_together_hold_every_image(part, groups):
    records = made(groups)
    parts = [part(records, k) for k in (1, 2, 3, 4)]
    assert Counter(r.name for p in parts for r in p) == Counter(r.name for r in records)
    owners = [{r.group for r in p} for p in parts]
    assert sum(map(len, owners)) == groups  # no group in two parts


@pytest.mark.parametrize("part", WAYS)
def test_a_part_depends_on_the_seed_alone(part):
    records = made(160)
    again = part(list(reversed(records)), 1)
    assert {r.name for r in again} == {r.name for r in part(records, 1)}
    assert {r.name for r in again} != {r.name for r in part(records, 1, seed=1)}


def test_sizes_are_shares_of_every_label():
    records = made(160)  # 80 images of each label
    for which, share in enumerate([4, 2, 1, 1], start=1):
        part = sized_part(records, which, [4, 2, 1, 1], 0)
        assert counts(part).tolist() == [10 * share] * 4


def test_sizes_are_met_to_one_group_where_they_do_not_come_out_even():
    records = made(4 * 23)
    for which, share in enumerate([5, 3, 3], start=1):
        part = sized_part(records, which, [5, 3, 3], 0)
        assert np.abs(counts(part) / 2 - 23 * share / 11).max() <= 1


def test_a_large_alpha_shares_out_evenly():
    records = made(160)
    for which in (1, 2, 3, 4):
        assert np.abs(counts(skewed_part(records, which, 4, 1e6, 0)) - 20).max() <= 2


def test_a_small_alpha_gives_most_of_a_label_to_one_part():
    records = made(160)
    held = np.array([counts(skewed_part(records, k, 4, 0.01, 0)) for k in (1, 2, 3, 4)])
    assert (held.sum(0) == 80).all()
    assert (held.max(0) >= 0.9 * 80).all()


def test_skewed_parts_are_drawn_again_until_each_is_enough_for_a_site():
    records = made(160)
    for seed in range(20):
        parts = [skewed_part(records, k, 4, 0.1, seed) for k in (1, 2, 3, 4)]
        assert min(len({r.group for r in part}) for part in parts) >= LEAST


def test_shares_have_the_moments_of_the_dirichlet_distribution():
    """Over many labels: mean 1/n and variance (n - 1) / (n² (nα + 1))."""
    count, alpha, groups = 4, 0.5, 100
    rows = [
        Record(Path(f"{label}-{n}.png"), label=str(label))
        for label in range(400)
        for n in range(groups)
    ]
    held = Counter(record.label for record in skewed_part(rows, 2, count, alpha, 0))
    shares = np.array([held[str(label)] / groups for label in range(400)])
    variance = (count - 1) / (count**2 * (count * alpha + 1))
    assert shares.mean() == pytest.approx(1 / count, abs=4 * np.sqrt(variance / 400))
    assert shares.var() == pytest.approx(variance, rel=0.25)


def test_other_sources_draw_other_proportions():
    records = made(160)
    one, other = (counts(skewed_part(records, 1, 4, 0.3, 0, source)) for source in ("a", "b"))
    assert one.tolist() != other.tolist()
