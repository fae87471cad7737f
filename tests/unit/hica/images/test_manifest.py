from pathlib import Path

import pytest
from PIL import Image

from hica.errors import DataError
from hica.images.manifest import (
    Record,
    check_labels,
    check_split,
    examine_manifest,
    patients_by_image,
    read_manifest,
    records_from_folders,
    take_out,
    write_manifest,
)

SHARED = Path(__file__).parents[5] / "shared" / "data"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png", "m.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


def written(folder, text, encoding="utf-8"):
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_column(folder):
    path = written(
        folder,
        "image,label,patient_id,split,mask,findings,report,dup_group,site\n"
        'a.png,benign,p1,train,m.png,oval | circumscribed|,"a mass, oval\nin two lines",,x\n'
        "b.png,,p1,,,,,,\n"
        f"{folder / 'c.png'},malignant,,test,,,,9,\n",
    )
    first, second, third = read_manifest(path)
    assert first == Record(
        image=folder / "a.png",
        label="benign",
        patient_id="p1",
        split="train",
        mask=folder / "m.png",
        findings=("oval", "circumscribed"),
        group="patient:p1",
        report="a mass, oval\nin two lines",
        name="a.png",
    )
    assert second == Record(folder / "b.png", patient_id="p1", group="patient:p1", name="b.png")
    assert (third.image, third.group, third.split) == (folder / "c.png", "9", "test")


def test_examining_goes_on_past_rows_that_cannot_be_used(folder):
    path = written(
        folder, "image,split,mask\ngone.png,,\na.png,,\nb.png,dev,\nc.png,,gone.png\nm.png,,\n"
    )
    records, problems = examine_manifest(path)
    assert [record.name for record in records] == ["a.png", "m.png"]
    assert [str(problem).split(": ")[1:3] for problem in problems] == [
        ["line 2", "column image"],
        ["line 4", "column split"],
        ["line 5", "column mask"],
    ]


def test_only_image_is_required_and_defaults_follow_from_it(folder):
    (record,) = read_manifest(written(folder, "image\na.png\n"))
    assert record == Record(folder / "a.png")
    assert (record.name, record.group) == ("a.png", "a.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_and_blank_lines(folder, encoding, newline):
    text = newline.join(["image,label", "a.png,zystös", "", " b.png , normal ", ""])
    records = read_manifest(written(folder, text, encoding))
    assert [(record.name, record.label) for record in records] == [
        ("a.png", "zystös"),
        ("b.png", "normal"),
    ]


def test_links_between_patients_and_duplicates_pass_on(folder):
    text = "image,patient_id,dup_group\na.png,p,\nb.png,p,3\nc.png,q,3\n"
    assert {record.group for record in read_manifest(written(folder, text))} == {"3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", r"line 1: no column `image`; columns found: file, label"),
        ("image;label\na.png;x\n", r"columns found: image;label.*separated by commas"),
        ("", r"no column `image`; columns found: none"),
        ("image,label\n", r"names no images"),
        ("image,label\na.png,x\ngone.png,y\n", r"line 3: column image: gone\.png does not exist"),
        ("image,mask\na.png,gone.png\n", r"line 2: column mask: gone\.png does not exist"),
        ("image,label\n,x\n", r"line 2: column image: empty"),
        ("image,split\na.png,val\n", r"line 2: column split: 'val' is not one of train, test"),
        ("image,label\na.png,x\nb.png,y\na.png,y\n", r"line 2: column image: a\.png is named in 2"),
        ("image,report\na.png,an oval, smooth mass\n", r"line 2: 3 fields for 2 columns"),
        ('image,report\na.png,"two\nlines"\ngone.png,\n', r"line 4: column image: gone\.png"),
    ],
)
def test_errors_name_file_line_column(folder, text, message):
    with pytest.raises(DataError, match=rf"manifest\.csv: .*{message}"):
        read_manifest(written(folder, text))


def test_not_utf_8(folder):
    with pytest.raises(DataError, match=r"manifest\.csv: not UTF-8 .*save the file as CSV UTF-8"):
        read_manifest(written(folder, "image,label\na.png,zystös\n", "latin-1"))


def test_missing_manifest(folder):
    with pytest.raises(DataError, match=r"manifest\.csv: manifest cannot be read: No such file"):
        read_manifest(folder / "manifest.csv")


