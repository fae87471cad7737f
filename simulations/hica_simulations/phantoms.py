"""Procedural ultrasound and X-ray phantoms with lesion masks, for studies without patient data.

The classes of a modality differ in shape and texture. Brightness is drawn without looking at the
class: every image has the same mean and spread, every lesion the same contrast to its
surroundings, and the healthy class shows a diffuse shade of that contrast, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from hica.errors import ConfigurationError
from hica.images.manifest import Record, write_manifest
from hica.progress import track

Modality = Literal["ultrasound", "xray"]
Field = NDArray[np.float64]
Mask = NDArray[np.bool_]

VERSION = 1
"""To be raised whenever the same seed would draw another image."""
OVERSAMPLING = 2
"""Phantoms are drawn this much finer than they are written, so that edges are smooth."""
MEAN, SPREAD = 105.0, 42.0
"""Mean and standard deviation of the grey levels of every image, before a site's shift."""
ANGLES: Field = np.linspace(-np.pi, np.pi, 720, endpoint=False)
"""Directions from a lesion's centre at which its outline is drawn."""

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


def make_phantoms(
    root: Path,
    modality: Modality,
    sites: list[SiteShift],
    per_class: int,
    size: int = 96,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `per_class` images a class and site, their masks and one manifest a site.

    An image depends on nothing but (seed, modality, site, class, number): more images, further
    sites or another machine leave it as it is (up to a grey level where a machine rounds apart).

    Returns:
        Each site's manifest, `root/SITE/manifest.csv`.

    Raises:
        ConfigurationError: A modality that does not exist.
    """
    return {site.name: _make_site(root, modality, site, per_class, size, seed) for site in sites}


def _make_site(
    root: Path, modality: Modality, site: SiteShift, per_class: int, size: int, seed: int
) -> Path:
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
    draw = _ultrasound if modality == "ultrasound" else _xray
    fine, fine_mask = draw(label, size * OVERSAMPLING, site.speckle, rng)
    image = _shrink(fine)
    mask = _shrink(fine_mask.astype(float)) > 0.5
    image = MEAN + SPREAD * (image - image.mean()) / image.std()
    image = site.gain * (MEAN + site.contrast * (image - MEAN))
    if site.blur > 0:
        image = gaussian_filter(image, site.blur)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


# --- Ultrasound: scatterers of a layered breast, seen through a point spread function ------------


def _ultrasound(
    label: str, size: int, speckle: float, rng: np.random.Generator
) -> tuple[Field, Mask]:
    """Log-compressed echo amplitude in decibels `[size, size]` and the lesion's mask."""
    y, x = _grid(size)
    tissue = _breast_layers(x, y, rng)
    contrast = rng.uniform(11.0, 15.0)  # decibels by which the lesion is darker
    area = rng.uniform(0.07, 0.12)  # share of the image, the same draw for all classes
    centre = rng.uniform(0.2, 0.8), rng.uniform(0.36, 0.62)
    dx, dy = _turned(x - centre[0], y - centre[1], rng.uniform(-0.4, 0.4))
    radius = np.interp(np.arctan2(dy, dx), ANGLES, _outline(label, area, rng), period=2 * np.pi)
    distance = np.hypot(dx, dy) / radius
    inside = distance < 1.0
    if label == "normal":  # a fatty shade without an outline: layers run through it unbroken
        echo = tissue - contrast * gaussian_filter(inside.astype(float), 0.07 * size)
        inside = np.zeros_like(inside)
    else:
        grain, depth = (0.026, 8.0) if label == "spiculated" else (0.012, 1.0)
        texture = depth * _noise(rng, size, grain * size, grain * size)
        texture -= texture[inside].mean()
        surround = tissue[(distance > 1.0) & (distance < 1.6)].mean()
        soft = gaussian_filter(inside.astype(float), 0.006 * size)
        echo = tissue + soft * (surround - contrast + texture - tissue)
    echo = echo + _posterior(x, y, centre, area, rng)
    return _insonify(echo, speckle, rng), inside


def _breast_layers(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Echo level in decibels of skin, fat, glandular tissue and muscle with their fasciae."""
    size = len(x)
    tilt = rng.uniform(-0.08, 0.08) * (x - 0.5)
    wave = [0.02 * _noise(rng, size, 4 * size, 0.16 * size)[:1] for _ in range(3)]
    skin = 0.05 + 0.2 * tilt
    fat = rng.uniform(0.14, 0.28) + tilt + wave[0]
    gland = rng.uniform(0.66, 0.8) + tilt + wave[1]
    muscle = gland + rng.uniform(0.14, 0.2) + 0.3 * wave[2]
    lobules = _noise(rng, size, 0.03 * size, 0.09 * size)
    septa = np.exp(-((lobules / 0.12) ** 2))
    clouds = _noise(rng, size, 0.06 * size, 0.09 * size)
    fibres = np.sin(2 * np.pi * (y - gland) * rng.uniform(28, 40) + 1.5 * lobules)
    strands = _noise(rng, size, 0.014 * size, 0.07 * size)
    levels = np.full_like(x, -4.0) + 3.0 * lobules  # below the muscle
    levels = np.where(y < muscle, -7.0 + 4.5 * fibres, levels)
    levels = np.where(y < gland, 1.0 + 2.0 * strands + 2.5 * clouds, levels)
    levels = np.where(y < fat, -8.0 + 7.0 * septa, levels)
    levels = np.where(y < skin, 7.0, levels)
    for boundary in (skin, fat, gland, muscle):
        levels = levels + 7.0 * np.exp(-(((y - boundary) / 0.008) ** 2))
    return levels


def _posterior(
    x: Field, y: Field, centre: tuple[float, float], area: float, rng: np.random.Generator
) -> Field:
    """Shadow or enhancement below the lesion in decibels, drawn without looking at the class."""
    strength = rng.uniform(-5.0, 5.0)
    width = 0.7 * np.sqrt(area / np.pi)
    beam = np.exp(-(((x - centre[0]) / width) ** 4))
    below = 1.0 / (1.0 + np.exp(-(y - centre[1] - width) / 0.03))
    cast: Field = strength * beam * below
    return cast


def _insonify(echo: Field, speckle: float, rng: np.random.Generator) -> Field:
    """Fully developed speckle: complex Gaussian scatterers through the point spread function.

    The envelope is averaged over three independent looks (spatial compounding), compressed to
    decibels, attenuated with depth and cut at a dynamic range of 55 dB.
    """
    size = len(echo)
    amplitude = 10.0 ** (echo / 20.0)
    spread = 0.006 * size, 0.011 * size  # axial, lateral standard deviation of the beam
    envelope = np.zeros_like(echo)
    for _ in range(3):
        real = gaussian_filter(amplitude * rng.standard_normal(echo.shape), spread)
        imaginary = gaussian_filter(amplitude * rng.standard_normal(echo.shape), spread)
        envelope += np.hypot(real, imaginary)
    seen = 20.0 * np.log10(envelope + 1e-6)
    clean = 10.0 * np.log10(gaussian_filter(amplitude**2, spread))
    clean += seen.mean() - clean.mean()
    decibels = clean + speckle * (seen - clean)
    decibels = decibels - rng.uniform(4.0, 9.0) * np.linspace(0.0, 1.0, size)[:, None] ** 2
    top = np.quantile(decibels, 0.998)
    compressed: Field = np.clip(decibels, top - 55.0, top)
    return compressed


def _outline(label: str, area: float, rng: np.random.Generator) -> Field:
    """Radius of the lesion at each of `ANGLES`, enclosing `area`."""
    if label == "smooth":
        radius = _oval(rng.uniform(1.3, 1.8)) * _wobble(0.03, rng)
    elif label == "spiculated":
        radius = _oval(rng.uniform(0.65, 0.9)) * _wobble(0.08, rng) * _spicules(rng)
    else:
        radius = _oval(rng.uniform(0.7, 1.8)) * _wobble(0.06, rng)
    outline: Field = radius * np.sqrt(area / (np.pi * np.mean(radius**2)))
    return outline


def _oval(aspect: float) -> Field:
    """An ellipse `aspect` times as wide as tall."""
    radius: Field = (np.cos(ANGLES) ** 2 / aspect + np.sin(ANGLES) ** 2 * aspect) ** -0.5
    return radius


def _wobble(amount: float, rng: np.random.Generator) -> Field:
    """A smooth irregularity: harmonics 2 to 5 of random phase."""
    waves = [np.cos(k * ANGLES + rng.uniform(0, 2 * np.pi)) for k in range(2, 6)]
    wobble: Field = 1.0 + amount * np.sum(waves, axis=0)
    return wobble


def _spicules(rng: np.random.Generator) -> Field:
    """Narrow rays of random length all around."""
    count = int(rng.integers(9, 14))
    rays = np.ones_like(ANGLES)
    for number in range(count):
        direction = 2 * np.pi * (number + rng.uniform(-0.25, 0.25)) / count
        away = np.abs(np.angle(np.exp(1j * (ANGLES - direction))))
        rays += rng.uniform(0.5, 1.3) * np.exp(-away / 0.09)
    return rays


# --- X-ray: thickness of a chest, projected ------------------------------------------------------


def _xray(label: str, size: int, noise: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    """Projected thickness `[size, size]`, air dark and bone bright, and the lesion's mask."""
    y, x = _grid(size)
    x, y = _turned(x - 0.5, y - 0.5, rng.uniform(-0.06, 0.06))
    scale = rng.uniform(0.92, 1.06)
    x, y = x / scale + rng.uniform(-0.03, 0.03), y / scale + rng.uniform(-0.03, 0.03) + 0.5
    lungs = _lungs(x, y, rng)
    chest = _chest(x, y, lungs, rng)
    opacity, mask = _opacity(label, x, y, lungs, rng)
    total = rng.uniform(0.018, 0.023)  # thickness summed over the image, whatever the class
    chest = chest + opacity * (total / opacity.mean())
    grain = _noise(rng, size, 0.004 * size, 0.004 * size)
    return gaussian_filter(chest, 0.004 * size) + 0.02 * noise * grain, mask


def _lungs(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Air of both lungs beside the heart, soft, in 0..1; `x` is measured from the spine."""
    size = len(x)
    field = np.zeros_like(x)
    for side in (-1.0, 1.0):
        centre = side * rng.uniform(0.215, 0.235)
        dome = rng.uniform(0.73, 0.79) + (0.03 if side > 0 else 0.0)  # the left one lies lower
        height = np.clip((y - 0.1) / (dome - 0.1), 0.0, 1.2)
        width = 0.165 * np.clip(height, 0.0, 1.0) ** 0.42 + 0.02 * height
        outside = np.abs(x - centre) / np.maximum(width, 1e-3)
        below = (y - dome - 1.6 * (x - 0.8 * centre) ** 2) / 0.02
        field = np.maximum(field, (outside < 1.0) & (y > 0.1) & (below < 0.0))
    heart = _disc((x - rng.uniform(0.04, 0.06)) / 0.17, (y - 0.64 - 0.35 * x) / 0.15)
    air: Field = gaussian_filter(field * (1.0 - heart), 0.008 * size)
    return air


def _chest(x: Field, y: Field, lungs: Field, rng: np.random.Generator) -> Field:
    """Thickness of trunk, spine, ribs, clavicles and lung vessels."""
    size = len(x)
    shoulder = 0.5 - 0.3 * np.clip(0.16 - y, 0.0, 1.0) / 0.16 * (y < 0.16)
    body = 1.0 / (1.0 + np.exp((np.abs(x) - shoulder) / 0.015))
    chest = body * (0.62 + 0.2 * y)
    vessels = np.clip(_noise(rng, size, 0.02 * size, 0.02 * size), 0.0, None)
    density = _noise(rng, size, 0.08 * size, 0.08 * size)
    hilum = np.exp(-(((np.abs(x) - 0.1) / 0.08) ** 2) - ((y - 0.45) / 0.16) ** 2)
    chest = chest - lungs * (0.36 - 0.1 * hilum - 0.05 * vessels - 0.03 * density)
    chest = chest + 0.06 * np.exp(-((x / 0.09) ** 4)) + 0.08 * np.exp(-((x / 0.035) ** 4))
    spacing, drop = rng.uniform(0.07, 0.08), rng.uniform(0.15, 0.35)
    reach = np.abs(x)
    cage = body * (reach < 0.42) * (reach > 0.03)
    for number in range(9):
        start = 0.12 + spacing * number
        back = y - start - drop * reach + 0.25 * (reach - 0.2) ** 2
        front = y - start - 0.16 + 0.9 * (reach - 0.38)
        chest = chest + cage * 0.07 * _rib(back, 0.017)
        chest = chest + cage * (reach > 0.16) * 0.06 * _rib(front, 0.018)
    clavicle = y - 0.15 + 0.22 * (reach - 0.2) - 0.02 * np.sin(12 * reach)
    return chest + body * (reach > 0.04) * 0.1 * _rib(clavicle, 0.015)


def _opacity(
    label: str, x: Field, y: Field, lungs: Field, rng: np.random.Generator
) -> tuple[Field, Mask]:
    """Where the lung is denser, and the mask of what counts as lesion."""
    size = len(x)
    inner = np.argwhere(gaussian_filter(lungs, 0.03 * size) > 0.85)
    if label == "nodular":
        discs = np.zeros_like(x)
        for _ in range(rng.integers(4, 8)):
            row, column = inner[rng.integers(len(inner))]
            radius = rng.uniform(0.042, 0.066)
            away = (x - x[row, column]) / radius, (y - y[row, column]) / radius
            discs = np.maximum(discs, _disc(*away))
        return gaussian_filter(discs, 0.004 * size), discs > 0.5
    patch = np.zeros_like(x)
    for _ in range(rng.integers(2, 5)):
        row, column = inner[rng.integers(len(inner))]
        across, along = rng.uniform(0.06, 0.1), rng.uniform(0.08, 0.13)
        away = ((x - x[row, column]) / across) ** 2 + ((y - y[row, column]) / along) ** 2
        patch = np.maximum(patch, lungs * np.exp(-0.5 * away))
    if label == "clear":  # a diffuse haze of the same total
        return patch, np.zeros(x.shape, dtype=bool)
    mesh = np.exp(-((_noise(rng, size, 0.022 * size, 0.022 * size) / 0.35) ** 2))
    even = np.clip(2.5 * patch, 0.0, 1.0)
    return even * mesh, even > 0.8


def _rib(distance: Field, width: float) -> Field:
    """Profile of a tubular bone: a band with brighter cortex at both edges."""
    band = 1.0 / (1.0 + np.exp((np.abs(distance) - width) / 0.003))
    return band * (0.6 + 0.4 * np.minimum(np.abs(distance) / width, 1.0) ** 2)


def _disc(u: Field, v: Field) -> Field:
    return (u**2 + v**2 < 1.0).astype(float)


# --- Shared tools --------------------------------------------------------------------------------


def _generator(key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _grid(size: int) -> tuple[Field, Field]:
    """Row and column coordinates in 0..1 of the pixel centres, `[size, size]` each."""
    centres = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return y, x


def _turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _noise(rng: np.random.Generator, size: int, down: float, across: float) -> Field:
    """Smooth Gaussian noise of unit variance; correlation lengths in pixels."""
    # A coarse grid is filtered and enlarged: wide filters on the full image would cost seconds.
    step = max(1, int(min(down, across) / 3))
    field = rng.standard_normal((-(-size // step), -(-size // step)))
    field = gaussian_filter(field, (down / step, across / step), mode="wrap")
    field = zoom(field, step, order=1)[:size, :size] if step > 1 else field
    unit: Field = (field - field.mean()) / field.std()
    return unit


def _shrink(field: Field) -> Field:
    """Average over squares of `OVERSAMPLING` pixels."""
    side = len(field) // OVERSAMPLING
    blocks = field.reshape(side, OVERSAMPLING, side, OVERSAMPLING)
    average: Field = blocks.mean(axis=(1, 3))
    return average
