"""Pictures of images in the report: region outlines, similarity maps, cluster galleries."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image, ImageColor
from scipy.ndimage import binary_erosion

from hica_server.report.extras import Example, Pixels
from hica_server.report.figures import SERIES

SIDE = 320  # pixels of an example; shown at half of that, so sharp on fine screens
THUMBNAIL = 128


def png_uri(pixels: Pixels) -> str:
    """The image [H, W, 3] as the data URI of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def resized(pixels: Pixels, side: int) -> Pixels:
    """The image at side x side pixels, bicubic."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def with_outlines(example: Example) -> Pixels:
    """The example's image with each region's border drawn in its own colour: [SIDE, SIDE, 3]."""
    picture = resized(example.image, SIDE).copy()
    for index, mask in enumerate(example.region_masks):
        large = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255)
        grown = np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) > 127
        border = grown & ~binary_erosion(grown, iterations=4)  # beyond the frame is outside
        picture[border] = ImageColor.getrgb(SERIES[(index + 1) % len(SERIES)])
    return picture


def with_similarity(example: Example) -> Pixels:
    """The image in grey under its similarity map, from least (dark) to most (bright) similar."""
    similarity = np.asarray(example.similarity, dtype=np.float32)
    spread = float(np.ptp(similarity)) or 1.0
    scaled = Image.fromarray((similarity - similarity.min()) / spread)
    heat = np.asarray(scaled.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    colour = matplotlib.colormaps["magma"](heat)[..., :3] * 255  # (SIDE, SIDE, 3)
    grey = resized(example.image, SIDE).mean(axis=2, keepdims=True)
    return np.asarray(0.45 * grey + 0.55 * colour, dtype=np.uint8)
