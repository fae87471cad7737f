"""Rows and the manifest that is there, to the byte."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.errors import DataError, StorageError
from hica.images.manifest import COLUMNS
from hica_client.intake.merge import Manifest

TEXT = st.text(alphabet='ab ,"\n\r\u2028\x0bä;', max_size=6)


def of(**fields: str) -> dict[str, str]:
    return {name: fields.get(name, "") for name in COLUMNS}


@settings(max_examples=50)
@given(
    st.lists(TEXT, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_lines_of_others_stay_to_the_byte(tmp_path_factory, rows, end, marked, cut):
    path = tmp_path_factory.getbasetemp() / "manifest.csv"
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(["label", "ward", "image", "patient_id"])
    for number, ward in enumerate(rows):
        writer.writerow(["benign", ward, f"{number}.png", ""])
    text = ("\ufeff" if marked else "") + out.getvalue()
    before = (text.removesuffix(end) if cut else text).encode()
    path.write_bytes(before)
    new = of(image="images/p/1.png", label="benign", patient_id="p")
    merged = Manifest(path).merged({new["image"]: new}, lambda _: True)
    assert merged.added == 1
    assert merged.data.startswith(before)
    assert merged.data.removeprefix(before).strip() == b"benign,,images/p/1.png,p"


def test_a_carriage_return_in_a_field_is_read_back(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b'image,note\n"a.png","one\rtwo"\n')
    new = of(image="images/1.png", label="three\rfour")
    path.write_bytes(Manifest(path).merged({new["image"]: new}, lambda _: True).data)
    with path.open(newline="") as file:
        own, ours = csv.DictReader(file)
    assert (own["note"], ours["label"]) == ("one\rtwo", "three\rfour")


def test_the_columns_of_a_manifest_may_be_written_in_other_ways(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("image,Label,Patient ID\nown.png,benign,7\n")
    new = of(image="images/1.png", label="malignant", patient_id="p1")
    merged = Manifest(path).merged({new["image"]: new}, lambda _: True)
    assert merged.data.decode() == path.read_text() + "images/1.png,malignant,p1\n"


@pytest.mark.parametrize(
    "data", [b"image;label\n1.png;a\n", "image,label\n".encode("utf-16"), b"label\na\n"]
)
def test_a_manifest_of_another_form_is_left_alone(tmp_path, data):
    path = tmp_path / "manifest.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"manifest\.csv: "):
        Manifest(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"image;label\n1.png;a\n", "image\n".encode("utf-16")])
def test_a_manifest_that_only_others_can_read_is_refused_with_a_remedy(tmp_path, monkeypatch, data):
    monkeypatch.setattr("hica_client.intake.merge.patients_by_image", lambda _: {})
    (tmp_path / "manifest.csv").write_bytes(data)
    with pytest.raises(DataError, match="save it as CSV UTF-8, separated by commas, with a column"):
        Manifest(tmp_path / "manifest.csv")


def test_a_manifest_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    manifest = Manifest(tmp_path / "file" / "manifest.csv")
    with pytest.raises(StorageError, match="a file is where its folder should be"):
        manifest.write(manifest.merged({"a": of(image="a")}, lambda _: True))
