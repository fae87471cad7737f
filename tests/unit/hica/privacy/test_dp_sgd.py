from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hica.errors import ConfigurationError
from hica.method.local_training import alignment_loss, embed_batch, pseudo_label_loss
from hica.privacy import gradients
from hica.privacy.dp_sgd import (
    PrivateSchedule,
    clipped_sum,
    draw_rows,
    members_of,
    train_privately,
)
from hica.privacy.gradients import per_image_gradients
from hica.privacy.noise import SeededNoise, on_grid

LOSS = alignment_loss(0.1, 0.5, 0.3, 0.2, "all", "bank")
EXACT = PrivateSchedule(
    steps=1,
    sampling_rate=1.0,
    noise_multiplier=0.0,
    max_norm=1e9,
    views=2,
    micro_batch=3,
    learning_rate=1e-2,
    expected_units=4.0,
    bank_learning_rate=3e-2,
)
UNITS = ["p", "q", "p", "r", "s"]
"""Images 0 and 2 are of one patient."""


class NobodyTakesPart(SeededNoise):
    def uniform(self, n: int) -> np.ndarray:
        return np.full(n, 1 - 2.0**-53)


@pytest.fixture(params=["adapter", "last-1", "lora", "full"])
def model(request, double, new_model):
    return new_model("tiny", request.param).double()


@pytest.fixture
def adapter(double, new_model):
    return new_model("tiny", "adapter").double()


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.shared().items()}


def sum_of(model, examples, schedule, units=UNITS, loss=LOSS) -> torch.Tensor:
    """The clipped sum with everyone taking part, as one vector."""
    model.train()
    draw = draw_rows(members_of(units), examples.hidden.shape[1], schedule, SeededNoise(0))
    sums = clipped_sum(model, examples, loss, draw, schedule, list(model.shared()))
    return torch.cat(list(sums.values()))


def row_gradients(model, examples) -> torch.Tensor:
    """[n, V, P] gradients of every view of every image, as vectors."""
    n, views = examples.hidden.shape[:2]
    images, shown = torch.arange(n).repeat_interleave(views), torch.arange(views).repeat(n)
    rows = per_image_gradients(model, examples, LOSS, images, shown)
    flat = torch.cat([rows[name].flatten(1) for name in model.shared()], dim=1)
    return flat.unflatten(0, (n, views))


def clip(vector: torch.Tensor, bound: float) -> torch.Tensor:
    return vector * min(1.0, bound / float(vector.norm()))


def test_without_noise_it_is_plain_training_on_the_mean_of_the_patients(
    model, new_model, new_examples
) -> None:
    examples = new_examples(model, UNITS)
    anchor = (torch.zeros(2, 128).double(), torch.ones(3, 128).double())
    schedule = replace(EXACT, steps=3, weight_decay=0.1, text_pull=0.2)
    twin = new_model("tiny", way_of(model)).double()
    train_privately(model, examples, LOSS, schedule, UNITS, SeededNoise(0), anchor)

    shared = twin.shared()
    bank = [shared["bank.classes"], shared["bank.findings"]]
    tower = [value for name, value in shared.items() if name.startswith("tower.")]
    optimiser = torch.optim.AdamW(
        [
            {"params": tower, "lr": 1e-2, "weight_decay": 0.1},
            {"params": bank, "lr": 3e-2, "weight_decay": 0.0},
        ]
    )
    everyone = torch.arange(5)
    of_patient = torch.tensor([0.5, 1.0, 0.5, 1.0, 1.0]).double() / 4
    for _ in range(3):
        optimiser.zero_grad()
        losses = [
            LOSS(twin, embed_batch(twin, examples, everyone, torch.full((5,), view)))
            for view in range(2)
        ]
        pull = sum(((part - start) ** 2).sum() for part, start in zip(bank, anchor, strict=True))
        (torch.stack(losses).mean(0) @ of_patient + 0.2 * pull).backward()
        optimiser.step()
    for name, value in weights_of(model).items():
        torch.testing.assert_close(value, shared[name].detach(), rtol=0, atol=1e-7)


