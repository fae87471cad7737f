from datetime import date

import pytest
import tomli_w

from hica.errors import ConfigurationError, StorageError
from hica.study import read_toml
from hica_server.findings.draft import Draft, Source, read_reviewed, write_draft

SOURCE = Source(
    kind="language-model",
    model="little",
    sha256="ab" * 32,
    prompt='List {count} "findings"\nof {name}.\n',
    seed=3,
    date=date(2026, 1, 2),
)


@pytest.fixture
def refusal(tmp_path, study, draft):
    """What is said of the draft after `change` was done to its table."""

    def read(change) -> str:
        table = draft.model_dump(mode="json", exclude_none=True)
        change(table)
        path = tmp_path / "findings.toml"
        path.write_text(tomli_w.dumps(table))
        with pytest.raises(ConfigurationError) as refused:
            read_reviewed(path, study)
        said = str(refused.value)
        assert all(line.startswith(f"{path}: ") for line in said.splitlines())
        return said

    return read


def test_what_was_written_is_read(tmp_path, study, draft):
    whole = draft.model_copy(update={"source": SOURCE})
    path = tmp_path / "new" / "findings.toml"
    write_draft(path, whole, study)
    assert read_reviewed(path, study) == whole


def test_the_file_says_what_to_check(tmp_path, study, draft):
    write_draft(tmp_path / "f.toml", draft, study)
    text = (tmp_path / "f.toml").read_text()
    for words in ("ONE region", "never what is absent", "positives of every class", "reviewed_by"):
        assert words in text.partition("reviewed_by =")[0]
    assert text.count("[[classes]]") == len(study.classes)


def test_what_is_not_known_of_the_source_is_left_out(tmp_path, study, draft):
    write_draft(tmp_path / "f.toml", draft, study)
    assert read_toml(tmp_path / "f.toml")["source"] == {"kind": "curated", "date": date(2026, 1, 2)}


def test_a_draft_that_nobody_has_read_is_refused(refusal):
    for nobody in ("", "  "):
        said = refusal(lambda table, nobody=nobody: table.update(reviewed_by=nobody))
        assert "reviewed_by is empty" in said
        assert 'set reviewed_by = "YOUR NAME"' in said


def test_a_new_draft_is_unread(draft):
    assert Draft.of(SOURCE, draft.findings).reviewed_by == ""


def _rename(table):
    table["classes"][1]["name"] = "bening"


def _drop(table):
    del table["classes"][2]


def _double(table):
    table["classes"].append(table["classes"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename, ["'bening': is no class", "normal, benign, malignant", "correct the name"]),
        (_rename, ["'benign': is missing; add a [[classes]] table"]),
        (_drop, ["'malignant': is missing"]),
        (_double, ["'normal': is given twice; make one table"]),
    ],
)
def test_classes_are_those_of_the_study(refusal, change, words):
    said = refusal(change)
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ([], "'benign': has no findings; give at least one"),
        (["oval shape", " "], "'benign': finding ' ' is empty; rewrite or remove it"),
        (["oval", "Oval"], "'benign': finding 'oval' is listed more than once; keep one"),
        (["x" * 101], "has 101 characters, more than 100; rewrite"),
        (["a\tb"], "finding 'a\\tb' holds a control"),
    ],
)
def test_findings_that_cannot_be_used_are_named(refusal, findings, words):
    assert words in refusal(lambda table: table["classes"][1].update(findings=findings))


def test_every_problem_is_listed_at_once(refusal):
    def change(table):
        table["classes"][0]["findings"] = []
        table["classes"][1]["findings"] = ["a|b", "c", "c"]

    assert len(refusal(change).splitlines()) == 3


def test_a_finding_may_be_listed_by_several_classes(tmp_path, study, draft):
    shared = Draft.of(SOURCE, {name: ["hypoechoic"] for name in study.class_names})
    write_draft(tmp_path / "f.toml", shared, study)
    assert (tmp_path / "f.toml").exists()


def test_other_keys_and_values_are_refused(refusal):
    assert "unknown key; known keys: reviewed_by" in refusal(lambda t: t.update(reviewer="me"))
    assert "source.kind" in refusal(lambda table: table["source"].update(kind="oracle"))
    assert "source.date" in refusal(lambda table: table["source"].update(date="soon"))
    assert "classes.0.findings" in refusal(lambda t: t["classes"][0].update(findings="oval"))


def test_a_file_that_is_missing_or_torn_is_named(tmp_path, study):
    path = tmp_path / "f.toml"
    with pytest.raises(ConfigurationError, match=r"f\.toml: no such file"):
        read_reviewed(path, study)
    path.write_text("reviewed_by = ")
    with pytest.raises(ConfigurationError, match=r"f\.toml: not valid TOML"):
        read_reviewed(path, study)


def test_an_existing_file_is_left_alone(tmp_path, study, draft):
    path = tmp_path / "f.toml"
    path.write_text("corrected by hand")
    with pytest.raises(ConfigurationError, match="exists and is left alone"):
        write_draft(path, draft, study)
    assert path.read_text() == "corrected by hand"


def test_a_draft_that_could_not_be_read_is_not_written(tmp_path, study):
    with pytest.raises(ConfigurationError, match="'malignant': is missing"):
        write_draft(tmp_path / "f.toml", Draft.of(SOURCE, {"benign": ["oval"]}), study)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path, study, draft):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_draft(tmp_path / "file" / "f.toml", draft, study)
