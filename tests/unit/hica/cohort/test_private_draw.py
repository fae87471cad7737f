from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hica.cohort.private_draw import MOST_IMAGES, draw_units, place, rounded
from hica.images.manifest import Record


def records_of(images):
    """Rows of a manifest; `images` gives the number of each patient's."""
    return [
        Record(Path(f"{patient}-{n}.png"), group=patient)
        for patient, count in images.items()
        for n in range(count)
    ]


def patients_of(records, draw):
    return Counter(records[row].group for row in draw.rows)


@pytest.mark.parametrize(
    ("count", "told"),
    [*((n, n) for n in range(9)), (9, 8), (11, 10), (15, 14), (16, 16), (100, 96), (1023, 896)],
)
def test_numbers_are_told_to_a_quarter(count, told):
    assert rounded(count) == told


@given(st.integers(0, 10**9))
def test_what_is_told_is_never_more_and_at_least_four_fifths(count):
    assert 0.8 * count <= rounded(count) <= count


@given(
    st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), st.integers(1, 9), max_size=60),
    st.integers(1, 20),
    st.integers(1, 40),
)
def test_a_patient_with_many_images_changes_nothing_of_the_others(images, wanted, many):
    """Where the rounded number stays the same, which is what the coordinator is told."""
    images.pop("x", None)
    without, with_x = records_of(images), records_of({**images, "x": many})
    one, other = (
        draw_units(rows, range(len(rows)), wanted, 3, "patient") for rows in (without, with_x)
    )
    if rounded(len(images)) != rounded(len(images) + 1):
        return
    drawn = patients_of(with_x, other)
    assert drawn.pop("x", 0) in (0, min(many, MOST_IMAGES))
    assert drawn == patients_of(without, one)
    assert one.announced == other.announced == min(wanted, rounded(len(images)))


def test_as_many_are_drawn_as_are_wanted_on_average():
    records = records_of({f"p{n}": 1 for n in range(1024)})
    sizes = [len(draw_units(records, range(1024), 100, seed, "patient").rows) for seed in range(80)]
    assert abs(sum(sizes) / 80 - 100) < 4


def test_all_are_drawn_where_there_are_no_more():
    records = records_of({"a": 2, "b": 9, "c": 1})
    draw = draw_units(records, range(len(records)), 3, 0, "patient")
    assert patients_of(records, draw) == {"a": 2, "b": MOST_IMAGES, "c": 1}
    assert draw.announced == 3


def test_where_an_image_is_the_unit_each_is_drawn_by_itself():
    records = records_of({"a": 9})
    draw = draw_units(records, range(9), 20, 0, "image")
    assert sorted(draw.rows) == list(range(9)) and draw.announced == 8


def test_the_order_of_the_manifest_does_not_matter():
    records = records_of({f"p{n}": 3 for n in range(40)})
    shuffled = records[::-1]
    names = [
        {rows[row].name for row in draw_units(rows, range(120), 9, 1, "patient").rows}
        for rows in (records, shuffled)
    ]
    assert names[0] == names[1]


def test_other_seeds_and_names_stand_elsewhere():
    assert len({place(seed, name) for seed in range(20) for name in "abcdef"}) == 120
    assert all(0 <= place(0, str(n)) < 1 for n in range(100))
