"""Ultrasound: scatterers of a layered breast, seen through a point spread function."""

import numpy as np
from scipy.ndimage import gaussian_filter

from hica_simulations.phantoms.fields import Field, Mask, grid, smooth_noise, turned

ANGLES: Field = np.linspace(-np.pi, np.pi, 720, endpoint=False)
"""Directions from a lesion's centre at which its outline is drawn."""


def ultrasound(
    label: str, size: int, speckle: float, rng: np.random.Generator
) -> tuple[Field, Mask]:
    """Log-compressed echo amplitude in decibels `[size, size]` and the lesion's mask."""
    y, x = grid(size)
    tissue = _breast_layers(x, y, rng)
    contrast = rng.uniform(11.0, 15.0)  # decibels by which the lesion is darker
    area = rng.uniform(0.07, 0.12)  # share of the image, the same draw for all classes
    centre = rng.uniform(0.2, 0.8), rng.uniform(0.36, 0.62)
    dx, dy = turned(x - centre[0], y - centre[1], rng.uniform(-0.4, 0.4))
    radius = np.interp(np.arctan2(dy, dx), ANGLES, _outline(label, area, rng), period=2 * np.pi)
    distance = np.hypot(dx, dy) / radius
    inside = distance < 1.0
    if label == "normal":  # a fatty shade without an outline: layers run through it unbroken
        echo = tissue - contrast * gaussian_filter(inside.astype(float), 0.07 * size)
        inside = np.zeros_like(inside)
    else:
        grain, depth = (0.026, 8.0) if label == "spiculated" else (0.012, 1.0)
        texture = depth * smooth_noise(rng, size, grain * size, grain * size)
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
    wave = [0.02 * smooth_noise(rng, size, 4 * size, 0.16 * size)[:1] for _ in range(3)]
    skin = 0.05 + 0.2 * tilt
    fat = rng.uniform(0.14, 0.28) + tilt + wave[0]
    gland = rng.uniform(0.66, 0.8) + tilt + wave[1]
    muscle = gland + rng.uniform(0.14, 0.2) + 0.3 * wave[2]
    lobules = smooth_noise(rng, size, 0.03 * size, 0.09 * size)
    septa = np.exp(-((lobules / 0.12) ** 2))
    clouds = smooth_noise(rng, size, 0.06 * size, 0.09 * size)
    fibres = np.sin(2 * np.pi * (y - gland) * rng.uniform(28, 40) + 1.5 * lobules)
    strands = smooth_noise(rng, size, 0.014 * size, 0.07 * size)
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
    return np.asarray(strength * beam * below)


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
    return np.asarray(np.clip(decibels, top - 55.0, top))


def _outline(label: str, area: float, rng: np.random.Generator) -> Field:
    """Radius of the lesion at each of `ANGLES`, enclosing `area`."""
    if label == "smooth":
        radius = _oval(rng.uniform(1.3, 1.8)) * _wobble(0.03, rng)
    elif label == "spiculated":
        radius = _oval(rng.uniform(0.65, 0.9)) * _wobble(0.08, rng) * _spicules(rng)
    else:
        radius = _oval(rng.uniform(0.7, 1.8)) * _wobble(0.06, rng)
    return np.asarray(radius * np.sqrt(area / (np.pi * np.mean(radius**2))))


def _oval(aspect: float) -> Field:
    """An ellipse `aspect` times as wide as tall."""
    return np.asarray((np.cos(ANGLES) ** 2 / aspect + np.sin(ANGLES) ** 2 * aspect) ** -0.5)


def _wobble(amount: float, rng: np.random.Generator) -> Field:
    """A smooth irregularity: harmonics 2 to 5 of random phase."""
    waves = [np.cos(k * ANGLES + rng.uniform(0, 2 * np.pi)) for k in range(2, 6)]
    return np.asarray(1.0 + amount * np.sum(waves, axis=0))


def _spicules(rng: np.random.Generator) -> Field:
    """Narrow rays of random length all around."""
    count = int(rng.integers(9, 14))
    rays = np.ones_like(ANGLES)
    for number in range(count):
        direction = 2 * np.pi * (number + rng.uniform(-0.25, 0.25)) / count
        away = np.abs(np.angle(np.exp(1j * (ANGLES - direction))))
        rays += rng.uniform(0.5, 1.3) * np.exp(-away / 0.09)
    return rays
