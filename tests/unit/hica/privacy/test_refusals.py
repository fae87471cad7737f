import pytest
import torch
from torch import nn

from hica.method.local_training import alignment_loss, pseudo_label_loss
from hica.privacy.refusals import couples_images, reached, refusals

BANK = alignment_loss(0.1, 0.5, 0.5, 0.2, "all", "bank")


@pytest.mark.parametrize("way", ["adapter", "last-1", "lora", "full"])
@pytest.mark.parametrize("name", ["tiny", "timm/test_efficientnet", "timm/test_vit", "open_clip"])
def test_what_can_be_trained_privately_is_not_refused(new_model, name, way) -> None:
    assert refusals(new_model(name, way), "bank") == []


def test_in_batch_contrast_is_refused_with_the_remedy(new_model) -> None:
    (reason,) = refusals(new_model("tiny", "adapter"), "batch")
    assert 'alignment.contrast = "batch"' in reason and 'use "bank"' in reason


@pytest.mark.parametrize("way", ["adapter", "last-1", "lora", "full"])
def test_batch_norm_without_stored_statistics_is_refused_by_name(new_model, way) -> None:
    model = new_model("timm/test_efficientnet", way)
    norm = model.tower.tower.trunk.bn2
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    reasons = refusals(model, "bank")
    assert any("BatchNorm" in each and "tower.trunk.bn2;" in each for each in reasons)
    assert all("use " in each for each in reasons)


def test_batch_norm_that_takes_batch_statistics_in_training_is_refused(
    new_model, monkeypatch
) -> None:
    model = new_model("timm/test_efficientnet", "last-1")
    monkeypatch.setattr(type(model.tower), "train", nn.Module.train)
    assert any("BatchNorm" in each for each in refusals(model, "bank"))


def test_batch_norm_with_stored_statistics_sees_no_other_image(new_model) -> None:
    model = new_model("timm/test_efficientnet", "full")
    assert refusals(model, "bank") == []
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms and all(each.weight.requires_grad for each in norms)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator)
    grid = model.tower.tower.grid
    weights = torch.ones(3, 1, grid, grid)
    together = model(pixels, weights)[0]
    alone = model(pixels[:1], weights[:1])[0]
    torch.testing.assert_close(together[:1], alone)


def test_a_layer_without_gradients_of_single_images_is_named(new_model) -> None:
    class Sparse(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) if inputs.nonzero().numel() else inputs

    model = new_model("tiny", "full")
    model.tower.tower.projection = Sparse(96, 128, bias=False)
    (reason,) = refusals(model, "bank")
    assert "projection of tiny" in reason and "use adapter" in reason


def test_dropout_in_what_is_trained_is_refused_and_not_drawn(new_model) -> None:
    class Dropping(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(super().forward(inputs), 0.5, self.training)

    model = new_model("tiny", "full")
    model.tower.tower.projection = Dropping(96, 128, bias=False)
    assert "projection of tiny" in refusals(model, "bank")[0]


def test_nothing_is_changed_by_asking(new_model) -> None:
    model = new_model("timm/test_efficientnet", "full")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refusals(model, "bank")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("assignment", ["all", "best", "matching"])
@pytest.mark.parametrize("temperature", [1e-3, 0.1, 10.0])
def test_the_losses_are_told_apart_by_what_they_do(new_model, assignment, temperature) -> None:
    model = new_model("tiny", "adapter")
    alone = alignment_loss(temperature, 0.5, 0.5, 0.2, assignment, "bank")
    coupled = alignment_loss(temperature, 0.5, 0.5, 0.2, assignment, "batch")
    assert not couples_images(model, alone)
    assert couples_images(model, coupled)


def test_what_the_loss_depends_on(new_model) -> None:
    model = new_model("tiny", "adapter")
    stage_1 = pseudo_label_loss(torch.ones(3, 128), 0.1)
    assert not couples_images(model, stage_1)
    assert reached(model, BANK) == list(model.shared())
    assert reached(model, stage_1) == [n for n in model.shared() if not n.startswith("bank.")]
