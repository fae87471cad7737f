"""Procedural ultrasound and X-ray phantoms with lesion masks, for studies without patient data.

The classes of a modality differ in shape and texture. Brightness is drawn without looking at the
class: every image has the same mean and spread, every lesion the same contrast to its
surroundings, and the healthy class shows a diffuse shade of that contrast, too.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from hica.errors import ConfigurationError
from hica.images.manifest import Record, write_manifest
from hica.progress import track
from hica_simulations.phantoms.fields import Field, Mask
from hica_simulations.phantoms.ultrasound import ultrasound
from hica_simulations.phantoms.xray import xray

Modality = Literal["ultrasound", "xray"]

VERSION = 1
"""To be raised whenever the same seed would draw another image."""
OVERSAMPLING = 2
"""Phantoms are drawn this much finer than they are written, so that edges are smooth."""
MEAN, SPREAD = 105.0, 42.0
"""Mean and standard deviation of the grey levels of every image, before a site's shift."""

FINDINGS: dict[Modality, dict[str, tuple[str, ...]]] = {
    "ultrasound": {
        "normal": ("parallel tissue layers",),
        "smooth": ("oval shape", "smooth margin", "fine homogeneous inner echoes"),
        "spiculated": ("taller than wide", "spiculated margin", "coarse inner echoes"),
    },
    "xray": {
        "clear": ("clear lung fields",),
        "nodular": ("round opacity", "sharply outlined opacity"),
        "reticular": ("net-like opacity", "blurred outline"),
    },
}
"""What is seen in the images of each class: the labels and findings of the manifests."""


@dataclass(frozen=True)
class SiteShift:
    """How one site's machine departs from the average one.

    Attributes:
        name: The site's name, and its folder's.
        gain: Factor on all grey levels.
        contrast: Factor on their distance from the mean.
        blur: Standard deviation of a Gaussian blur, in pixels of the written image.
        speckle: Factor on the ultrasound speckle (in decibels) or the X-ray's quantum noise.
    """

    name: str
    gain: float = 1.0
    contrast: float = 1.0
    blur: float = 0.0
    speckle: float = 1.0


def draw_site(
    root: Path, modality: Modality, site: SiteShift, per_class: int, size: int = 96, seed: int = 0
) -> Path:
    """Write `per_class` images of each class and their masks; returns `root/SITE/manifest.csv`.

    An image depends on nothing but (seed, modality, site, class, number): more images, further
    sites or another machine leave it as it is (up to a grey level where a machine rounds apart).

    `root` gets a folder of the site's name; `size` is the side of an image in pixels.

    Raises:
        ConfigurationError: A modality that does not exist.
    """
    folder = root / site.name
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    wanted = [(label, number) for label in labels_of(modality) for number in range(per_class)]
    records = []
    for label, number in track(wanted, f"{site.name}: drawing phantoms"):
        rng = _generator(f"{seed}|{modality}|{site.name}|{label}|{number}")
        pixels, mask = draw_phantom(modality, label, site, size, rng)
        image_file = folder / "images" / f"{label}_{number:04d}.png"
        mask_file = folder / "masks" / f"{label}_{number:04d}.png"
        Image.fromarray(pixels).save(image_file)
        Image.fromarray(mask).save(mask_file)
        records.append(
            Record(
                image=image_file,
                label=label,
                patient_id=f"{site.name}-{label}-{number:04d}",
                mask=mask_file,
                findings=FINDINGS[modality][label],
            )
        )
    manifest = folder / "manifest.csv"
    write_manifest(manifest, records)
    return manifest


def labels_of(modality: Modality) -> list[str]:
    """The classes of a modality, the healthy one first.

    Raises:
        ConfigurationError: A modality that does not exist.
    """
    if modality not in FINDINGS:
        known = ", ".join(FINDINGS)
        raise ConfigurationError(f"phantoms: no modality {modality!r}; choose one of {known}")
    return list(FINDINGS[modality])


def draw_phantom(
    modality: Modality, label: str, site: SiteShift, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Mask]:
    """Draw one image as `site` would have taken it.

    Returns:
        Grey levels `uint8 [size, size]` and the lesion's mask `bool [size, size]`, empty for the
        healthy class.
    """
    draw: Callable[[str, int, float, np.random.Generator], tuple[Field, Mask]]
    draw = ultrasound if modality == "ultrasound" else xray
    fine, fine_mask = draw(label, size * OVERSAMPLING, site.speckle, rng)
    image = _shrink(fine)
    mask = _shrink(fine_mask.astype(float)) > 0.5
    image = MEAN + SPREAD * (image - image.mean()) / image.std()
    image = site.gain * (MEAN + site.contrast * (image - MEAN))
    if site.blur > 0:
        image = gaussian_filter(image, site.blur)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def _generator(key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _shrink(field: Field) -> Field:
    """Average over squares of `OVERSAMPLING` pixels."""
    side = len(field) // OVERSAMPLING
    blocks = field.reshape(side, OVERSAMPLING, side, OVERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))
