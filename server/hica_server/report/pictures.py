"""Pictures of images in the report: region outlines, similarity maps, cluster galleries."""

import matplotlib
import numpy as np
from PIL import Image

from hica.images.overlay import SIDE, outlined, png_uri, resized
from hica_server.report.extras import Example, Pixels

__all__ = ["THUMBNAIL", "png_uri", "resized", "with_outlines", "with_similarity"]

THUMBNAIL = 128


def with_outlines(example: Example) -> Pixels:
    """The example's image with each region's border drawn in its own colour: [SIDE, SIDE, 3]."""
    return outlined(example.image, example.region_masks)


def with_similarity(example: Example) -> Pixels:
    """The image in grey under its similarity map, from least (dark) to most (bright) similar."""
    similarity = np.asarray(example.similarity, dtype=np.float32)
    spread = float(np.ptp(similarity)) or 1.0
    scaled = Image.fromarray((similarity - similarity.min()) / spread)
    heat = np.asarray(scaled.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    colour = matplotlib.colormaps["magma"](heat)[..., :3] * 255  # (SIDE, SIDE, 3)
    grey = resized(example.image, SIDE).mean(axis=2, keepdims=True)
    return np.asarray(0.45 * grey + 0.55 * colour, dtype=np.uint8)