def test_written_manifest_reads_back_as_it_was(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "c.png"
    Image.new("L", (4, 4)).save(elsewhere)
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub" / "a.png")
    records = [
        Record(
            folder / "sub" / "a.png",
            label="be,nign",
            patient_id="p1",
            split="test",
            mask=folder / "m.png",
            findings=("oval", "smooth"),
            report='said "oval",\nthen left',
            name="sub/a.png",
        ),
        Record(folder / "b.png", group="7"),
        Record(elsewhere, name=str(elsewhere), group=str(elsewhere)),
    ]
    write_manifest(folder / "manifest.csv", records)
    assert read_manifest(folder / "manifest.csv") == records


def test_records_from_folders(tmp_path):
    for name in ("benign/2.PNG", "benign/1.png", "malignant/deep/1.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "benign" / "notes.txt").write_text("")
    records = records_from_folders(tmp_path)
    assert [(record.label, record.name) for record in records] == [
        ("benign", "benign/1.png"),
        ("benign", "benign/2.PNG"),
        ("malignant", "malignant/deep/1.jpg"),
    ]
    assert len({record.group for record in records}) == 3


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match="no images found; expected one folder per class"):
        records_from_folders(tmp_path)


def test_check_labels():
    records = [Record(Path(f"{i}.png"), label=label) for i, label in enumerate([*"aabccc", None])]
    check_labels(records, ["a", "b", "c"], "manifest.csv")
    message = r"manifest\.csv: column label: .*'a' \(2\), 'c' \(3\); the classes are b, d"
    with pytest.raises(DataError, match=message):
        check_labels(records, ["b", "d"], "manifest.csv")


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("busi", {"benign": 304, "malignant": 153, "normal": 95}),
        ("bus_breast", {"benign": 103, "malignant": 70, "normal": 2}),
    ],
)
def test_real_manifests(name, counts):
    records = read_manifest(SHARED / name / "manifest.csv")
    labels = [record.label for record in records]
    assert {label: labels.count(label) for label in counts} == counts
    assert len(records) == sum(counts.values())


# --- Rows that are taken out ---------------------------------------------------------------------

LISTED = (
    b"\xef\xbb\xbfpatient_id, image ,note\r\n"
    b'p1,a.png,"two\nlines"\r\n'
    b"\r\n"
    b" p2 , b.png ,kept\r\n"
    b',c.png,"a ""word"""\r\n'
    b"p1,m.png,last"
)


@pytest.mark.parametrize(
    ("patient", "names", "left"),
    [
        ("p1", {"a.png", "m.png"}, ["p2", ",c.png"]),
        ("p2", {"b.png"}, ["p1,a.png", "lines", ",c.png", "p1,m.png"]),
        ("c.png", {"c.png"}, ["p1,a.png", "lines", "p2", "p1,m.png"]),
        ("b.png", set(), ["p1,a.png", "lines", "p2", ",c.png", "p1,m.png"]),
        ("p", set(), ["p1,a.png", "lines", "p2", ",c.png", "p1,m.png"]),
    ],
)
def test_rows_of_a_patient_are_taken_out_and_all_else_stays_to_the_byte(
    folder, patient, names, left
):
    path = folder / "manifest.csv"
    path.write_bytes(LISTED)
    path.chmod(0o640)
    patients = patients_by_image(path)
    assert {name for name, given in patients.items() if patient == (given or name)} == names
    take_out(path, names)
    lines = LISTED.splitlines(keepends=True)
    kept = b"".join(
        line for line in lines if line == lines[0] or any(word.encode() in line for word in left)
    )
    assert path.read_bytes().replace(b"\r\n\r\n", b"\r\n") == kept
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_split_is_given_for_every_labelled_row_or_for_none(folder):
    path = written(folder, "image,label,split\na.png,x,train\nb.png,y,\nc.png,,\n")
    with pytest.raises(DataError, match=r"m: column split: empty in 1 labelled rows, such as b"):
        check_split(read_manifest(path), "m")
    path = written(folder, "image,label,split\na.png,x,train\nb.png,y,test\nc.png,,\n")
    check_split(read_manifest(path), "m")
    path = written(folder, "image,label,split\na.png,x,\nb.png,y,\nc.png,,\n")
    check_split(read_manifest(path), "m")
