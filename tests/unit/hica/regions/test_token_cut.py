import numpy as np
import pytest

from hica.regions.token_cut import SAME_EIGENVALUE, SAME_ENTRY, TokenCut, affinities, cut

PIXELS = np.zeros((64, 64, 3), dtype=np.uint8)


def blocks(layout, noise=0.0, offset=0.0):
    """Features [N, 16] of patches whose block is given by `layout` [g, g], all off by `offset`."""
    draws = np.random.default_rng(0)
    centres = np.eye(16)[np.asarray(layout).ravel()] + offset
    return (centres + noise * draws.normal(size=centres.shape)).astype(np.float32)


def token_cut(features, **parameters):
    return TokenCut(lambda pixels: features, "tower", **parameters)


def patches_of(region, grid=8):
    """Which patches [g, g] a region is made of; it is made of whole ones."""
    side = len(region) // grid
    cells = region.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(grid, grid, -1)
    assert (cells.all(axis=-1) == cells.any(axis=-1)).all()
    return cells.any(axis=-1)


def slow_regions(features, grid, count, threshold, weak):
    """TokenCut with loops, the symmetric Laplacian D^-½ (D − W) D^-½ and NumPy's solver."""
    mean = sum(features.astype(np.float64)) / len(features)
    left = list(range(len(features)))
    regions = []
    while len(regions) < count:
        size = len(left)
        graph = np.zeros((size, size))
        for a in range(size):
            for b in range(size):
                u, v = features[left[a]] - mean, features[left[b]] - mean
                cosine = float(u @ v) / float(np.sqrt(u @ u) * np.sqrt(v @ v))
                graph[a, b] = 1.0 if cosine >= threshold else weak
        if len({graph[a, b] for a in range(size) for b in range(a)}) < 2:
            return regions
        degree = graph.sum(axis=1)
        laplacian = np.eye(size) - graph / np.sqrt(np.outer(degree, degree))
        values, vectors = np.linalg.eigh(laplacian)
        space = [
            vectors[:, k] / np.sqrt(degree)
            for k in range(1, size)
            if values[k] - values[1] < SAME_EIGENVALUE
        ]
        # The unit vector of the space with the largest entry at a node is the node's projection.
        reach = [sum(y[a] ** 2 for y in space) ** 0.5 for a in range(size)]
        seed = next(a for a in range(size) if reach[a] > (1 - SAME_ENTRY) * max(reach))
        y = sum(each[seed] / reach[seed] * each for each in space)
        cutoff = sum(y) / size + SAME_ENTRY * y[seed]
        side = {left[a] for a in range(size) if y[a] > cutoff}
        found, front = set(), [left[seed]]
        while front:  # flood fill over 8 neighbours
            patch = front.pop()
            found.add(patch)
            row, column = divmod(patch, grid)
            for other in side - found:
                if abs(other // grid - row) <= 1 and abs(other % grid - column) <= 1:
                    front.append(other)
        regions.append(found)
        left = [patch for patch in left if patch not in found]
    return regions


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_smaller_of_two_blocks_is_found(offset):
    """The eigenvector is orthogonal to the degrees: it is larger where there are fewer patches."""
    layout = np.zeros((8, 8), dtype=int)
    layout[2:5, 3:6] = 1
    (found,) = token_cut(blocks(layout, 0.01, offset))(PIXELS, None, 1)
    assert np.array_equal(patches_of(found), layout == 1)


def test_the_rest_is_cut_again():
    layout = np.zeros((8, 8), dtype=int)
    layout[1:3, 1:3] = 1
    layout[4:8, 4:7] = 2
    regions = token_cut(blocks(layout, 0.01))(PIXELS, None, 2)
    assert sorted(int(patches_of(region).sum()) for region in regions) == [4, 12]


def test_one_thing_in_two_places_is_two_regions():
    layout = np.zeros((8, 8), dtype=int)
    layout[0:2, 0:2] = layout[5:8, 5:8] = 1
    regions = token_cut(blocks(layout, 0.01))(PIXELS, None, 2)
    assert sorted(int(patches_of(region).sum()) for region in regions) == [4, 9]
    assert not (regions[0] & regions[1]).any()


def strips(*rows):
    """A layout [6, 6] whose blocks are as many rows of patches, from the top."""
    return np.repeat(np.arange(len(rows)), rows)[:, None].repeat(6, axis=1)


def joined(*sizes, bridges=()):
    """Affinities of cliques of these sizes, and nodes of `bridges` joined to every clique."""
    clique = np.repeat(np.arange(len(sizes)), sizes)
    graph = np.where(clique[:, None] == clique, 1.0, 1e-5)
    graph[list(bridges)] = graph[:, list(bridges)] = 1.0
    return graph


# Three patches of the same neighbours, far apart.
TWINS = np.array([[0, 0, 0, 1, 0, 0], *[[0] * 6] * 2, [0, 0, 0, 0, 0, 1], [0] * 6, [1, *[0] * 5]])


@pytest.mark.parametrize(
    "layout",
    [strips(3, 3), strips(2, 2, 2), strips(1, 1, 1, 3), strips(1, 1, 1, 1, 1, 1), TWINS],
    ids=["halves", "thirds", "sixths and a half", "sixths", "twins"],
)
def test_ties_are_broken_as_in_the_slow_reference(layout):
    features = blocks(layout)
    fast = token_cut(features)(np.zeros((36, 36, 3), dtype=np.uint8), None, 4)
    slow = slow_regions(features, 6, 4, 0.2, 1e-5)
    assert [set(np.flatnonzero(patches_of(region, 6))) for region in fast] == slow
    assert len(fast) > 0


def test_of_blocks_of_one_size_the_first_is_found_first():
    regions = token_cut(blocks(strips(2, 2, 2)))(np.zeros((36, 36, 3), dtype=np.uint8), None, 4)
    assert [np.flatnonzero(patches_of(region, 6)).tolist() for region in regions] == [
        list(range(12)),
        list(range(12, 24)),
    ]


@pytest.mark.parametrize(
    ("graph", "side"),
    [
        (joined(4, 4), range(4)),
        (joined(3, 3, 3, 3), range(3)),
        (joined(2, 2, 2, 6), range(6)),
        (joined(4, 1, 4, bridges=[4]), range(4)),
        (joined(4, 2, 4, bridges=[4, 5]), range(4)),
    ],
    ids=["halves", "quarters", "thrice two and six", "one at the mean", "two at the mean"],
)
def test_rounding_does_not_turn_a_cut(graph, side):
    """Other processors round otherwise: here their part is played by noise on the affinities."""
    draws = np.random.default_rng(0)
    for scale in [0.0] + 30 * [1e-12]:
        noise = 1 + scale * draws.normal(size=graph.shape)
        foreground, seed = cut(graph * np.sqrt(noise * noise.T))
        assert np.flatnonzero(foreground).tolist() == list(side)
        assert seed == 0


@pytest.mark.parametrize("seed", range(5))
def test_regions_equal_those_of_the_slow_reference(seed):
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(36, 6)).astype(np.float32)
    features[:9] += [2, 0, 0, 0, 0, 0]
    features[20:24] += [0, 3, 0, 0, 0, 0]
    features = features @ draws.normal(size=(6, 6)).astype(np.float32) + 5
    fast = token_cut(features)(np.zeros((36, 36, 3), dtype=np.uint8), None, 4)
    slow = slow_regions(features, 6, 4, 0.2, 1e-5)
    assert [set(np.flatnonzero(patches_of(region, 6))) for region in fast] == slow
    assert len(fast) == 4


