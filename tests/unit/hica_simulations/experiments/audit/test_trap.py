import pytest
import torch
from torch.nn import functional

from hica_simulations.experiments.audit.trap import (
    ADAPTER,
    FAINT,
    QUIET,
    Known,
    bins,
    cosines,
    gradient_of_step,
    known_of,
    probes,
    window,
)

D, WIDTH = 32, 16


@pytest.fixture
def known():
    """Two hospitals whose images differ by much along one direction, of which each has a shift."""
    draws = torch.Generator().manual_seed(0)
    base = torch.randn(D, generator=draws)
    rows = [base + 0.1 * torch.randn(40, D, generator=draws) for _ in range(2)]
    rows[1][:, 0] += 3.0
    for part in rows:
        part[:, 5] += 0.5 * torch.randn(40, generator=draws)
    return Known(rows, [functional.layer_norm(part, (D,)) for part in rows])


@pytest.mark.parametrize("size", [1e-12, 1e-9, 1e-7])
def test_a_gradient_is_told_from_adamw_s_first_step(size):
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64))
    sent, gradient = weight.detach().clone(), size * torch.linspace(-3, 2, 9, dtype=torch.float64)
    optimiser = torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.1)
    weight.grad = gradient.clone()
    optimiser.step()
    name = f"{ADAPTER}down.weight"
    change = {name: weight.detach() - sent, "bank.classes": sent}
    found = gradient_of_step(change, {name: sent, "bank.classes": sent}, 1e-2, 0.1)
    assert found.keys() == {"down.weight"}
    assert torch.allclose(found["down.weight"], gradient, rtol=1e-3, atol=1e-3 * size)


def test_bins_begin_one_after_the_other_along_what_hospitals_share(known):
    trap = bins(known, torch.eye(3, D), WIDTH, torch.zeros(2, D))
    edges = -trap.weights[f"{ADAPTER}down.bias"]
    assert (edges[1:] >= edges[:-1]).all() and edges[-1] > edges[0]
    along = trap.weights[f"{ADAPTER}down.weight"][0]
    assert int(along.abs().argmax()) == 5
    assert trap.weights[f"{ADAPTER}up.weight"].norm(dim=0)[0] == pytest.approx(FAINT)
    assert trap.weights[f"{ADAPTER}up.weight"].shape == (D, WIDTH)


def test_neighbouring_bins_differ_by_the_images_between_them(known):
    trap = bins(known, torch.eye(3, D), WIDTH, torch.zeros(2, D))
    rows = torch.cat(known.normed) - known.mean
    along = trap.weights[f"{ADAPTER}down.weight"][0]
    place = 3 * len(rows) // 4
    image = rows[(rows @ along).argsort()[place]]
    passed = 1e4 * image @ along > -trap.weights[f"{ADAPTER}down.bias"]
    gradient = -passed.double().unsqueeze(1) * image.double()
    found = trap.read({"down.weight": gradient})
    best = cosines(found, image.view(1, 1, D))
    assert best[0] == pytest.approx(1.0, abs=1e-6)


def test_a_window_singles_out_the_image_that_lies_nearest_to_it(known):
    trap = window(known, 3, WIDTH, 0.3)
    feature = int(trap.scale[0].argmin())
    rows = torch.cat(known.features)
    placed = functional.normalize((rows - trap.centre[0]) / trap.scale[0], dim=1)
    inside = 1 - placed[:, feature] ** 2
    nearest = int((rows[:, feature] - trap.centre[0, feature]).abs().argmin())
    assert int(inside.argmax()) == nearest and int((inside > 0.1).sum()) <= 8
    assert trap.weights[f"{ADAPTER}up.weight"].abs().max() < 1e-8


def test_probes_see_the_images_and_not_the_texts(known):
    trap = probes(known, 3, WIDTH, 4, QUIET)
    up = trap.weights[f"{ADAPTER}up.weight"]
    assert torch.allclose(trap.classes @ up, torch.zeros(3, WIDTH), atol=1e-5 * QUIET)
    assert torch.equal(trap.classes[1], -trap.classes[0]) and trap.classes[1] @ trap.classes[1] > 0
    assert torch.equal(trap.scale, torch.ones(2, D))
    assert not probes(known, 3, WIDTH, 4, 0.0).weights[f"{ADAPTER}up.weight"].any()


def test_of_probes_a_row_is_read_as_its_images_mean(known):
    trap = probes(known, 3, WIDTH, 0, QUIET)
    images = known.normed[0][:2].double()
    shares = torch.tensor([[3.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
    found = trap.read({"down.weight": shares @ images, "down.bias": shares.sum(dim=1)})
    assert torch.allclose(found, images - known.mean.double())


def test_the_best_candidate_and_the_best_view_count():
    found = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    truth = torch.tensor([[[0.0, 3.0], [-1.0, 0.0]], [[-1.0, -1.0], [-1.0, 0.0]]])
    assert cosines(found, truth).tolist() == pytest.approx([1.0, 0.0])


def test_of_unit_features_the_window_is_laid_over_unit_rows(world):
    pool = world.hospitals[1].pool
    plain, unit = (known_of([pool], each).features[0] for each in (False, True))
    assert torch.allclose(unit, functional.normalize(plain, dim=1))
