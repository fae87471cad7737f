import numpy as np
import pytest

from hica.errors import DataError
from hica.images.decode import read_image
from hica.images.manifest import read_manifest
from hica.images.medmnist_reader import write_medmnist

CLASSES = ["normal", "pneumonia"]
COUNTS = {"train": 4, "val": 2, "test": 3}


def arrays(shape):
    generator = np.random.default_rng(0)
    content = {}
    for part, count in COUNTS.items():
        content[f"{part}_images"] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        content[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    return content


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 3), (5, 9, 9)])
def test_images_and_manifest(tmp_path, shape):
    content = arrays(shape)
    np.savez(tmp_path / "set.npz", **content)
    records = read_manifest(write_medmnist(tmp_path / "set.npz", CLASSES, tmp_path / "out"))
    assert [record.split for record in records] == ["train"] * 6 + ["test"] * 3
    assert [record.label for record in records[:4]] == CLASSES * 2
    pixels = np.asarray(read_image(records[1].image))
    expected = content["train_images"][1]
    if shape == (5, 9, 9):
        expected = expected[2]
    np.testing.assert_array_equal(pixels if expected.ndim == 3 else pixels[..., 0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_labels": None}, r"val_labels.*is this a MedMNIST file"),
        ({"train_labels": np.zeros((4, 14), np.uint8)}, r"train_labels: shape \(4, 14\)"),
        ({"test_labels": np.full((3, 1), 2, np.uint8)}, r"test_labels: label 2 but only 2 classes"),
    ],
)
def test_errors_name_file_and_array(tmp_path, change, message):
    content = {
        name: array for name, array in (arrays((9, 9)) | change).items() if array is not None
    }
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(DataError, match=rf"set\.npz: .*{message}"):
        write_medmnist(tmp_path / "set.npz", CLASSES, tmp_path / "out")
