"""Near-duplicates and burned-in text."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from tests.unit.hica_client.intake.exports import blob, write_dicom

from hica_client.intake import duplicates, reasons
from hica_client.intake.burned_in import looks_lettered
from hica_client.intake.duplicates import NEAR, groups_of, perceptual_hash

BUSI = Path(__file__).parents[5] / "shared" / "data" / "busi"
REGION = (
    "RegionLocationMinX0",
    "RegionLocationMinY0",
    "RegionLocationMaxX1",
    "RegionLocationMaxY1",
)


def test_groups_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    draws = np.random.default_rng(0)
    bits = draws.integers(0, 2, (30, 256)).astype(bool)
    for row, other, changed in ((3, 20, NEAR), (4, 21, NEAR + 1), (20, 29, 5), (8, 9, 0)):
        bits[other] = bits[row]
        bits[other, draws.permutation(256)[:changed]] ^= True
    groups = groups_of([np.packbits(row).tobytes() for row in bits])
    linked = {pair for pair in combinations(range(30), 2) if groups[pair[0]] == groups[pair[1]]}
    assert linked == {(3, 20), (20, 29), (3, 29), (8, 9)}
    assert len(groups_of([])) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((50, 50)),
        lambda image: image.point(lambda grey: grey * 0.8 + 20),
        lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.convert("RGB"),
    ],
)
def test_a_picture_that_was_changed_a_little_is_near(change):
    image = Image.fromarray(blob(1, 96))
    groups = groups_of([perceptual_hash(each) for each in (image, change(image))])
    assert groups[0] == groups[1]


def test_other_pictures_are_not_near():
    hashes = [perceptual_hash(Image.fromarray(blob(seed, 96))) for seed in range(60)]
    assert len(set(groups_of(hashes))) == 60


@pytest.mark.real_data
@pytest.mark.skipif(not BUSI.is_dir(), reason="needs ../shared/data, which is not here")
def test_the_near_duplicates_that_are_known_in_busi():
    with (BUSI / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    groups = groups_of([perceptual_hash(Image.open(BUSI / row["image"])) for row in rows])
    known = {
        pair: groups[pair[0]] == groups[pair[1]]
        for pair in combinations(range(len(rows)), 2)
        if rows[pair[0]]["dup_group"] == rows[pair[1]]["dup_group"] != ""
    }
    assert np.mean(list(known.values())) > 0.9


def with_text(size: int, words: str = "SMITH JOHN 1951-02-03") -> np.ndarray:
    image = Image.fromarray(blob(3, 256) // 2)
    ImageDraw.Draw(image).text((10, 200), words, fill=255, font_size=size)
    return np.asarray(image)


@pytest.mark.parametrize("size", [10, 12, 16, 24])
def test_burned_in_text_is_found(size):
    assert looks_lettered(with_text(size))


@pytest.mark.parametrize("words", ["", "R", "L 2"])
def test_a_picture_without_text_or_with_a_mark_of_the_side_is_not(words):
    assert not looks_lettered(with_text(16, words))
    assert not looks_lettered(np.zeros((40, 40), np.uint8))


def test_what_is_bright_outside_the_areas_of_an_ultrasound_is_text():
    grey = np.zeros((100, 200), np.uint8)
    grey[10:90, 20:180] = blob(1, 256)[:80, :160]
    areas = [(0.1, 0.1, 0.9, 0.9)]
    assert not looks_lettered(grey, areas)
    grey[2:6, 150:170] = 200
    assert looks_lettered(grey, areas)


def test_burned_in_text_is_counted_and_left_out_where_that_is_wished(hospital, tmp_path):
    from pydicom.dataset import Dataset

    region = Dataset()
    for name, place in zip(REGION, (0, 20, 255, 255), strict=True):
        setattr(region, name, place)
    bright = blob(5, 256) // 2
    bright[4:10, 30:60] = 255
    write_dicom(tmp_path / "x" / "tag", blob(1), BurnedInAnnotation="YES")
    write_dicom(tmp_path / "x" / "seen", with_text(12), BurnedInAnnotation="NO")
    write_dicom(tmp_path / "x" / "area", bright, SequenceOfUltrasoundRegions=[region])
    write_dicom(tmp_path / "x" / "none", blob(2, 256) // 2, BurnedInAnnotation="NO")
    found = hospital.take(tmp_path / "x")
    assert (found.taken, found.burned_in, found.lettered) == (4, 1, 2)
    assert any("text is burned into 1 picture as the header says" in n for n in found.notes)
    hospital.manifest.unlink()
    for path in hospital.pictures:
        path.unlink()
    found = hospital.take(tmp_path / "x", skip_burned_in=True)
    assert (found.taken, found.skipped) == (1, {reasons.BURNED: 3})
    assert len(hospital.pictures) == len(hospital.rows) == 1
