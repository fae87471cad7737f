"""X-ray: thickness of a chest, projected."""

import numpy as np
from scipy.ndimage import gaussian_filter

from hica_simulations.phantoms.fields import Field, Mask, grid, smooth_noise, turned


def xray(label: str, size: int, noise: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    """Projected thickness `[size, size]`, air dark and bone bright, and the lesion's mask."""
    y, x = grid(size)
    x, y = turned(x - 0.5, y - 0.5, rng.uniform(-0.06, 0.06))
    scale = rng.uniform(0.92, 1.06)
    x, y = x / scale + rng.uniform(-0.03, 0.03), y / scale + rng.uniform(-0.03, 0.03) + 0.5
    lungs = _lungs(x, y, rng)
    chest = _chest(x, y, lungs, rng)
    opacity, mask = _opacity(label, x, y, lungs, rng)
    total = rng.uniform(0.018, 0.023)  # thickness summed over the image, whatever the class
    chest = chest + opacity * (total / opacity.mean())
    grain = smooth_noise(rng, size, 0.004 * size, 0.004 * size)
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
    return np.asarray(gaussian_filter(field * (1.0 - heart), 0.008 * size))


def _chest(x: Field, y: Field, lungs: Field, rng: np.random.Generator) -> Field:
    """Thickness of trunk, spine, ribs, clavicles and lung vessels."""
    size = len(x)
    shoulder = 0.5 - 0.3 * np.clip(0.16 - y, 0.0, 1.0) / 0.16 * (y < 0.16)
    body = 1.0 / (1.0 + np.exp((np.abs(x) - shoulder) / 0.015))
    chest = body * (0.62 + 0.2 * y)
    vessels = np.clip(smooth_noise(rng, size, 0.02 * size, 0.02 * size), 0.0, None)
    density = smooth_noise(rng, size, 0.08 * size, 0.08 * size)
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
    mesh = np.exp(-((smooth_noise(rng, size, 0.022 * size, 0.022 * size) / 0.35) ** 2))
    even = np.clip(2.5 * patch, 0.0, 1.0)
    return even * mesh, even > 0.8


def _rib(distance: Field, width: float) -> Field:
    """Profile of a tubular bone: a band with brighter cortex at both edges."""
    band = 1.0 / (1.0 + np.exp((np.abs(distance) - width) / 0.003))
    return band * (0.6 + 0.4 * np.minimum(np.abs(distance) / width, 1.0) ** 2)


def _disc(u: Field, v: Field) -> Field:
    return (u**2 + v**2 < 1.0).astype(float)