def way_of(model) -> str:
    if model.tower.adapter is not None:
        return "adapter"
    if any("lora" in name for name in model.shared()):
        return "lora"
    return "full" if model.tower.last == model.tower.tower.depth else f"last-{model.tower.last}"


def test_micro_batches_change_nothing(model, new_examples) -> None:
    examples = new_examples(model, UNITS)
    schedule = replace(EXACT, max_norm=0.5)
    reference = sum_of(model, examples, replace(schedule, micro_batch=100))
    for size in (1, 2, 3, 5):
        found = sum_of(model, examples, replace(schedule, micro_batch=size))
        assert (found - reference).norm() < 1e-12


def test_two_images_of_a_patient_are_clipped_together(adapter, new_examples) -> None:
    examples = new_examples(adapter, UNITS)
    adapter.train()
    rows = row_gradients(adapter, examples).mean(dim=1)
    patients = [rows[[0, 2]].mean(0), rows[1], rows[3], rows[4]]
    bound = 0.5 * min(float(patient.norm()) for patient in patients)
    schedule = replace(EXACT, max_norm=bound)
    expected = sum(clip(patient, bound) for patient in patients)
    torch.testing.assert_close(
        sum_of(adapter, examples, schedule), expected, rtol=1e-5, atol=1e-6 * bound
    )
    apart = sum(clip(row, bound) for row in rows)
    of_images = sum_of(adapter, examples, schedule, list("01234"))
    torch.testing.assert_close(of_images, apart, rtol=1e-5, atol=1e-6 * bound)
    assert (expected - apart).norm() > 0.1 * bound


def test_one_patient_with_every_image_moves_the_sum_by_the_bound_alone(
    adapter, new_examples
) -> None:
    examples = new_examples(adapter, UNITS)
    total = sum_of(adapter, examples, replace(EXACT, max_norm=0.01), ["p"] * 5)
    assert 0.01 * (1 - 2e-6) < float(total.norm()) <= 0.01


def test_views_are_averaged_before_clipping(adapter, new_examples) -> None:
    examples = new_examples(adapter, "ab", views=3)
    adapter.train()
    rows = row_gradients(adapter, examples)
    bound = 0.5 * float(rows.mean(1).norm(dim=1).min())
    found = sum_of(adapter, examples, replace(EXACT, max_norm=bound, views=3), "ab")
    before = sum(clip(views.mean(0), bound) for views in rows)
    after = sum(torch.stack([clip(row, bound) for row in views]).mean(0) for views in rows)
    torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-6 * bound)
    assert (found - after).norm() > 1e-3 * bound


@pytest.fixture(scope="module")
def of_eight(new_model, new_examples):
    model = new_model("tiny", "adapter")
    return model, new_examples(model, "abcdefgh", views=1)


@settings(max_examples=40, deadline=None)
@given(
    units=st.lists(st.sampled_from("pqrs"), min_size=8, max_size=8),
    bound=st.floats(1e-3, 1e3),
    micro_batch=st.integers(1, 9),
)
def test_adding_a_unit_changes_the_sum_by_the_bound_at_most(
    of_eight, units, bound, micro_batch
) -> None:
    model, examples = of_eight
    schedule = replace(EXACT, max_norm=bound, micro_batch=micro_batch)
    members = members_of(units)
    totals = []
    for kept in (members, members[1:]):
        draw = draw_rows(kept, 1, schedule, SeededNoise(0))
        sums = clipped_sum(model, examples, LOSS, draw, schedule, list(model.shared()))
        totals.append(torch.cat(list(sums.values())))
    assert float((totals[0] - totals[1]).norm()) <= bound * (1 + 1e-9)


def test_a_gradient_that_is_not_finite_counts_as_none(adapter, new_examples) -> None:
    examples = new_examples(adapter, UNITS)
    broken = replace(examples, hidden=examples.hidden.clone())
    broken.hidden[3] = torch.inf
    found = sum_of(adapter, broken, replace(EXACT, max_norm=0.1))
    rest = replace(EXACT, max_norm=0.1)
    draw = draw_rows(members_of(UNITS)[:2] + members_of(UNITS)[3:], 2, rest, SeededNoise(0))
    sums = clipped_sum(adapter, examples, LOSS, draw, rest, list(adapter.shared()))
    torch.testing.assert_close(found, torch.cat(list(sums.values())))


