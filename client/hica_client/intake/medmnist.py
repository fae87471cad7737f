"""MedMNIST's files: arrays `train_images`, `train_labels`, … in one .npz, read one by one."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SPLITS = ("train", "val", "test")
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError)
"""What a damaged archive makes the libraries raise."""
MOST_BYTES = 2**30
"""Of one picture."""


class Listed(NamedTuple):
    """A picture of such a file, not read yet."""

    name: str
    """Its place: `train/17`."""
    split: str
    label: str
    """The number of its class; empty where it has several at once."""


class Entry(NamedTuple):
    """A picture of such a file."""

    name: str
    """Its place: `train/17`."""
    pixels: npt.NDArray[np.uint8]
    """`[H, W]` or `[H, W, 3]`; of a volume, its middle slice."""
    way: str
    """By which way it came to 8 bits, in words."""

    @property
    def image(self) -> Image.Image:
        """As 8-bit RGB, as all pictures are read."""
        return Image.fromarray(self.pixels).convert("RGB")


def is_medmnist(path: Path) -> bool:
    """Whether a NumPy archive is whole and has pictures and labels as MedMNIST writes them."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
            names = set(archive.namelist())
            splits = [split for split in SPLITS if f"{split}_images.npy" in names]
            return bool(splits) and all(_is_pair(archive, split) for split in splits)
    except (*BROKEN, KeyError, NotImplementedError, RuntimeError):
        return False


def listed(path: Path) -> Iterator[Listed]:
    """Names, splits and labels of all pictures.

    Raises:
        ValueError: It is cut short or damaged.
    """
    for split, labels in _arrays(path, "labels"):
        for index, label in enumerate(labels):
            yield Listed(f"{split}/{index}", split, str(int(label[0])) if label.size == 1 else "")


def entries(path: Path) -> Iterator[Entry]:
    """The pictures, one after the other: never the whole of the file in memory.

    Raises:
        ValueError: It is cut short or damaged.
    """
    for split, pictures in _arrays(path, "images"):
        for index, pixels in enumerate(pictures):
            volume = pixels.ndim - (pixels.shape[-1] in (1, 3)) == 3
            plane = pixels[len(pixels) // 2] if volume else pixels
            plane = plane[..., 0] if plane.ndim == 3 and plane.shape[-1] == 1 else plane
            way = "MedMNIST, middle slice" if volume else "MedMNIST"
            yield Entry(f"{split}/{index}", plane, way)


def _arrays(path: Path, what: str) -> Iterator[tuple[str, Iterator[npt.NDArray[Any]]]]:
    """The array of each split, row by row."""
    try:
        with zipfile.ZipFile(path) as archive:
            for split in SPLITS:
                if f"{split}_{what}.npy" in archive.namelist():
                    with archive.open(f"{split}_{what}.npy") as file:
                        yield split, _rows(file)
    except BROKEN as error:
        raise ValueError(str(error)) from None


def _rows(file: IO[bytes]) -> Iterator[npt.NDArray[Any]]:
    """The rows of an array, each flat where the array has two axes."""
    (count, *shape), dtype = _header(file)
    size = math.prod(shape) * dtype.itemsize
    for _ in range(count):
        data = file.read(size)
        if len(data) != size:
            raise ValueError("the file is cut short")
        yield np.frombuffer(data, dtype).reshape(shape or 1)


def _is_pair(archive: zipfile.ZipFile, split: str) -> bool:
    """Whether a split has pictures of 8 bits, and as many labels."""
    with archive.open(f"{split}_images.npy") as file:
        (count, *shape), dtype = _header(file)
    with archive.open(f"{split}_labels.npy") as file:
        (labels, *_), kind = _header(file)
    fits = len(shape) in (2, 3, 4) and math.prod(shape) <= MOST_BYTES
    return fits and dtype == np.uint8 and kind.kind in "iuf" and count == labels


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array whose rows follow each other.

    Raises:
        ValueError: It is no such array, or has objects, which are never unpacked.
    """
    major, _ = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if major not in read:
        raise ValueError("a version of NumPy's format that is not known")
    shape, by_column, dtype = read[major](file)
    if by_column or dtype.hasobject or not shape:
        raise ValueError("an array of another form")
    return shape, dtype
