"""Is a received file whole, whatever its encoding."""

import tracemalloc

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from tests.unit.hica_client.pacs.files import ROOT, dataset, file_of

from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.whole import CUT_SHORT, NOT_DICOM, OTHER, TOO_LARGE, check_whole

SOP, STUDY = f"{ROOT}.1.1.1", f"{ROOT}.1"
NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@pytest.fixture
def check(tmp_path):
    def check(content: bytes, sop=SOP, study=STUDY, most=1 << 20):
        path = tmp_path / "file.dcm"
        path.write_bytes(content)
        check_whole(path, sop, study, most)

    return check


def refusal(check, *arguments, **more):
    with pytest.raises(LostInstanceError) as raised:
        check(*arguments, **more)
    return str(raised.value)


def compressed():
    made = dataset()
    frame = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return file_of(made, JPEGBaseline8Bit)


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_whole_file_is_whole_and_any_end_of_it_cut_off_is_seen(check, syntax):
    content = file_of(dataset(), syntax)
    check(content)
    last = 2 if syntax == DeflatedExplicitVRLittleEndian else 1  # of 2 bytes, one is padding
    for cut in (last, 7, 9, 40, 64 + 12, len(content) - 200):
        assert refusal(check, content[:-cut]) in (CUT_SHORT, OTHER)


def test_compressed_pixels_are_walked_through(check):
    content = compressed()
    check(content)
    for cut in (1, 7, 8, 9, 3000):
        assert refusal(check, content[:-cut]) == CUT_SHORT


def test_padding_at_the_end_is_no_harm_and_other_bytes_are(check):
    content = file_of(dataset())
    check(content + bytes(6))
    assert refusal(check, content + b"\x10\x00\x20") == CUT_SHORT


@pytest.mark.parametrize("sop, study", [("1.2.3", STUDY), (SOP, "1.2.3")])
def test_another_image_or_study_is_refused(check, sop, study):
    assert refusal(check, file_of(dataset()), sop, study) == OTHER


@pytest.mark.parametrize("content", [b"", b"<html>" * 100, bytes(500)])
def test_what_is_no_dicom_is_refused(check, content):
    assert refusal(check, content) == NOT_DICOM


def test_a_small_file_that_inflates_without_end_is_refused(check):
    made = dataset(Rows=1024, Columns=1024, PixelData=bytes(1 << 20))
    content = file_of(made, DeflatedExplicitVRLittleEndian)
    assert len(content) < 10_000
    assert refusal(check, content, most=1 << 16) == TOO_LARGE


def test_large_values_are_not_held_in_memory(check, tmp_path):
    content = file_of(dataset(Rows=2048, Columns=2048, PixelData=bytes(1 << 22)))
    path = tmp_path / "large.dcm"
    path.write_bytes(content)
    tracemalloc.start()
    check_whole(path, SOP, STUDY, 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
