"""A prediction goes back into the archive: as a structured report, and as a picture."""

import io
import json
import shutil
import subprocess
import sys

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid
from tests.unit.hica.images.made import dicom_file

from hica.images.decode import read_image
from hica_client.cli import main

TAGS = {
    "PatientID": "P-7",
    "PatientName": "Müller^Jörg",
    "PatientBirthDate": "19600102",
    "PatientSex": "M",
    "StudyDate": "20260102",
    "AccessionNumber": "A1",
    "SpecificCharacterSet": "ISO_IR 100",
    "Modality": "US",
    "BurnedInAnnotation": "NO",
}


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, arguments)])
    return end.value.code


@pytest.fixture
def exported(kit, tmp_path):
    """Writes one of the site's phantoms as DICOM; without tags that are None."""

    def write(name="41.dcm", number=41, frames=1, **tags):
        values = np.asarray(Image.open(kit.parent / f"{number}.png").convert("L"))
        values = values if frames == 1 else np.stack([values] * frames)
        uids = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
            "SOPInstanceUID": generate_uid(),
            "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
            "SeriesInstanceUID": generate_uid(),
        }
        (tmp_path / "new").mkdir(exist_ok=True)
        return dicom_file(tmp_path / "new" / name, values, **TAGS | uids | tags)

    return write


@pytest.fixture
def results(kit, tmp_path, exported):
    """The image, its JSON, its report and its picture."""
    image = exported()
    out = tmp_path / "out"
    assert run(kit, image, "--out", out, "--sr", "--secondary-capture") == 0
    said = json.loads((out / "predictions.json").read_text())
    (files,) = said["dicom"]
    for name in ("sr", "secondary_capture"):
        assert (out / files[name]).stat().st_mode & 0o77 == 0
    made = (pydicom.dcmread(out / files[name]) for name in ("sr", "secondary_capture"))
    return pydicom.dcmread(image), said, *made


def items(dataset):
    """All content items, by the meaning of their names."""
    for item in dataset.get("ContentSequence", ()):
        yield item.ConceptNameCodeSequence[0].CodeMeaning, item
        yield from items(item)


def evaluations(group):
    return {each.name.meaning: each.value.meaning for each in group.get_qualitative_evaluations()}


def test_a_report_says_what_the_prediction_says(results):
    image, said, report, _ = results
    (prediction,) = said["predictions"]
    content = hd.sr.srread(_as_file(report)).content
    groups = content.get_image_measurement_groups()
    assert len(groups) == 3  # the answer, and two classes
    shares = {}
    for group in groups[1:]:
        (measured,) = group.get_measurements()
        shares[group.finding_type.meaning] = measured.value
        in_question = evaluations(group)
        expected = "Yes" if group.finding_type.meaning in prediction["classes"] else "No"
        assert in_question == {"In the set of classes in question": expected}
        assert measured.unit.value == "1"
        (source,) = group.source_images
        assert source.referenced_sop_instance_uid == image.SOPInstanceUID
    assert shares == pytest.approx(prediction["probabilities"], abs=1e-6)
    overall = evaluations(groups[0])
    assert overall["Answer"] == (prediction["answer"] or "Don't know")
    assert overall["Intended use"] == "For research, not for diagnosis"
    words = [item.TextValue for name, item in items(report) if name == "Algorithm Parameters"]
    assert f"model SHA-256 {said['model_sha256']}" in words
    assert f"study SHA-256 {said['study_sha256']}" in words
    assert any(each.startswith("weight of the model 'personal': 20 %, SHA-256") for each in words)
    assert "For research, not for diagnosis" in words
    assert (
        report.Modality == "SR" and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    )
    assert report.VerificationFlag == "UNVERIFIED"


def _as_file(dataset):
    file = io.BytesIO()
    dataset.save_as(file)
    file.seek(0)
    return file


