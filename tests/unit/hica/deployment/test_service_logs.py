import os
import subprocess

import pytest

from hica.deployment.service_logs import show_logs
from hica.errors import ConfigurationError, StorageError

WRITER = "hica-server run study"


@pytest.fixture
def folder(tmp_path):
    for name in ("gateway", "superlink"):
        text = "".join(f"{name} {number}\n" for number in range(5))
        (tmp_path / f"{name}.log").write_text(text)
        (tmp_path / f"{name}.log.1").write_text("older\n")
    return tmp_path


def test_the_last_lines_of_every_log_are_shown_under_its_name(folder, capfd):
    show_logs(folder, None, 2, False, WRITER)
    gateway, superlink = (folder / f"{name}.log" for name in ("gateway", "superlink"))
    assert capfd.readouterr().out == (
        f"==> {gateway} <==\ngateway 3\ngateway 4\n\n"
        f"==> {superlink} <==\nsuperlink 3\nsuperlink 4\n"
    )


def test_one_log_may_be_chosen(folder, capfd):
    show_logs(folder, "gateway", 1, False, WRITER)
    assert "superlink" not in capfd.readouterr().out


def test_a_log_that_is_not_there_is_told_with_those_that_are(folder):
    with pytest.raises(ConfigurationError, match=r"--service nginx: choose one of gateway, super"):
        show_logs(folder, "nginx", 1, False, WRITER)


def test_a_reader_that_has_gone_is_told_as_one(folder, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **more: real(*a, stdout=write, **more))
    with pytest.raises(BrokenPipeError):
        show_logs(folder, None, 2, False, WRITER)
    os.close(write)


def test_a_log_that_cannot_be_read_is_an_error_in_words(folder):
    (folder / "gateway.log").unlink()
    (folder / "gateway.log").symlink_to(folder / "nowhere")
    with pytest.raises(StorageError, match="not all logs could be shown"):
        show_logs(folder, None, 2, False, WRITER)


def test_before_the_first_run_it_says_what_writes_logs(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no logs yet; .* hica-server run study"):
        show_logs(tmp_path, None, 1, False, WRITER)
