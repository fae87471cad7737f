import pytest

from hica.errors import StorageError
from hica_server.asked import Asked, note_asked, read_asked


def test_what_is_asked_adds_up_and_the_largest_is_kept(tmp_path):
    path = tmp_path / "asked.json"
    assert read_asked(path) == {}
    note_asked(path, {"a": 10, "b": 5})
    note_asked(path, {"a": 7})
    assert read_asked(path) == {"a": Asked(17, 10), "b": Asked(5, 5)}


@pytest.mark.parametrize("text", ["", "[]", '{"a": [1]}', '{"a": [-1, 0]}', "\xff"])
def test_a_damaged_file_is_said_and_begun_anew(tmp_path, text, caplog):
    path = tmp_path / "asked.json"
    path.write_text(text, encoding="latin-1")
    assert read_asked(path) == {}
    assert "asked.json: cannot be read, and begins anew" in caplog.text
    note_asked(path, {"a": 1})
    assert read_asked(path) == {"a": Asked(1, 1)}


def test_what_cannot_be_noted_is_not_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        note_asked(tmp_path / "file" / "asked.json", {"a": 1})
