from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from hica.errors import CheckpointError
from hica.regions.unet import Network, Shapes, UNet

from .conftest import bright_unet


def random_unet(channels, widths, classes, has_bias):
    """Every weight and statistic drawn, so that none can be forgotten unseen."""
    return drawn(Network(Shapes.usual(channels, widths, classes, has_bias)))


def drawn(network):
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            value.normal_(0, 0.5)
    return state


def slow_unet(state, image, depth):
    """The U-Net written out from the names of its weights; image [1, C, H, W]."""

    def double_conv(x, prefix):
        for conv, norm in ((0, 1), (3, 4)):
            weight = state[f"{prefix}.{conv}.weight"]
            x = functional.conv2d(x, weight, state.get(f"{prefix}.{conv}.bias"), padding=1)
            mean, var, gain, shift = (
                state[f"{prefix}.{norm}.{part}"].view(1, -1, 1, 1)
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (var + 1e-5).sqrt() * gain + shift).clamp(min=0)
        return x

    skips = [double_conv(image, "inc.double_conv")]
    for i in range(1, depth + 1):
        pooled = functional.max_pool2d(skips[-1], 2)
        skips.append(double_conv(pooled, f"down{i}.maxpool_conv.1.double_conv"))
    x = skips[-1]
    for j in range(1, depth + 1):
        weight, bias = state[f"up{j}.up.weight"], state[f"up{j}.up.bias"]
        x = functional.conv_transpose2d(x, weight, bias, stride=2)
        x = double_conv(torch.cat([skips[-1 - j], x], dim=1), f"up{j}.conv.double_conv")
    return functional.conv2d(x, state["outc.conv.weight"], state["outc.conv.bias"])


class MilesialDouble(nn.Sequential):
    """A double convolution as github.com/milesial/Pytorch-UNet has it (GPL: described, not copied).

    Conv3×3(in → mid), norm, ReLU, conv3×3(mid → out), norm, ReLU, below `double_conv`.
    """

    def __init__(self, inputs, outputs, middle=None):
        super().__init__()
        middle = middle or outputs
        layers = []
        for before, after in ((inputs, middle), (middle, outputs)):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.add_module("double_conv", nn.Sequential(*layers))


