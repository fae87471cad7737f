"""Fields of numbers over an image: coordinates, rotation, smooth noise."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

Field = NDArray[np.float64]
Mask = NDArray[np.bool_]


def grid(size: int) -> tuple[Field, Field]:
    """Row and column coordinates in 0..1 of the pixel centres, `[size, size]` each."""
    centres = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return y, x


def turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates `x` and `y` in axes turned by `angle` radians."""
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def smooth_noise(rng: np.random.Generator, size: int, down: float, across: float) -> Field:
    """Smooth Gaussian noise of unit variance; correlation lengths in pixels."""
    # A coarse grid is filtered and enlarged: wide filters on the full image would cost seconds.
    step = max(1, int(min(down, across) / 3))
    field = rng.standard_normal((-(-size // step), -(-size // step)))
    field = gaussian_filter(field, (down / step, across / step), mode="wrap")
    field = zoom(field, step, order=1)[:size, :size] if step > 1 else field
    return np.asarray((field - field.mean()) / field.std())
