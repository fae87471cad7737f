import io
import zipfile

import pytest

from hica.errors import DataError
from hica.images.table import read_table


@pytest.fixture
def table(tmp_path):
    def read(data: str | bytes):
        path = tmp_path / "m.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_table(path)

    return read


def rows(read):
    return [(row.fields["image"], row.fields["label"]) for row in read.rows]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image,label\r\na.png,x\r\nb.png,y\r\n", []),
        ("image;label\na.png;x\nb.png;y\n", ["semicolons"]),
        ("image\tlabel\na.png\tx\nb.png\ty\n", ["tabs"]),
        ('"image";"label"\n"a.png";"x"\n"b.png";"y"\n', ["semicolons"]),
        ("sep=;\r\nimage;label\r\na.png;x\r\nb.png;y\r\n", ["semicolons"]),
        ("image,label\na.png,x,,,\nb.png,y,, ,\n", []),
        ("image,label,,\na.png,x,,\nb.png,y,,\n", []),
        ("\n\nimage,label\n\na.png , x\u00a0\n b.png,\ty\n,\n", []),
        ("\ufeff\ufeffimage,label\na.png,x\nb.png,y\n", []),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_file_is_read_however_a_spreadsheet_saved_it(table, text, told, encoding):
    read = table(text.encode(encoding))
    assert rows(read) == [("a.png", "x"), ("b.png", "y")]
    assert read.problems == []
    assert len(read.notes) == len(told)
    assert all(word in note for word, note in zip(told, read.notes, strict=True))


def test_lines_are_counted_as_in_the_file(table):
    read = table('sep=,\nimage,label,report\n\na.png,x,"two\nlines"\nb.png,y,\n')
    assert [(row.start, row.end, row.line) for row in read.rows] == [(3, 5, 5), (5, 6, 6)]


def test_values_without_a_column_and_short_rows_are_told(table):
    read = table("image,label,,note\na.png,x,what,\nb.png\nc.png,y\n")
    assert [note.partition(": ")[2] for note in read.notes] == [
        "columns that are not read: note",
        "2 rows have fewer fields than there are columns, the first is line 3: what is missing is "
        "taken for empty",
        "column 3 has values but no name, and is not read",
    ]


def xlsx() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (xlsx(), r"is a workbook \(\.xlsx or \.ods\) under the name of a CSV file; .*CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), r"is a workbook \(\.xls\) under the name"),
        (b"image,label\na.png,x\nb.p\0ng,y\n", r"line 3: holds zero bytes"),
        ("image,label\na.png,häm\n".encode("latin-1"), r"not UTF-8 .*save the file as CSV UTF-8"),
        (b"\xff\xfei\0m\0a", r"not UTF-16, as which it begins .*save the file as CSV UTF-8"),
        (
            'image,label\na.png,"x\nb.png,y\n',
            r"line 2: not valid CSV: .*a double quote is not clos",
        ),
        ('image,label\na.png,x\nb.png,"x"y\n', r"line 3: not valid CSV: .*must be written twice"),
        ("image,label,Label\na.png,x,y\n", r"line 1: 2 columns are named label: `label`, `Label`"),
        ("image,image\na.png,b.png\n", r"line 1: 2 columns are named image: `image`, `image`"),
        ("", r"line 1: no column `image`; columns found: none"),
    ],
)
def test_a_file_that_cannot_be_read_has_its_own_remedy(table, data, words):
    with pytest.raises(DataError, match=rf"m\.csv: {words}"):
        table(data)


def test_a_quote_that_swallows_the_next_rows_is_found(table):
    """Three rows were one, without a word."""
    read = table('image,label,split\na.png,"x,train\nb.png,y,train\nc.png,z",train\n')
    assert read.rows == []
    (problem,) = read.problems
    assert "line 4: column label: a line break in 'x,train" in str(problem.problem)
    assert "a double quote is opened on line 2 and not closed there" in str(problem.problem)