def test_the_cut_solves_the_generalised_problem():
    graph = affinities(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), 0.2, 1e-5)
    assert np.array_equal(graph, graph.T)
    assert set(np.unique(graph)) == {1e-5, 1.0}
    foreground, seed = cut(graph)
    assert foreground[seed]
    assert 0 < foreground.sum() < 20
    share = [
        graph[np.ix_(foreground, ~foreground)].sum() / graph[side].sum()
        for side in (foreground, ~foreground)
    ]
    singles = []
    for node in range(20):
        alone = np.arange(20) == node
        between = graph[np.ix_(alone, ~alone)].sum()
        singles.append(between / graph[alone].sum() + between / graph[~alone].sum())
    assert sum(share) < min(singles)  # Ncut of the found side against that of any single patch


def test_patches_are_stretched_over_a_side_that_is_no_multiple_of_the_grid():
    layout = np.zeros((7, 7), dtype=int)
    layout[0, 0] = 1
    (found,) = token_cut(blocks(layout))(np.zeros((50, 50, 3), dtype=np.uint8), None, 1)
    assert np.argwhere(found)[[0, -1]].tolist() == [[0, 0], [7, 7]]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_patches_that_are_all_alike_give_no_regions(value):
    assert token_cut(np.full((64, 16), value, np.float32))(PIXELS, None, 4) == []
    almost = np.full((64, 16), value, np.float32)
    almost[3] *= 1 + 1e-6
    assert token_cut(almost)(PIXELS, None, 4) == []


def test_version_names_the_tower_and_not_the_function():
    one, other = (TokenCut(lambda pixels: pixels, "tower") for _ in range(2))
    assert one.version == other.version
    assert TokenCut(one.patches, "another").version != one.version
