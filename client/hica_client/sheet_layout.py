"""sheet_layout: squares with words under them, in sections, as one picture of bounded size."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

SIDE = 200
"""Of a square, in pixels."""
COLUMNS = 8
GAP = 12
LINE = 18
"""Height of a line of words."""
SECTION_HEAD = 2 * LINE + GAP // 2
WIDTH = COLUMNS * (SIDE + GAP) + GAP
PAGE, FRAME, WORDS, FAINT, WARNING = "#26282b", "#6b7075", "#f2f2f2", "#aab0b6", "#ff9d80"
OUTLINES = ("#ffd23f", "#3bceac", "#5aa9ff", "#ff7ac6", "#c3f73a", "#ff9f1c")
"""Of the regions of an image, the largest first; then from the beginning."""
LINE_WIDTH = 2
MARK = ("Software", "hica-client check")
"""In the file, by which a sheet is known."""


@dataclass(frozen=True)
class Tile:
    """A square of the sheet."""

    image: Image.Image
    """RGB, `SIDE` × `SIDE` pixels."""
    lines: Sequence[str]
    """Under it."""
    warning: str = ""
    """Under these, in another colour; the frame is of that colour, too."""


@dataclass(frozen=True)
class Section:
    """Some squares under a title."""

    title: str
    tiles: Sequence[Tile]

    @property
    def row_height(self) -> int:
        """Of a row of squares with what stands under them, in pixels."""
        lines = max(len(tile.lines) + bool(tile.warning) for tile in self.tiles)
        return SIDE + lines * LINE + 2 * GAP

    @property
    def height(self) -> int:
        """Of the whole section, in pixels."""
        return SECTION_HEAD + -(-len(self.tiles) // COLUMNS) * self.row_height


def draw_sheet(title: str, lines: Sequence[str], sections: Iterable[Section]) -> bytes:
    """The PNG of a sheet: title, lines, then the sections one under the other."""
    sections = [section for section in sections if section.tiles]
    head = GAP + 2 * LINE + len(lines) * LINE + GAP
    page = Image.new("RGB", (WIDTH, head + sum(section.height for section in sections)), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((GAP, GAP), fitting(title, WIDTH - 2 * GAP, 22), WORDS, _font(22))
    for number, line in enumerate(lines):
        place = (GAP, GAP + 2 * LINE + number * LINE)
        draw.text(place, fitting(line, WIDTH - 2 * GAP, 14), FAINT, _font(14))
    top = head
    for section in sections:
        draw.line((GAP, top, WIDTH - GAP, top), FRAME)
        draw.text((GAP, top + GAP // 2), fitting(section.title, WIDTH, 17), WORDS, _font(17))
        top += SECTION_HEAD
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, COLUMNS)
            _place(page, draw, tile, GAP + column * (SIDE + GAP), top + row * section.row_height)
        top += section.height - SECTION_HEAD
    file, mark = io.BytesIO(), PngInfo()
    mark.add_text(*MARK)
    page.save(file, "PNG", pnginfo=mark)
    return file.getvalue()


def is_sheet(path: Path) -> bool:
    """Whether a file is one that `draw_sheet` has made."""
    try:
        with Image.open(path) as image:
            return image.info.get(MARK[0]) == MARK[1]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def outlined(image: Image.Image, regions: Sequence[npt.NDArray[np.bool_]]) -> Image.Image:
    """`image` as a square of the sheet, outlined by regions [S, S], the largest of them first."""
    square = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")).copy()
    for number in reversed(range(len(regions))):  # the largest on top
        region = Image.fromarray(regions[number].astype(np.uint8) * 255)
        shape = np.asarray(region.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) > 127
        inside = ndimage.binary_erosion(shape, iterations=LINE_WIDTH, border_value=0)
        square[shape & ~inside] = _colour(OUTLINES[number % len(OUTLINES)])
    return Image.fromarray(square)


def fitting(text: str, width: int, size: int) -> str:
    """`text` in one line of at most `width` pixels: its middle is left out where it is longer."""
    text = "".join(sign if sign.isprintable() else "�" for sign in text)[:400]
    font, kept = _font(size), len(text)
    short = text
    while font.getlength(short) > width and kept > 2:
        kept -= 1
        short = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return short


def _place(page: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    """Draw a square with its words."""
    frame = WARNING if tile.warning else FRAME
    draw.rectangle((left - 2, top - 2, left + SIDE + 1, top + SIDE + 1), outline=frame, width=2)
    page.paste(tile.image, (left, top))
    words = [(line, WORDS if number == 0 else FAINT) for number, line in enumerate(tile.lines)]
    for number, (line, colour) in enumerate([*words, (tile.warning, WARNING)]):
        place = (left, top + SIDE + 4 + number * LINE)
        draw.text(place, fitting(line, SIDE, 13), colour, _font(13))


def _colour(name: str) -> tuple[int, ...]:
    return tuple(int(name[at : at + 2], 16) for at in (1, 3, 5))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font that knows the letters of most languages of Europe."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)
