import io

import numpy as np
import pytest
from PIL import Image

from hica_client.sheet_layout import (
    COLUMNS,
    GAP,
    OUTLINES,
    SIDE,
    WARNING,
    WIDTH,
    Section,
    Tile,
    draw_sheet,
    fitting,
    is_sheet,
    outlined,
)


def tile(level: int = 90, warning: str = "") -> Tile:
    return Tile(Image.new("RGB", (SIDE, SIDE), (level,) * 3), ("class a", "a.png"), warning)


def drawn(*sections: Section) -> Image.Image:
    return Image.open(io.BytesIO(draw_sheet("site", ["one line"], sections))).convert("RGB")


def has(image: Image.Image, colour: str) -> bool:
    wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return bool((np.asarray(image) == wanted).all(-1).any())


def test_every_square_is_on_the_page_one_beside_the_other():
    page = drawn(Section("a", [tile(90)] * 3))
    middle = np.asarray(page)[page.height // 2 + 20]
    assert page.width == WIDTH
    assert (middle == 90).all(-1).sum() == 3 * SIDE
    assert (middle[GAP : GAP + SIDE] == 90).all()


def test_rows_make_the_page_longer_and_nothing_makes_it_wider():
    heights = [drawn(Section("a", [tile()] * n)).height for n in (1, COLUMNS, COLUMNS + 1)]
    assert heights[0] == heights[1] < heights[2]
    long = drawn(Section("a" * 5000, [Tile(tile().image, ["b" * 5000], "c" * 5000)]))
    assert long.width == WIDTH and long.height < 2 * SIDE + heights[0]


def test_a_warning_is_in_another_colour_and_makes_place():
    plain, warned = drawn(Section("a", [tile()])), drawn(Section("a", [tile(), tile(9, "black")]))
    assert not has(plain, WARNING) and has(warned, WARNING)
    assert warned.height > plain.height


def test_a_section_without_images_is_left_out():
    assert (
        drawn(Section("a", [tile()]), Section("b", [])).size == drawn(Section("a", [tile()])).size
    )
    assert drawn().width == WIDTH


def test_regions_are_drawn_as_outlines_in_their_own_colours():
    large, small = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    large[5:45, 5:20], small[10:20, 30:45] = True, True
    square = outlined(Image.new("RGB", (50, 50), (90, 90, 90)), [large, small])
    assert square.size == (SIDE, SIDE)
    assert has(square, OUTLINES[0]) and has(square, OUTLINES[1]) and not has(square, OUTLINES[2])
    inside = np.asarray(square)[4 * 25, 4 * 12]
    assert tuple(inside) == (90, 90, 90)
    assert outlined(Image.new("RGB", (50, 50)), [np.zeros((50, 50), bool)]).getextrema()[0] == (
        0,
        0,
    )


@pytest.mark.parametrize("text", ["a.png", "x" * 500, "1.2.840.113619.2.5.1762583153.2155.png", ""])
def test_a_long_name_keeps_its_ends(text):
    short = fitting(text, SIDE, 13)
    assert len(short) <= 40
    assert short == text or ((short[0], short[-1]) == (text[0], text[-1]) and "…" in short)


def test_what_cannot_be_printed_is_no_part_of_a_line():
    assert fitting("a\x1b[2J\nb", SIDE, 13) == "a�[2J�b"


def test_a_sheet_is_known_from_other_files(tmp_path):
    (tmp_path / "sheet.png").write_bytes(draw_sheet("a", [], []))
    Image.new("L", (4, 4)).save(tmp_path / "image.png")
    (tmp_path / "text.png").write_text("no image")
    assert [is_sheet(tmp_path / f"{name}.png") for name in ("sheet", "image", "text", "gone")] == [
        True,
        False,
        False,
        False,
    ]
