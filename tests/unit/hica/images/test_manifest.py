from pathlib import Path

import pytest
from PIL import Image

from hica.errors import DataError
from hica.images.manifest import (
    Record,
    examine_manifest,
    fields_by_image,
    patients_by_image,
    read_manifest,
    take_out,
    write_manifest,
)
from hica.images.manifest_checks import check_labels, check_split

SHARED = Path(__file__).parents[5] / "shared" / "data"
CASES = SHARED.parent / "cases" / "csv"


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
    records, problems, _ = examine_manifest(path)
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
        ("image|label\na.png|x\n", r"columns found: image\|label.*separated by commas"),
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


@pytest.mark.real_data
@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is absent")
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("C05b_label_caps", {"benign", "malignant"}),
        ("C06b_label_case", {"Benign", "malignant"}),
        ("C08b_trailing_rows_only", {"benign", "malignant"}),
        ("C13_nbsp", {"benign", "malignant"}),
    ],
)
def test_manifests_of_the_cases(folder, name, labels):
    (folder / "img").mkdir()
    for number in range(12):
        (folder / "img" / f"{number:03}.png").write_bytes(b"")
    (folder / "manifest.csv").write_bytes((CASES / f"{name}.csv").read_bytes())
    records, problems, notes = examine_manifest(folder / "manifest.csv")
    assert (len(records), problems, {record.label for record in records}) == (12, [], labels)
    assert len(notes) == ("Label" in (CASES / f"{name}.csv").read_text().splitlines()[0])
    if "Benign" in labels:
        words = r"column label: .*'Benign' \(6\) from line 3 on for 'benign'; .*: rename these"
        with pytest.raises(DataError, match=words):
            check_labels(records, ["benign", "malignant"], "manifest.csv")


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


# --- As spreadsheets and other systems write them ------------------------------------------------


def test_a_mistake_in_5000_rows_is_said_once_with_the_first_rows(folder):
    """It was said 5,000 times."""
    rows = "".join(f"gone/{number}.png,x\n" for number in range(5000))
    records, problems, _ = examine_manifest(written(folder, f"image,label\na.png,x\n{rows}"))
    assert len(records) == 1
    assert [str(each) for each in problems] == [
        f"{folder}/manifest.csv: line 3: column image: gone/0.png does not exist; paths are "
        f"relative to {folder} (and so in 4,999 more rows: line 4, line 5, line 6, line 7 and "
        "4995 more)"
    ]
    assert problems[0].places[:2] == ["line 3", "line 4"] and len(problems[0].places) == 5000


def test_mistakes_of_different_kinds_are_all_said(folder):
    text = "image,label,split\na.png,x,dev\nb.png,x,Train,more\n,x,\nc.png,x,val\ngone.png,x,\n"
    said = [str(each) for each in examine_manifest(written(folder, text)).problems]
    assert len(said) == 4
    assert "line 2: column split: 'dev' is not one of" in said[0]
    assert said[0].endswith("(and so in 1 more rows: line 5)")
    assert "line 3: 4 fields for 3 columns" in said[1]
    assert "line 4: column image: empty" in said[2]
    assert "line 6: column image: gone.png does not exist" in said[3]


def test_a_split_in_capitals_is_refused_with_what_to_write(folder):
    with pytest.raises(DataError, match=r"column split: 'Train' is not one of.*; write train, or"):
        read_manifest(written(folder, "image,split\na.png,Train\n"))


def test_the_paths_of_windows_are_read_and_one_file_is_named_once(folder):
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub" / "a.png")
    (record,) = read_manifest(written(folder, "image\nsub\\a.png\n"))
    assert (record.image, record.name) == (folder / "sub" / "a.png", "sub\\a.png")
    with pytest.raises(DataError, match=r"line 2: column image: sub\\a\.png is named in 2 rows"):
        read_manifest(written(folder, "image\nsub\\a.png\n./sub/a.png\n"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (r"C:\images\a.png", "that is a path of a Windows drive; write it relative to"),
        ("A.PNG", r"there is 'a\.png': write it so, in these letters"),
        ("nowhere/a.png", "paths are relative to"),
        ("a\0.png", "zero bytes"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_own_remedy(folder, name, remedy):
    with pytest.raises(DataError, match=remedy):
        read_manifest(written(folder, f"image\n{name}\n"))


def test_an_unknown_label_is_said_with_the_first_row_and_the_class_it_may_mean(folder):
    path = written(folder, "image,label\na.png,Benign\nb.png,be\u200bnign\nc.png,zyst\n")
    words = (
        r"not classes of the study: 'Benign' \(1\) from line 2 on for 'benign', "
        r"'be\\u200bnign' \(1\) from line 3 on for 'benign', 'zyst' \(1\) from line 4 on"
    )
    with pytest.raises(DataError, match=words):
        check_labels(read_manifest(path), ["benign", "malignant"], "manifest.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_rows_are_taken_out_of_a_file_as_a_spreadsheet_saved_it(folder, encoding):
    """Only UTF-8 with commas and small letters was known."""
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    text = mark + 'Image;Patient ID;note\r\na.png;p1;"two\nlines"\r\nb.png;p2;kept\r\nc.png;p1;\r\n'
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    assert patients_by_image(path) == {"a.png": "p1", "b.png": "p2", "c.png": "p1"}
    take_out(path, {"a.png", "c.png"})
    assert path.read_bytes() == (mark + "Image;Patient ID;note\r\nb.png;p2;kept\r\n").encode(
        encoding
    )


def test_all_fields_are_given_by_image_and_column(folder):
    path = written(folder, "Image;scanner\na.png; north \n")
    assert fields_by_image(path)["a.png"]["scanner"] == "north"