def test_both_are_of_the_images_patient_and_study_and_new_themselves(results):
    image, _, report, capture = results
    for made in (report, capture):
        for tag in ("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
            assert made[tag].value == image[tag].value, tag
        assert str(made.PatientName) == "Müller^Jörg" and made.AccessionNumber == "A1"
        assert made.SOPInstanceUID != image.SOPInstanceUID
        assert made.SeriesInstanceUID != image.SeriesInstanceUID
        assert "not for diagnosis" in made.SeriesDescription
    assert report.SeriesInstanceUID != capture.SeriesInstanceUID


def test_a_picture_shows_the_map_and_says_what_it_is(results, tmp_path):
    image, said, _, capture = results
    assert capture.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert (capture.Rows, capture.Columns) == (568, 512)
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert said["model_sha256"] in capture.DerivationDescription
    assert capture.BurnedInAnnotation == "NO" and capture.ImageType[0] == "DERIVED"
    assert not capture.PatientOrientation  # as the image does not say it
    pixels = capture.pixel_array
    banner = pixels[:56]
    assert (banner.max(axis=2) > 200).sum() > 100  # words
    assert np.ptp(pixels[56:].astype(int), axis=2).max() > 50  # colours
    capture.save_as(tmp_path / "again.dcm")
    assert read_image(tmp_path / "again.dcm").size == (512, 568)


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dcmtk is not installed (.ci/dcmtk)")
def test_another_toolkit_reads_the_report(results, tmp_path):
    results[2].save_as(tmp_path / "report.dcm")
    done = subprocess.run(
        ["dsrdump", "--print-all-codes", tmp_path / "report.dcm"],
        capture_output=True,
        encoding="latin-1",
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line[:2] in ("E:", "W:")]
    assert "Imaging Measurement Report" in done.stdout
    assert "not for diagnosis" in done.stdout and "round" in done.stdout


def test_images_of_one_study_are_one_series_and_others_get_none(kit, tmp_path, exported, capsys):
    folder = exported().parent
    exported("43.dcm", 43)
    exported("45.dcm", 45, StudyInstanceUID=generate_uid())
    shutil.copy(kit.parent / "3.png", folder)
    out = tmp_path / "out"
    assert run(kit, folder, "--out", out, "--sr") == 0
    said = json.loads((out / "predictions.json").read_text())["dicom"]
    assert [each["image"] for each in said] == ["41.dcm", "43.dcm", "45.dcm"]
    made = [pydicom.dcmread(out / each["sr"]) for each in said]
    assert made[0].SeriesInstanceUID == made[1].SeriesInstanceUID != made[2].SeriesInstanceUID
    assert [each.InstanceNumber for each in made] == [1, 2, 1]
    assert "1 images are no DICOM and get none: 3.png" in capsys.readouterr().err
    assert run(kit, folder, "--out", out, "--sr") == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_frame_that_is_seen_is_the_one_that_is_named(kit, tmp_path, exported):
    image = exported(frames=4)
    assert run(kit, image, "--out", tmp_path / "out", "--sr", "--secondary-capture") == 0
    (capture,) = (tmp_path / "out" / "dicom").glob("*capture.dcm")
    assert pydicom.dcmread(capture).SourceImageSequence[0].ReferencedFrameNumber == 3
    (report,) = (tmp_path / "out" / "dicom").glob("*sr.dcm")
    content = hd.sr.srread(report).content
    (source,) = content.get_image_measurement_groups()[0].source_images
    assert list(source.referenced_frame_numbers) == [3]


@pytest.mark.parametrize(
    "tags", [{"PatientID": None}, {"PatientName": None, "StudyDate": None, "PatientSex": None}]
)
def test_an_image_without_a_patient_has_results_without_one(kit, tmp_path, exported, tags):
    image = exported(**tags)
    assert run(kit, image, "--out", tmp_path / "out", "--sr", "--secondary-capture") == 0
    for path in (tmp_path / "out" / "dicom").iterdir():
        made = pydicom.dcmread(path)
        assert all(not made.get(name) for name in tags)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"StudyInstanceUID": None}, "has no StudyInstanceUID, so that no result can refer to it"),
        ({"SOPInstanceUID": None}, "has no SOPInstanceUID"),
        ({"SOPClassUID": "1.2.3.4"}, "no result in DICOM can be made of its tags"),
    ],
)
def test_an_image_that_nothing_can_refer_to_is_predicted_without(
    kit, tmp_path, exported, capsys, tags, said
):
    folder = exported("a.dcm", **tags).parent
    exported("b.dcm", 43)
    assert run(kit, folder, "--out", tmp_path / "out", "--sr") == 3
    err = " ".join(capsys.readouterr().err.split())
    assert "1 images have no result in DICOM" in err and "a.dcm" in err and said in err
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [each["image"] for each in found["dicom"]] == ["b.dcm"]
    assert all(each["probabilities"] for each in found["predictions"])


def test_pictures_that_are_no_dicom_have_no_result_in_dicom(kit, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(kit, kit.parent / "3.png", "--out", out, "--secondary-capture") == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "--secondary-capture: 3.png: is no DICOM file" in err
    assert not out.exists()


def test_without_the_library_the_extra_is_named(kit, tmp_path, exported, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert run(kit, exported(), "--out", tmp_path / "out", "--sr") == 2
    assert "pip install 'hica[dicom-sr]'" in " ".join(capsys.readouterr().err.split())
