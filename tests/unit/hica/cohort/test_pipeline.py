from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hica.cohort.pipeline import Pipeline
from hica.errors import DataError
from hica.images.cache import TensorCache
from hica.images.manifest import read_manifest
from hica.images.preprocess import Preprocess
from hica.regions import build
from hica.text.bank import TextBank
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica.towers.tiny import TinyImageTower

TEXTS = [("round", ["one"], ["x", "y"], False), ("square", ["two"], ["z"], False)]
BANK = TextBank.assemble(TEXTS, torch.eye(2, 128), torch.eye(3, 128))


class Counted:
    """A pipeline that counts the images its tower is shown."""

    def __init__(self, root, tower=None, train="adapter", method="masks", count=2):
        adapted = adapt(tower or load_image_tower("tiny"), train, adapter_width=8)
        cache = TensorCache(root / "cache")
        self.pipeline = Pipeline(adapted, build(method), count, cache, torch.device("cpu"))
        self.images = 0
        frozen = adapted.frozen

        def counting(pixels, weights):
            self.images += 1
            return frozen(pixels, weights)

        adapted.frozen = counting

    def prepare(self, records, views=2):
        labels = [TEXTS_INDEX.get(record.label, -1) for record in records]
        return self.pipeline.examples(records, labels, BANK, views, "preparing")


TEXTS_INDEX = {"round": 0, "square": 1}


@pytest.fixture
def records(draw_site):
    return read_manifest(draw_site("north", images=4).parent / "manifest.csv")