def test_an_empty_draw_runs_nothing_and_adds_noise_alone(model, new_examples, monkeypatch) -> None:
    examples = new_examples(model, UNITS)
    schedule = replace(
        EXACT,
        steps=2,
        sampling_rate=0.5,
        expected_units=2.0,
        noise_multiplier=2.0,
        max_norm=3.0,
    )
    monkeypatch.setattr(gradients, "per_image_gradients", None)
    expected = {name: value.clone() for name, value in weights_of(model).items()}
    train_privately(model, examples, LOSS, schedule, UNITS, NobodyTakesPart(5))

    noise = SeededNoise(5)
    bank = [value for name, value in expected.items() if name.startswith("bank.")]
    tower = [value for name, value in expected.items() if not name.startswith("bank.")]
    optimiser = torch.optim.AdamW(
        [{"params": tower, "lr": 1e-2}, {"params": bank, "lr": 3e-2}], weight_decay=0.0
    )
    for _ in range(2):
        for value in expected.values():  # σ·C on its grid / (q · patients)
            drawn = torch.from_numpy(noise.normal(tuple(value.shape))) * 2.0 * 3.0
            value.grad = on_grid(drawn, 6.0) / (0.5 * 4)
        optimiser.step()
    for name, value in weights_of(model).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)


def test_the_noise_has_the_deviation_that_is_claimed(adapter, new_examples, monkeypatch) -> None:
    examples = new_examples(adapter, UNITS)
    schedule = replace(
        EXACT, steps=8, noise_multiplier=1.7, max_norm=0.3, expected_units=5.0, views=1
    )
    examples = replace(
        examples,
        hidden=examples.hidden[:, :1],
        region_weights=examples.region_weights[:, :1],
        valid=examples.valid[:, :1],
    )
    signal = sum_of(adapter, examples, schedule) / 5.0
    steps = []

    def record(optimiser) -> None:
        by_value = {
            id(value): value.grad for group in optimiser.param_groups for value in group["params"]
        }
        steps.append(torch.cat([by_value[id(v)].flatten() for v in adapter.shared().values()]))

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    train_privately(adapter, examples, LOSS, schedule, UNITS, SeededNoise(11))
    noise = ((torch.stack(steps) - signal) / (1.7 * 0.3 / 5.0)).numpy()
    assert noise.shape[0] == 8 and noise.size > 20_000
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert stats.kstest(noise.flatten(), "norm").pvalue > 0.01
    between_steps = np.mean(noise[1:] * noise[:-1])
    assert abs(between_steps) < 4 / np.sqrt(noise[1:].size)


def test_units_take_part_by_themselves_and_as_often_as_claimed() -> None:
    members = members_of([str(number) for number in range(50)])
    schedule = replace(EXACT, sampling_rate=0.3)
    noise = SeededNoise(0)
    taken = np.zeros((2000, 50))
    for row in taken:
        row[draw_rows(members, 1, schedule, noise).images.numpy()] = 1
    assert abs(taken.mean() - 0.3) < 4 * np.sqrt(0.21 / taken.size)
    sizes = taken.sum(axis=1)
    assert sizes.min() < 10 and sizes.max() > 20  # not a fixed number
    assert sizes.var() == pytest.approx(50 * 0.21, rel=0.15)


def test_a_patient_comes_with_all_images_and_views_are_drawn_without_replacement() -> None:
    members = members_of(UNITS)
    schedule = replace(EXACT, views=2)
    noise, seen = SeededNoise(1), set()
    for _ in range(50):
        draw = draw_rows(members, 4, schedule, noise)
        assert draw.images.tolist() == [0, 0, 2, 2, 1, 1, 3, 3, 4, 4]
        assert draw.units.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
        assert draw.shares.tolist() == [0.25] * 4 + [0.5] * 6
        pairs = draw.views.unflatten(0, (5, 2))
        assert (pairs[:, 0] != pairs[:, 1]).all()
        seen |= {tuple(pair) for pair in pairs.tolist()}
    assert len(seen) == 12
    few = draw_rows(members, 1, schedule, noise)
    assert few.views.tolist() == [0] * 5 and few.shares.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]


