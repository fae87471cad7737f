from hypothesis import given
from hypothesis import strategies as st

from hica.images.groups import group_names

MARKS = st.one_of(st.none(), st.sampled_from("123456"))


def test_duplicate_mark_then_patient_then_image():
    names = group_names(list("abcd"), ["1", "1", None, None], [None, None, "1", None])
    assert names == ["patient:1", "patient:1", "1", "d"]


def test_links_pass_on():
    """Two patients share a near-duplicate; all their images are one group."""
    names = group_names(list("abcde"), ["p", "p", "q", "q", "r"], [None, "7", "7", None, None])
    assert names == ["7", "7", "7", "7", "patient:r"]


@given(st.lists(st.tuples(MARKS, MARKS), max_size=12), st.randoms())
def test_groups_are_the_connected_components_in_any_order(marks, random):
    rows = [(f"image{i}", *mark) for i, mark in enumerate(marks)]
    shuffled = random.sample(rows, len(rows))
    groups = dict(zip((row[0] for row in shuffled), group_names_of(shuffled), strict=True))
    assert groups == dict(zip((row[0] for row in rows), group_names_of(rows), strict=True))
    for name, *links in rows:
        assert {n for n in groups if groups[n] == groups[name]} == reached(name, links, rows)


def group_names_of(rows):
    return group_names(*([row[i] for row in rows] for i in range(3)))


def reached(name, links, rows):
    """All images reached from one by shared marks: slow and plain."""
    seen, patients, duplicates = {name}, {links[0]} - {None}, {links[1]} - {None}
    while True:
        more = {n for n, p, d in rows if p in patients or d in duplicates} - seen
        if not more:
            return seen
        seen |= more
        patients |= {p for n, p, _ in rows if n in seen} - {None}
        duplicates |= {d for n, _, d in rows if n in seen} - {None}