def assert_equal(one, other):
    for name in ("hidden", "region_weights", "valid", "labels", "positives"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.groups == other.groups


def test_shapes_types_and_labels(records, tmp_path):
    records = [replace(records[0], findings=("y",)), replace(records[1], label=None), records[3]]
    examples = Counted(tmp_path).prepare(records, views=3)
    assert examples.hidden.shape == (3, 3, 1 + 2, 128)
    assert examples.hidden.dtype == examples.region_weights.dtype == torch.float16
    assert examples.region_weights.shape == (3, 3, 2, 8, 8)
    # One connected mass in the round image; eight stripes in the square one, of which two count.
    assert examples.valid[:, 0].tolist() == [[True, False], [True, True], [True, True]]
    assert examples.labels.tolist() == [0, -1, 1]
    assert examples.positives.int().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert examples.groups == ("patient:p0", "patient:p1", "patient:p3")


@pytest.mark.parametrize("train", ["adapter", "last-1", "full"])
def test_what_is_cached_is_what_the_tower_gives(records, tmp_path, train):
    counted = Counted(tmp_path, train=train)
    examples = counted.prepare(records[:1])
    tower = counted.pipeline.tower
    image = Image.open(records[0].image).convert("RGB")
    pixels = tower.tower.preprocess.pixels(image)
    both = torch.stack([pixels, pixels.flip(-1)])  # the first two views
    expected = tower.frozen(both, examples.region_weights[0].float())
    if train == "full":
        assert examples.hidden.dtype == torch.uint8
    torch.testing.assert_close(examples.hidden[0].float(), expected.float(), rtol=2e-3, atol=2e-3)


def test_a_second_preparation_shows_the_tower_nothing(records, tmp_path):
    first = Counted(tmp_path)
    made = first.prepare(records)
    assert first.images == len(records)
    second = Counted(tmp_path)
    read = second.prepare(records)
    assert second.images == 0
    assert_equal(made, read)


def test_what_is_kept_lies_in_memory_as_what_was_computed(records, tmp_path):
    tower = load_image_tower("tiny").to(memory_format=torch.channels_last)
    first, second = (Counted(tmp_path, tower, train="last-1").prepare(records) for _ in range(2))
    assert torch.equal(first.hidden, second.hidden)
    assert first.hidden.stride() == second.hidden.stride()  # sums in another order round otherwise


def test_new_images_are_added_to_what_is_there(records, tmp_path):
    Counted(tmp_path).prepare(records[:3])
    second = Counted(tmp_path)
    second.prepare(records)
    assert second.images == 1


def test_a_renamed_image_is_known_by_its_bytes(records, tmp_path):
    Counted(tmp_path).prepare(records[:1])
    moved = tmp_path / "moved.png"
    moved.write_bytes(records[0].image.read_bytes())
    second = Counted(tmp_path)
    second.prepare([replace(records[0], image=moved)])
    assert second.images == 0


def other_tower():
    return load_image_tower("tiny", seed=1)


def other_transform():
    return TinyImageTower(0, Preprocess(64, (0.4,) * 3, (0.5,) * 3, "bilinear", "squash"))


@pytest.mark.parametrize(
    ("settings", "views"),
    [
        ({"method": "otsu"}, 2),
        ({"count": 3}, 2),
        ({"train": "last-1"}, 2),
        ({"tower": other_tower}, 2),
        ({"tower": other_transform}, 2),
        ({}, 3),
    ],
)
def test_another_tower_region_method_or_number_of_views_is_computed_anew(
    records, tmp_path, settings, views
):
    Counted(tmp_path).prepare(records[:2])
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    other = Counted(tmp_path, **settings)
    other.prepare(records[:2], views)
    assert other.images == 2


def test_pixels_kept_for_full_training_depend_on_the_transform(records, tmp_path):
    Counted(tmp_path, train="full").prepare(records[:2])
    shortest = Preprocess(64, (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest")
    other = Counted(tmp_path, TinyImageTower(0, shortest), train="full")
    other.prepare(records[:2])
    assert other.images == 2


@pytest.mark.parametrize(
    ("train", "shared"), [("adapter", False), ("last-1", False), ("full", True)]
)
def test_what_a_gpu_rounded_is_not_taken_for_what_a_cpu_computes(records, tmp_path, train, shared):
    cpu = Counted(tmp_path, train=train).pipeline
    gpu = replace(cpu, device=torch.device("cuda"))
    assert (cpu._key(records[0], 2, None) == gpu._key(records[0], 2, None)) == shared


@pytest.mark.parametrize("column", ["image", "mask"])
def test_an_exchanged_image_or_mask_is_computed_anew(records, tmp_path, column):
    before = Counted(tmp_path).prepare(records[:1])
    file = getattr(records[0], column)
    Image.fromarray(255 - np.asarray(Image.open(file).convert("L"))).save(file)
    again = Counted(tmp_path)
    after = again.prepare(records[:1])
    assert again.images == 1
    assert not torch.equal(before.hidden, after.hidden)


def test_a_mask_taken_away_is_noticed(records, tmp_path):
    Counted(tmp_path).prepare(records[:1])
    again = Counted(tmp_path)
    examples = again.prepare([replace(records[0], mask=None)])
    assert again.images == 1
    assert not examples.valid.any()


# --- Files that cannot be used -------------------------------------------------------------------


def test_a_truncated_image_is_named(records, tmp_path):
    file = records[2].image
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"north/2\.png: cannot be decoded.*truncated"):
        Counted(tmp_path).prepare(records)


def test_an_unreadable_image_is_named(records, tmp_path):
    records[2].image.unlink()
    with pytest.raises(DataError, match=r"north/2\.png: cannot be read: No such file"):
        Counted(tmp_path).prepare(records)


def test_a_mask_of_another_size_is_named_with_both_sizes(records, tmp_path):
    Image.new("L", (24, 48)).save(records[2].mask)
    with pytest.raises(DataError, match=r"2-mask\.png: the mask is 24×48 px .* 48×48 px"):
        Counted(tmp_path).prepare(records)


def test_what_was_prepared_before_a_bad_image_is_not_lost(records, tmp_path):
    bytes_before = records[3].image.read_bytes()
    records[3].image.write_bytes(b"not an image")
    with pytest.raises(DataError):
        Counted(tmp_path).prepare(records)
    records[3].image.write_bytes(bytes_before)
    again = Counted(tmp_path)
    again.prepare(records)
    assert again.images == 1
