"""Pixel probe: logistic regression on thumbnails, which sees brightness and position, not texture.

What it reaches is what a data set gives away without any learning of images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hica.images.decode import read_image

SIDE = 16


def thumbnails(images: Sequence[Path]) -> NDArray[np.float32]:
    """Grey thumbnails of 16×16 pixels in 0..1, `[n, 256]`.

    Raises:
        DataError: An image that cannot be read.
    """
    rows = [
        np.asarray(read_image(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
        for path in images
    ]
    return np.stack(rows).reshape(len(rows), -1).astype(np.float32) / 255.0