def bilinear_unet(first):
    """Parts of its `UNet(3, 2, bilinear=True)` of `first` channels, in place of 64, by name."""
    a, b, c = first, 2 * first, 4 * first  # the last step down is halved: 4 · first → 2 · first
    parts = {
        "inc": MilesialDouble(3, a),
        "down1": nn.ModuleDict(
            {"maxpool_conv": nn.Sequential(nn.MaxPool2d(2), MilesialDouble(a, b))}
        ),
        "down2": nn.ModuleDict(
            {"maxpool_conv": nn.Sequential(nn.MaxPool2d(2), MilesialDouble(b, c // 2))}
        ),
        "up1": nn.ModuleDict({"conv": MilesialDouble(c, b // 2, c // 2)}),
        "up2": nn.ModuleDict({"conv": MilesialDouble(b, a, b // 2)}),
        "outc": nn.ModuleDict({"conv": nn.Conv2d(a, 2, 1)}),
    }
    return nn.ModuleDict(parts).eval()


def run_bilinear(parts, image):
    """Its forward pass, written out."""
    one = parts["inc"](image)
    two = parts["down1"]["maxpool_conv"](one)
    x = parts["down2"]["maxpool_conv"](two)
    for step, skip in (("up1", two), ("up2", one)):
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = parts[step]["conv"](torch.cat([skip, x], dim=1))
    return parts["outc"]["conv"](x)


@torch.no_grad()
def test_bilinear_with_mask_values_as_the_training_there_saves_it(tmp_path):
    parts = bilinear_unet(4)
    drawn(parts)
    state = {**parts.state_dict(), "mask_values": [0, 255]}
    network = saved(state, tmp_path / "bilinear.pth")._network
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network(image), run_bilinear(parts, image), rtol=1e-4, atol=1e-4)


def saved(state, path):
    torch.save(state, path)
    return UNet(path)


def squares(*placed):
    """Grey [64, 64, 3] with squares of (row, column, side, level)."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    for row, column, side, level in placed:
        pixels[row : row + side, column : column + side] = level
    return pixels


@pytest.mark.parametrize(
    ("channels", "widths", "classes", "has_bias"),
    [(3, [2, 3, 4], 1, False), (1, [4, 5], 3, True), (3, [2, 3, 4, 5, 6], 2, False)],
)
def test_the_network_is_the_one_written_out(tmp_path, channels, widths, classes, has_bias):
    state = random_unet(channels, widths, classes, has_bias)
    network = saved(state, tmp_path / "random.pth")._network
    image = torch.rand(1, channels, 32, 32)
    expected = slow_unet(state, image, len(widths) - 1)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


def test_bright_squares_are_found_the_most_certain_first(tmp_path):
    unet = saved(bright_unet(), tmp_path / "bright.pth")
    first, second = unet(squares((4, 4, 20, 150), (40, 40, 8, 250)), None, 4)
    assert np.argwhere(first)[[0, -1]].tolist() == [[40, 40], [47, 47]]
    assert second.sum() == 400
    assert len(unet(squares((4, 4, 20, 150), (40, 40, 8, 250)), None, 1)) == 1


def test_specks_are_left_out(tmp_path):
    unet = saved(bright_unet(), tmp_path / "bright.pth")
    speck = squares((4, 4, 2, 255))  # 4 of 4096 pixels: below 0.1 %
    assert unet(speck, None, 4) == []
    assert len(replace(unet, min_area=0.0005)(speck, None, 4)) == 1


def test_each_class_has_components_of_its_own(tmp_path):
    """Class 1 from 0.25 of brightness, class 2 from 0.75: the inner square lies in the outer."""
    state = bright_unet(classes=3)
    state["outc.conv.weight"][1:, 0, 0, 0] = torch.tensor([40.0, 80.0])
    state["outc.conv.bias"][1:] = torch.tensor([-10.0, -40.0])
    unet = saved(state, tmp_path / "three.pth")
    regions = unet(squares((8, 8, 32, 128), (16, 16, 8, 255)), None, 4)
    assert sorted(int(region.sum()) for region in regions) == [64, 32**2 - 64]


@pytest.mark.parametrize("classes", [1, 2])
def test_grey_and_rgb_see_the_same_in_a_grey_image(tmp_path, classes):
    pixels = squares((4, 4, 20, 150), (40, 40, 8, 250))
    grey, rgb = (
        saved(bright_unet(channels, classes), tmp_path / f"{channels}.pth")(pixels, None, 4)
        for channels in (1, 3)
    )
    assert len(grey) == 2
    assert np.array_equal(grey, rgb)


def test_a_side_that_cannot_be_halved_is_padded(tmp_path):
    unet = saved(bright_unet(), tmp_path / "bright.pth")
    (found,) = unet(squares((4, 4, 20, 250))[:63, :63], None, 4)
    assert found.shape == (63, 63)
    assert found.sum() == 400


def test_safetensors_and_wrapped_state_dicts_are_read(tmp_path, images):
    state = bright_unet()
    expected = saved(state, tmp_path / "plain.pth")(images["noise"], None, 4)
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    assert len(expected) == 4
    torch.save({"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}}, tmp_path / "m.pt")
    torch.save({**state, "mask_values": [0, 1]}, tmp_path / "v.pth")
    for name in ("w.safetensors", "w.pt", "m.pt", "v.pth"):
        assert np.array_equal(UNet(tmp_path / name)(images["noise"], None, 4), expected)


def test_loading_leaves_the_callers_seed_alone(tiny_unet, images):
    before = torch.get_rng_state()
    UNet(tiny_unet)(images["noise"], None, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_version_names_the_weights_not_their_path(tiny_unet, tmp_path):
    moved = tmp_path / "moved.pth"
    moved.write_bytes(tiny_unet.read_bytes())
    assert UNet(moved).version == UNet(tiny_unet, device="cuda").version
    moved.write_bytes(b"other weights")
    assert UNet(moved).version != UNet(tiny_unet).version


def test_missing_checkpoint_names_the_path_and_the_remedy(tmp_path, images):
    missing = UNet(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file.*regions\.checkpoint"):
        missing(images["noise"], None, 1)
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        _ = missing.version


def test_unreadable_checkpoint_names_the_file(tmp_path, images):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"broken\.pth: not a weights file"):
        UNet(path)(images["noise"], None, 1)


def test_torchscript_which_is_code_is_not_run(tmp_path, images):
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Conv2d(3, 1, 1)).save(str(path))
    with pytest.raises(CheckpointError, match=r"script\.pt: not a weights file"):
        UNet(path)(images["noise"], None, 1)


def test_a_pickled_network_is_not_unpickled(tmp_path, images):
    torch.save(Network(Shapes.usual(3, [2, 3], 1)), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"whole\.pt: not a weights file"):
        UNet(tmp_path / "whole.pt")(images["noise"], None, 1)


@pytest.mark.parametrize(
    "state",
    [
        {"conv1.weight": torch.zeros(1)},
        {"inc.double_conv.0.weight": torch.zeros(2), "outc.conv.weight": torch.zeros(1, 2, 1, 1)},
        bright_unet(channels=4),
    ],
    ids=["resnet", "flat", "four channels"],
)
def test_weights_of_another_network_are_refused(tmp_path, images, state):
    with pytest.raises(CheckpointError, match=r"other\.pth: not a plain U-Net.*Pytorch-UNet"):
        saved(state, tmp_path / "other.pth")(images["noise"], None, 1)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("up1.up.weight", None, r"missing: up1\.up\.weight"),
        ("up1.attention.weight", torch.zeros(1), r"unexpected: up1\.attention\.weight"),
        ("up1.up.weight", torch.zeros(4, 3, 3, 3), r"of another shape: up1\.up\.weight"),
    ],
)
def test_shapes_that_do_not_fit_are_named(tmp_path, images, name, value, problem):
    state = {**bright_unet(), name: value}
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    unet = saved(state, tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError,
        match=rf"odd\.pth: not weights of a U-Net of widths \[2, 3, 4\](?s:.*){problem}",
    ):
        unet(images["noise"], None, 1)
