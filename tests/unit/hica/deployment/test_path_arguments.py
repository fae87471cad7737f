from pathlib import Path

import pytest

from hica.deployment.path_arguments import A_PATH, SITE_FILE, STUDY_FILE
from hica.errors import ConfigurationError


def test_a_folder_stands_for_the_file_in_it(tmp_path):
    assert SITE_FILE.convert(str(tmp_path), None, None) == tmp_path / "site.toml"
    assert STUDY_FILE.convert(tmp_path, None, None) == tmp_path / "study.toml"


def test_a_file_and_what_is_not_there_stand_for_themselves(tmp_path):
    (tmp_path / "mine.toml").touch()
    for name in ("mine.toml", "nowhere.toml"):
        assert SITE_FILE.convert(str(tmp_path / name), None, None) == tmp_path / name
    assert A_PATH.convert(str(tmp_path), None, None) == tmp_path


def test_nothing_and_what_no_system_takes_are_refused():
    with pytest.raises(ConfigurationError, match="empty; name a file or folder"):
        A_PATH.convert("", None, None)
    with pytest.raises(ConfigurationError, match="cannot be looked at: File name too long"):
        SITE_FILE.convert(str(Path("x" * 300)), None, None)
