import pytest

from hica.errors import ConfigurationError
from hica_server.folder_arguments import RUN_FOLDER, STUDY_FOLDER


@pytest.mark.parametrize("name", ["", "study.toml", "server.toml"])
def test_a_file_of_a_study_folder_stands_for_it(tmp_path, name):
    (tmp_path / "study.toml").touch()
    assert STUDY_FOLDER.convert(str(tmp_path / name), None, None) == tmp_path


def test_a_file_in_the_present_folder_stands_for_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").touch()
    assert STUDY_FOLDER.convert("study.toml", None, None).resolve() == tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "no study.toml in it"), ("a", "no such folder"), ("file", "is a file, not a folder")],
)
def test_what_is_no_study_folder_is_refused(tmp_path, name, words):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"{words}; name the study folder"):
        STUDY_FOLDER.convert(str(tmp_path / name), None, None)


def test_a_run_is_named_by_its_folder_its_result_or_its_study(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "study.toml").touch()
    for named in (run, run / "result.json", tmp_path):
        assert RUN_FOLDER.convert(str(named), None, None) == run
    with pytest.raises(ConfigurationError, match="no such folder"):
        RUN_FOLDER.convert(str(tmp_path / "nowhere"), None, None)