def test_weights_that_the_loss_does_not_use_get_no_noise(adapter, new_examples) -> None:
    examples = new_examples(adapter, UNITS)
    before = weights_of(adapter)
    loss = pseudo_label_loss(torch.eye(128).double()[:3], 0.1)
    schedule = replace(EXACT, noise_multiplier=1.0, weight_decay=0.1)
    train_privately(adapter, examples, loss, schedule, UNITS, SeededNoise(0))
    for name, value in weights_of(adapter).items():
        assert torch.equal(value, before[name]) == name.startswith("bank."), name


def test_a_seed_repeats_to_the_bit_and_nothing_is_returned(new_model, new_examples) -> None:
    def after(seed: int) -> dict[str, torch.Tensor]:
        model = new_model("open_clip", "lora")
        examples = new_examples(model, UNITS)
        schedule = replace(EXACT, steps=3, sampling_rate=0.6, noise_multiplier=0.1, max_norm=1.0)
        assert train_privately(model, examples, LOSS, schedule, UNITS, SeededNoise(seed)) is None
        assert all(value.grad is None for value in model.parameters())
        return weights_of(model)

    first, again, other = after(1), after(1), after(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_it_learns_where_noise_is_small(new_model, new_examples) -> None:
    model = new_model("tiny", "adapter")
    examples = new_examples(model, "abcdefgh")
    of_class = torch.randn(2, 128, generator=torch.Generator().manual_seed(4))
    examples = replace(examples, hidden=examples.hidden.clone())
    examples.hidden[:, :, 0] = of_class[examples.labels].unsqueeze(1)
    everyone, view = torch.arange(8), torch.zeros(8, dtype=torch.long)
    before = LOSS(model, embed_batch(model, examples, everyone, view)).mean()
    schedule = replace(
        EXACT, steps=30, sampling_rate=0.5, noise_multiplier=0.1, max_norm=1.0, micro_batch=8
    )
    train_privately(model, examples, LOSS, schedule, "abcdefgh", SeededNoise(0))
    after = LOSS(model, embed_batch(model, examples, everyone, view)).mean()
    assert after < 0.7 * before


def test_a_loss_in_which_images_see_each_other_is_refused(adapter, new_examples) -> None:
    before = weights_of(adapter)
    coupled = alignment_loss(0.1, 0.5, 0.3, 0.2, "all", "batch")
    with pytest.raises(ConfigurationError, match=r'dp-sgd.*alignment\.contrast.*use "bank"'):
        train_privately(
            adapter, new_examples(adapter, UNITS), coupled, EXACT, UNITS, SeededNoise(0)
        )
    assert all(torch.equal(value, before[name]) for name, value in weights_of(adapter).items())


def test_a_tower_in_which_images_see_each_other_is_refused(new_model, new_examples) -> None:
    model = new_model("timm/test_efficientnet", "last-1")
    examples = new_examples(model, UNITS)
    norm = model.tower.tower.trunk.bn2
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    with pytest.raises(ConfigurationError, match=r"BatchNorm takes .* in tower\.trunk\.bn2; use"):
        train_privately(model, examples, LOSS, EXACT, UNITS, SeededNoise(0))


def test_units_that_do_not_fit_the_images_are_refused(adapter, new_examples) -> None:
    with pytest.raises(ValueError, match="4 units for 5 images"):
        train_privately(
            adapter, new_examples(adapter, UNITS), LOSS, EXACT, UNITS[:4], SeededNoise(0)
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"max_norm": 0.0},
        {"max_norm": float("inf")},
        {"views": 0},
        {"micro_batch": 0},
        {"expected_units": 0.0},
    ],
)
def test_schedules_that_privacy_cannot_rest_on_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(EXACT, **wrong)
