import pytest
import torch

from hica.method.local_training import alignment_loss, embed_batch, pseudo_label_loss
from hica.privacy.gradients import Draw, per_image_gradients, per_unit_gradients

# GroupNorm; BatchNorm; attention, class token and positions; a trained norm that sees patches
# folded into the batch; trained position biases in the attention; open_clip's own ViT.
TOWERS = [
    "tiny",
    "timm/test_efficientnet",
    "timm/test_vit",
    "timm/test_convnext",
    "timm/test_vit_relpos",
    "open_clip",
]
WAYS = ["adapter", "last-1", "lora", "full"]
CASES = [(name, way) for name in TOWERS for way in WAYS if (name[-8:], way) != ("convnext", "lora")]
LOSS = alignment_loss(0.1, 0.5, 0.3, 0.2, "all", "bank")


def brute_force(model, examples, loss, images, views) -> dict[str, torch.Tensor]:
    """One image at a time through the code of plain training."""
    rows = []
    for image, view in zip(images, views, strict=True):
        model.zero_grad(set_to_none=True)
        loss(model, embed_batch(model, examples, image[None], view[None]))[0].backward()
        rows.append({name: value.grad for name, value in model.shared().items()})
    model.zero_grad(set_to_none=True)
    return {
        name: torch.stack([row[name] for row in rows])
        for name in rows[0]
        if rows[0][name] is not None
    }


def assert_equal(found, expected, bound=1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        difference = (found[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1.0)
        assert found[name].dtype == torch.float64
        assert difference < bound, f"{name}: {difference}"


def compare(model, examples, loss) -> dict[str, torch.Tensor]:
    images, views = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0, 0, 1])
    model.train()
    found = per_image_gradients(model, examples, loss, images, views)
    assert_equal(found, brute_force(model, examples, loss, images, views))
    return found


@pytest.mark.parametrize(("name", "way"), CASES)
def test_gradients_equal_a_slow_loop(double, new_model, new_examples, name, way) -> None:
    model = new_model(name, way).double()
    found = compare(model, new_examples(model, "abc"), LOSS)
    assert set(found) == set(model.shared())
    assert all(bool(part.any()) for part in found.values())


@pytest.mark.parametrize("assignment", ["best", "matching"])
def test_gradients_equal_a_slow_loop_where_regions_choose(
    double, new_model, new_examples, assignment
) -> None:
    model = new_model("tiny", "adapter").double()
    loss = alignment_loss(0.1, 0.5, 0.3, 0.2, assignment, "bank")
    compare(model, new_examples(model, "abc"), loss)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_stage_1_equal_a_slow_loop_and_leave_the_bank_out(
    double, new_model, new_examples, way
) -> None:
    model = new_model("tiny", way).double()
    centroids = torch.randn(4, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = compare(model, new_examples(model, "abc"), pseudo_label_loss(centroids, 0.1))
    assert found and not any(name.startswith("bank.") for name in found)


def test_gradients_equal_a_slow_loop_with_unit_features_and_a_fixed_bank(
    double, new_model, new_examples
) -> None:
    model = new_model("tiny", "lora", unit_features=True, train_text_bank=False).double()
    compare(model, new_examples(model, "abc"), LOSS)


def test_nothing_of_the_model_is_changed(new_model, new_examples) -> None:
    model = new_model("timm/test_efficientnet", "full")
    examples = new_examples(model, "abc")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    per_image_gradients(model, examples, LOSS, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


# Units of 1, 5 and 2 rows.
DRAW = Draw(
    images=torch.tensor([2, 0, 0, 1, 1, 3, 3, 2]),
    views=torch.tensor([0, 0, 1, 0, 1, 0, 1, 1]),
    units=torch.tensor([0, 1, 1, 1, 1, 1, 2, 2]),
    shares=torch.tensor([1.0, *[0.2] * 5, 0.5, 0.5], dtype=torch.float64),
)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 8, 100])
def test_units_are_the_means_of_their_rows_wherever_micro_batches_cut(
    double, new_model, new_examples, micro_batch
) -> None:
    model = new_model("tiny", "adapter").double()
    examples = new_examples(model, "abcd")
    rows = brute_force(model, examples, LOSS, DRAW.images, DRAW.views)
    parts = list(per_unit_gradients(model, examples, LOSS, DRAW, micro_batch))
    expected = {
        name: torch.stack([part[0], part[1:6].mean(0), part[6:].mean(0)]).flatten(1)
        for name, part in rows.items()
    }
    assert_equal({name: torch.cat([part[name] for part in parts]) for name in rows}, expected)


def test_no_rows_give_no_gradients_and_run_nothing(new_model, new_examples, monkeypatch) -> None:
    model = new_model("open_clip", "lora")
    examples = new_examples(model, "ab")
    monkeypatch.setattr(model, "forward", None)
    nothing = torch.empty(0, dtype=torch.long)
    empty = Draw(nothing, nothing, nothing, nothing.double())
    assert list(per_unit_gradients(model, examples, LOSS, empty, 4)) == []
