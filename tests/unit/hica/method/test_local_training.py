from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional

from hica.method.examples import Examples
from hica.method.local_training import (
    Schedule,
    alignment_loss,
    class_sums,
    embed_all,
    mean_features,
    moments,
    pseudo_label_loss,
    train,
)
from hica.method.model import AlignmentModel
from hica.text.bank import TextBank
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt

TEXTS = [("a", ["one"], ["x", "y"], False), ("b", ["two"], ["z"], False)]
LOSS = alignment_loss(0.1, 0.5, 0.5, 0.2, "all", "bank")


def unit_rows(count: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def make_bank(dim: int) -> TextBank:
    return TextBank.assemble(TEXTS, unit_rows(2, dim, 0), unit_rows(3, dim, 1))


def make_model(train_bank: bool = True) -> AlignmentModel:
    tower = adapt(load_image_tower("tiny"), "adapter", adapter_width=8, seed=0)
    return AlignmentModel(tower, make_bank(tower.tower.dim), train_bank)


def make_examples(n: int = 12, dim: int = 128, views: int = 3, regions: int = 2) -> Examples:
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(n) % 2
    hidden = torch.randn(n, views, 1 + regions, dim, generator=generator)
    hidden[:, :, 0] += 2 * unit_rows(2, dim, 3)[labels].unsqueeze(1)
    return Examples(
        hidden=hidden.half(),
        region_weights=torch.ones(n, views, regions, 8, 8).half(),
        valid=torch.ones(n, views, regions, dtype=torch.bool),
        labels=labels,
        positives=make_bank(dim).positives(labels, [()] * n),
        groups=tuple(str(i) for i in range(n)),
    )


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def weights_after(seed: int, epochs: int = 3) -> dict[str, torch.Tensor]:
    model = make_model()
    generator = torch.Generator().manual_seed(seed)
    train(model, make_examples(), LOSS, Schedule(epochs, 4, 1e-2, 1e-2), generator)
    return {name: value.detach().clone() for name, value in model.shared().items()}


def test_a_round_repeats_to_the_bit_and_depends_on_its_seed(two_threads: None) -> None:
    first, again, other = weights_after(1), weights_after(1), weights_after(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_lowers_the_loss_and_separates_the_classes() -> None:
    model, examples = make_model(), make_examples()
    schedule = Schedule(1, 4, 1e-2, 1e-2)
    losses = [
        train(model, examples, LOSS, schedule, torch.Generator().manual_seed(i)) for i in range(15)
    ]
    assert losses[-1] < 0.5 * losses[0]
    batch = embed_all(model, examples)
    scores = model.scores(*batch[:3], make_bank(128).finding_classes, 0.0)
    assert (scores.argmax(1) == examples.labels).all()


def test_the_reported_loss_is_the_mean_over_images_not_over_batches() -> None:
    model, examples = make_model(), make_examples(n=5, views=1)
    still = Schedule(1, 4, 0.0, 0.0)
    reported = train(model, examples, LOSS, still, torch.Generator().manual_seed(0))
    batch = embed_all(model, examples)
    assert reported == pytest.approx(LOSS(model, batch).mean().item(), rel=1e-5)


def test_a_fixed_bank_is_neither_trained_nor_shared() -> None:
    model = make_model(train_bank=False)
    assert not any(name.startswith("bank.") for name in model.shared())
    before = model.classes.clone()
    train(model, make_examples(), LOSS, Schedule(2, 4, 1e-2, 1e-2), torch.Generator())
    assert torch.equal(model.classes, before)


def test_the_pull_keeps_the_bank_nearer_to_its_anchor() -> None:
    def distance(pull: float) -> float:
        model = make_model()
        anchor = (model.classes.detach().clone(), model.findings.detach().clone())
        schedule = Schedule(10, 4, 0.0, 1e-2, text_pull=pull)
        train(model, make_examples(), LOSS, schedule, torch.Generator().manual_seed(0), anchor)
        return float((model.classes - anchor[0]).norm())

    assert distance(10.0) < 0.5 * distance(0.0)


def test_pseudo_label_loss_equals_a_slow_loop() -> None:
    model, examples = make_model(), make_examples(n=6)
    centroids = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    batch = embed_all(model, examples)
    losses = pseudo_label_loss(centroids, 0.2)(model, batch)
    for image, label, loss in zip(batch.images, batch.labels, losses, strict=True):
        cosines = [float(image @ c / c.norm()) / 0.2 for c in centroids]
        expected = np.log(np.sum(np.exp(cosines))) - cosines[int(label)]
        assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_moments_equal_a_slow_loop_and_skip_absent_regions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hica.method.local_training.EMBEDDED", 2)
    model, examples = make_model(), make_examples(n=5, views=2)
    examples.valid[0, 1, 0] = False
    sums, squares, counts = moments(model, examples)
    whole, parts, number = torch.zeros(2, 128).double(), torch.zeros(2, 128).double(), 0
    for i in range(5):
        for v in range(2):
            pooled, regions = model.tower(
                examples.hidden[i, v][None].float(), examples.region_weights[i, v][None].float()
            )
            row = pooled[0].detach().double()
            whole += torch.stack([row, row**2])
            for k in range(2):
                if examples.valid[i, v, k]:
                    row = regions[0, k].detach().double()
                    parts += torch.stack([row, row**2])
                    number += 1
    expected = torch.stack([whole, parts], dim=1)  # sums, squares
    torch.testing.assert_close(torch.stack([sums, squares]), expected, rtol=1e-5, atol=1e-4)
    assert counts.tolist() == [10, number]


def test_mean_features_add_up_to_the_moments_and_an_image_without_regions_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hica.method.local_training.EMBEDDED", 2)
    model, examples = make_model(), make_examples(n=5, views=2)
    examples.valid[3] = False
    sums, _, counts = moments(model, examples)
    images, regions, has_regions = mean_features(model, examples)
    per_image = examples.valid.sum(dim=(1, 2)).double()
    torch.testing.assert_close(2 * images.sum(dim=0), sums[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(per_image @ regions, sums[1], rtol=1e-5, atol=1e-4)
    assert counts.tolist() == [10, per_image.sum()]
    assert has_regions.tolist() == [True, True, True, False, True]
    assert not regions[3].any()


def test_class_sums_leave_unlabelled_images_out() -> None:
    model, examples = make_model(), make_examples(n=6)
    batch = embed_all(model, examples)
    labels = batch.labels.clone()
    labels[0] = -1
    sums, counts = class_sums(batch._replace(labels=labels), 2)
    torch.testing.assert_close(sums[0], batch.images[[2, 4]].double().sum(0))
    assert counts.tolist() == [2, 3]


def test_views_are_averaged_on_the_sphere() -> None:
    model, examples = make_model(), make_examples(n=3, views=2)
    both = embed_all(model, examples)
    alone = []
    for v in range(2):
        one = Examples(
            **{
                **vars(examples),
                "hidden": examples.hidden[:, v : v + 1],
                "region_weights": examples.region_weights[:, v : v + 1],
                "valid": examples.valid[:, v : v + 1],
            }
        )
        alone.append(embed_all(model, one).images)
    torch.testing.assert_close(both.images, functional.normalize(alone[0] + alone[1], dim=-1))
