"""What every region method promises, over all of `METHODS`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hica.errors import ConfigurationError
from hica.regions import METHODS, build, extract
from hica.study.sections import RegionsSection

COUNT = 3
NEEDS = ["sam", "hf-sam", "token-cut", "unet"]
IMAGES = ["black", "white", "noise", "lesion", "tiny-lesion"]


@pytest.fixture
def method(request):
    if request.param not in NEEDS:
        return build(request.param)
    made = build(request.param, **request.getfixturevalue("needs")[request.param])
    if request.param not in ("sam", "hf-sam"):
        return made
    # Random weights rate themselves low: every mask is let through.
    lowest = {"sam": 0.0, "hf-sam": float("-inf")}[request.param]
    return replace(made, points_per_side=1, min_predicted_iou=lowest, min_stability=0.0)


def to_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("method", METHODS, indirect=True)
@pytest.mark.parametrize("image", IMAGES)
def test_contract(method, image, images):
    pixels = to_tensor(images[image])
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[40:42, 20:22] = mask[5:20, 5:20] = True

    regions = extract(method, pixels, mask, COUNT)

    assert regions.dtype == torch.bool
    assert regions.shape[1:] == (64, 64)
    assert len(regions) <= COUNT
    assert regions.flatten(1).any(dim=1).all()
    areas = regions.sum(dim=(1, 2)).tolist()
    assert areas == sorted(areas, reverse=True)
    assert torch.equal(regions, extract(method, pixels, mask, COUNT))


@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_finds_something_in_an_image_with_a_lesion(method, images):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 14:34] = True
    assert len(extract(method, to_tensor(images["lesion"]), mask, COUNT)) >= 1


@pytest.mark.parametrize("name", ["otsu", "superpixels"])
@pytest.mark.parametrize("image", ["black", "white"])
def test_nothing_to_see_gives_no_regions(name, image, images):
    assert extract(build(name), to_tensor(images[image]), None, COUNT).shape == (0, 64, 64)


def test_equal_areas_keep_the_methods_order():
    regions = extract(build("grid"), torch.zeros(3, 8, 8, dtype=torch.uint8), None, 4)
    assert [region.nonzero()[0].tolist() for region in regions] == [[0, 0], [0, 4], [4, 0], [4, 4]]


def test_versions_differ_between_methods_and_with_every_parameter(needs):
    versions = [build(name, **needs.get(name, {})).version for name in METHODS]
    assert len(set(versions)) == len(METHODS)
    for name, parameter in [
        ("masks", "min_area"),
        ("otsu", "smoothing"),
        ("otsu", "max_border"),
        ("superpixels", "segments"),
        ("hf-sam", "max_overlap"),
        ("token-cut", "threshold"),
        ("unet", "min_area"),
    ]:
        method = build(name, **needs.get(name, {}))
        assert replace(method, **{parameter: 0.123}).version != method.version


def test_the_study_offers_exactly_these_methods():
    allowed = RegionsSection.model_fields["method"].annotation
    assert set(allowed.__args__) == set(METHODS)


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"regions\.method.*'ostu'.*otsu, superpixels"):
        build("ostu")


@pytest.mark.parametrize("name", ["sam", "hf-sam", "unet"])
def test_a_model_without_checkpoint_names_the_setting(name):
    with pytest.raises(ConfigurationError, match=rf'regions\.checkpoint.*"{name}" needs'):
        build(name)
    with pytest.raises(ValueError, match=rf'"{name}" needs regions\.checkpoint'):
        RegionsSection(method=name)


def test_a_checkpoint_lies_below_the_folder_of_weights(tiny_sam, tiny_unet, images):
    for name, path in (("sam", tiny_sam), ("unet", tiny_unet)):
        below = build(name, checkpoint=path.name, weights=path.parent)
        assert below.version == build(name, checkpoint=path).version


def test_token_cut_without_a_tower_is_refused():
    with pytest.raises(ConfigurationError, match=r"token-cut.*image tower.*regions\.method"):
        build("token-cut")


def test_extract_does_not_change_its_input(images):
    pixels = to_tensor(images["noise"])
    before = pixels.clone()
    for name in ("otsu", "superpixels", "grid"):
        extract(build(name), pixels, None, COUNT)
    assert torch.equal(pixels, before)
    assert np.array_equal(images["noise"], before.permute(1, 2, 0).numpy())
