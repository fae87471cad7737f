import pytest

from hica.errors import ConfigurationError
from hica_server.logs import show_logs
from hica_server.settings import Folder


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path)
    folder.logs.mkdir(parents=True)
    for name in ("gateway", "superlink"):
        text = "".join(f"{name} {number}\n" for number in range(5))
        (folder.logs / f"{name}.log").write_text(text)
        (folder.logs / f"{name}.log.1").write_text("older\n")
    return folder


def test_the_last_lines_of_every_log_are_shown_under_its_name(folder, capfd):
    show_logs(folder.root, None, 2, follow=False)
    gateway, superlink = (folder.logs / f"{name}.log" for name in ("gateway", "superlink"))
    assert capfd.readouterr().out == (
        f"==> {gateway} <==\ngateway 3\ngateway 4\n\n"
        f"==> {superlink} <==\nsuperlink 3\nsuperlink 4\n"
    )


def test_one_log_may_be_chosen(folder, capfd):
    show_logs(folder.root, "gateway", 1, follow=False)
    assert "superlink" not in capfd.readouterr().out


def test_a_log_that_is_not_there_is_told_with_those_that_are(folder):
    with pytest.raises(ConfigurationError, match=r"--service nginx: choose one of gateway, super"):
        show_logs(folder.root, "nginx", 1, follow=False)


def test_before_the_first_run_it_says_what_writes_logs(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no logs yet; .* hica-server run"):
        show_logs(tmp_path, None, 1, follow=False)
