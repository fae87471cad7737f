from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hica.images.episodes import draw_episode, split_by_group
from hica.images.manifest import Record

SITE = [
    Record(Path(f"{label}{number}.png"), label=label, patient_id=f"{label}{number // 2}")
    for label in ("benign", "malignant")
    for number in range(8)
]
"""Two classes, four patients each, two images a patient."""


def names(records, indices):
    return [records[index].name for index in indices]


@st.composite
def sites(draw):
    """Records of up to three labels (None among them) in groups that may mix labels."""
    rows = draw(
        st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 9)), max_size=40)
    )
    return [
        Record(Path(f"{i}.png"), label=label, group=f"g{group}")
        for i, (label, group) in enumerate(rows)
    ]


SEEDS = st.integers(0, 5)


@pytest.mark.parametrize(
    ("seed", "benign", "malignant"), [(0, [3, 4, 7], [6, 5, 3]), (1, [6, 1, 4], [6, 2, 1])]
)
def test_the_draw_of_a_seed_is_the_same_on_any_machine(seed, benign, malignant):
    """By hand: sort `printf "$seed|patient:benign1" | sha256sum` over the patients, then likewise
    `$seed|benign3.png` within each. A change here changes every published episode."""
    expected = [f"benign{n}.png" for n in benign] + [f"malignant{n}.png" for n in malignant]
    assert names(SITE, draw_episode(SITE, ["benign", "malignant"], 3, seed).indices) == expected


def test_the_split_of_a_seed_is_the_same_on_any_machine():
    """The first patient of each class in the order above: a quarter of the class."""
    held_out = names(SITE, split_by_group(SITE, 0.25, seed=0)[1])
    assert held_out == ["benign2.png", "benign3.png", "malignant6.png", "malignant7.png"]


@given(sites(), st.integers(0, 12), SEEDS, st.randoms())
def test_the_order_of_rows_does_not_matter(site, shots, seed, random):
    shuffled = random.sample(site, len(site))
    one, other = (draw_episode(rows, ["a", "b"], shots, seed) for rows in (site, shuffled))
    assert names(site, one.indices) == names(shuffled, other.indices)
    assert one.shortfall == other.shortfall
    one_split, other_split = (split_by_group(rows, 0.3, seed) for rows in (site, shuffled))
    assert set(names(site, one_split[1])) == set(names(shuffled, other_split[1]))


@given(sites(), st.integers(1, 12), SEEDS)
def test_shots_are_met_by_as_many_groups_as_there_are(site, shots, seed):
    episode = draw_episode(site, ["a", "b"], shots, seed)
    assert len(set(episode.indices)) == len(episode.indices)
    for label in ("a", "b"):
        available = [record for record in site if record.label == label]
        drawn = [site[index] for index in episode.indices if site[index].label == label]
        assert len(drawn) == min(shots, len(available))
        assert episode.shortfall.get(label, 0) == shots - len(drawn)
        groups = {record.group for record in available}
        assert len({record.group for record in drawn}) == min(shots, len(groups))


@given(sites(), st.integers(1, 8), SEEDS)
def test_fewer_shots_are_the_beginning_of_more(site, shots, seed):
    few, more = (draw_episode(site, ["a"], count, seed).indices for count in (shots, shots + 3))
    assert more[: len(few)] == few


def test_seeds_differ():
    draws = {tuple(draw_episode(SITE, ["benign"], 2, seed).indices) for seed in range(20)}
    assert len(draws) > 5


def test_a_class_with_fewer_images_than_shots():
    episode = draw_episode(SITE, ["benign", "normal"], 20, seed=0)
    assert sorted(names(SITE, episode.indices)) == [f"benign{i}.png" for i in range(8)]
    assert episode.shortfall == {"benign": 12, "normal": 20}


@given(sites(), st.floats(0, 1), SEEDS)
def test_groups_never_lie_on_both_sides(site, fraction, seed):
    train, test = split_by_group(site, fraction, seed)
    assert sorted(train + test) == list(range(len(site)))
    assert train == sorted(train)
    assert not {site[i].group for i in train} & {site[i].group for i in test}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=20),
    st.floats(0, 1),
    SEEDS,
)
def test_every_class_keeps_its_share_within_half_a_group(groups, fraction, seed):
    site = [
        Record(Path(f"{number}-{i}.png"), label=label, group=f"g{number}")
        for number, (label, size) in enumerate(groups)
        for i in range(size)
    ]
    _, test = split_by_group(site, fraction, seed)
    totals, held_out = (Counter(r.label for r in rows) for rows in (site, [site[i] for i in test]))
    for label, total in totals.items():
        largest = max(size for other, size in groups if other == label)
        assert abs(held_out[label] - fraction * total) <= largest / 2 + 1e-9
