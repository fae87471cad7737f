"""The slice of a volume that is taken."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.hica_client.intake.exports import CT, blob, write_dicom

from hica_client.intake import reasons, selection


def write_series(folder, places, **tags):
    """A CT of one slice for each place; a place is a position along a slanted normal, or None."""
    across, normal = [1, 0, 0, 0, 0.6, 0.8], np.array([0, -0.8, 0.6])
    for number, place in enumerate(places):
        where = {}
        if place is not None:
            position = [float(each) for each in normal * place + np.array([5, 0.6, 0.8])]
            where = {"ImagePositionPatient": position, "ImageOrientationPatient": across}
        write_dicom(
            folder / f"{(7 * number) % 11}-{number}",
            blob(number),
            SOPClassUID=CT,
            PatientID="P",
            InstanceNumber=len(places) - number,
            **{"Modality": "CT", **where, **tags},
        )


def taken(hospital):
    [path] = hospital.pictures
    return np.asarray(Image.open(path)).tobytes()


@pytest.mark.parametrize(
    ("places", "middle"),
    [
        ([0, 1, 2, 3, 4], 2),
        ([4, -3, 9, 2, 0], 3),
        ([0, 1, 2, 3], 2),  # as of the frames of one file
        ([5, 5, 5, 1, 9], 2),  # of the same place the lowest number
        ([None, None, None], 1),  # by the number
        ([None, 7, None, 8, 9], 3),  # those that say where they lie
        ([3], 0),
    ],
)
def test_the_middle_by_position(hospital, tmp_path, places, middle):
    write_series(tmp_path / "x", places)
    found = hospital.take(tmp_path / "x")
    assert found.taken == 1 and taken(hospital) == blob(middle).tobytes()
    assert found.skipped.get(reasons.SLICE, 0) == len(places) - 1


def test_one_of_each_series_and_all_of_other_modalities(hospital, tmp_path):
    write_series(tmp_path / "x" / "a", [1, 2, 3], SeriesInstanceUID="1.7")
    write_series(tmp_path / "x" / "b", [1, 2, 3], SeriesInstanceUID="1.8", Modality="MR")
    write_series(tmp_path / "x" / "c", [1, 2, 3], SeriesInstanceUID="1.9", Modality="CR")
    found = hospital.take(tmp_path / "x")
    assert (found.skipped[reasons.SLICE], found.skipped[reasons.AGAIN], found.taken) == (4, 2, 3)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.none() | st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=9),
    st.randoms(),
)
def test_whatever_the_order_of_files_the_same_slice_is_taken(slices, draws):
    listed = [
        ("s", None if place is None else float(place), number, f"i{index}", f"k{index}")
        for index, (place, number) in enumerate(slices)
    ]
    others = set(selection._others(iter(listed), set()))
    draws.shuffle(listed)
    assert set(selection._others(iter(listed), set())) == others
    assert len(others) == len(listed) - 1
    assert set(selection._others(iter(listed), {"s"})) == {key for *_, key in listed}
