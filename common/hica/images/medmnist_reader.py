"""MedMNIST .npz → PNG files and a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hica.errors import DataError
from hica.images.manifest import Record, write_manifest
from hica.progress import track

PARTS = {"train": "train", "val": "train", "test": "test"}
"""Where each part goes: few-shot learning has no use for a validation set beyond its shots."""


def write_medmnist(npz: Path, classes: Sequence[str], folder: Path) -> Path:
    """Write the images of a MedMNIST file as PNG, with their manifest.

    Args:
        npz: A file with `train_images [n, H, W]`, `[n, H, W, 3]` or `[n, D, H, W]` (the middle
            slice is taken), `train_labels [n, 1]`, and likewise for `val` and `test`.
        classes: Class names in the order of the numeric labels.
        folder: Receives `images/` and `manifest.csv`.

    Returns:
        Path of the manifest.

    Raises:
        DataError: The file lacks an array, has several labels an image, or labels beyond
            `classes`.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for part, split in PARTS.items():
        images, labels = _part(npz, part)
        if labels.max(initial=0) >= len(classes):
            raise DataError(
                f"{npz}: {part}_labels: label {labels.max()} but only {len(classes)} classes are "
                f"named ({', '.join(classes)}); name {labels.max() + 1}"
            )
        rows = list(zip(images, labels, strict=True))
        for number, (pixels, label) in enumerate(track(rows, f"writing {part} images")):
            path = folder / "images" / f"{part}_{number:06d}.png"
            Image.fromarray(pixels).save(path)
            records.append(Record(path, label=classes[label], split=split))
    manifest = folder / "manifest.csv"
    write_manifest(manifest, records)
    return manifest


def _part(npz: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images `[n, H, W]` or `[n, H, W, 3]` and labels `[n]` of one part."""
    with np.load(npz) as arrays:
        try:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        except KeyError as error:
            raise DataError(f"{npz}: {error}; is this a MedMNIST file?") from None
    if labels.shape != (len(images), 1):
        raise DataError(
            f"{npz}: {part}_labels: shape {labels.shape}, expected ({len(images)}, 1); sets with "
            "several labels an image are not supported"
        )
    if images.ndim == 4 and images.shape[-1] != 3:
        images = images[:, images.shape[1] // 2]
    return images, labels[:, 0].astype(np.int64)
