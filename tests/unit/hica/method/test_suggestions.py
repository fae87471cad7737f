import numpy as np
import pytest

from hica.method.suggestions import suggested


def blobs(*sizes, dim=8, spread=0.1, seed=0):
    """Unit rows around as many axes; the first rows are those of the first."""
    draws = np.random.default_rng(seed)
    centres = np.repeat(np.eye(dim)[: len(sizes)], sizes, axis=0)
    rows = centres + spread * draws.standard_normal(centres.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.repeat(range(len(sizes)), sizes)


def groups(rows):
    return [f"p{number}" for number in range(len(rows))]


NOTHING = np.zeros((0, 8))


def test_of_every_kind_one_the_largest_first():
    rows, kinds = blobs(10, 30, 20)
    found = suggested(rows, groups(rows), NOTHING, 3, seed=0)
    assert [kinds[each.row] for each in found] == [1, 2, 0]
    assert [each.alike for each in found] == [30, 20, 10]


def test_the_most_typical_of_its_kind_is_the_one_that_a_loop_finds():
    rows, _ = blobs(30)
    (found,) = suggested(rows, groups(rows), NOTHING, 1, seed=0)
    means = []
    for row in rows:
        distances = sorted(np.linalg.norm(rows - row, axis=1))[1:16]  # half of 30
        means.append(np.mean(distances))
    assert found.row == int(np.argmin(means))
    assert found.typicality == pytest.approx(1 / min(means))


def test_kinds_that_have_a_label_come_last():
    rows, kinds = blobs(30, 20)
    known = blobs(30, 20, seed=1)[0][:3]  # of the first kind
    found = suggested(rows, groups(rows), known, 1, seed=0)
    assert kinds[found[0].row] == 1


def test_one_image_of_each_patient():
    rows, _ = blobs(30, 20)
    patients = [f"p{number % 3}" for number in range(len(rows))]
    found = suggested(rows, patients, NOTHING, 10, seed=0)
    assert sorted(patients[each.row] for each in found) == ["p0", "p1", "p2"]


def test_a_trained_model_chooses_where_it_is_unsure_among_the_typical_half():
    rows, _ = blobs(31, spread=0.2)
    typicality = {}
    for row in range(31):  # the far one is never chosen first, however unsure
        distances = sorted(np.linalg.norm(rows - rows[row], axis=1))[1:16]
        typicality[row] = 1 / np.mean(distances)
    entropy = np.zeros(31)
    ranked = sorted(typicality, key=lambda row: -typicality[row])
    typical, far = ranked[10], ranked[-1]
    entropy[[typical, far]] = 0.9, 1.0
    (found,) = suggested(rows, groups(rows), NOTHING, 1, seed=0, entropy=entropy)
    assert (found.row, found.uncertainty) == (typical, 0.9)


def test_the_same_seed_gives_the_same_and_never_an_image_twice():
    rows, _ = blobs(9, 9, 9)
    found = [suggested(rows, groups(rows), NOTHING, 40, seed=5) for _ in range(2)]
    assert found[0] == found[1]
    assert sorted(each.row for each in found[0]) == list(range(27))
    assert all(0 <= each.uncertainty <= 1 for each in found[0])


def test_alike_images_and_none_at_all_are_no_error():
    assert suggested(NOTHING, [], NOTHING, 5, seed=0) == []
    same = np.repeat(np.eye(8)[:1], 4, axis=0)
    assert [each.row for each in suggested(same, groups(same), NOTHING, 2, seed=0)] == [0, 1]
