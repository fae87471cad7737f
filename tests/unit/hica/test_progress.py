import io
import re

import pytest
import rich.progress

from hica import progress
from hica.progress import say, track


def test_a_log_gets_a_line_at_start_and_end(capsys):
    assert list(track([1, 2, 3], "reading images")) == [1, 2, 3]
    output = capsys.readouterr()
    assert output.out == ""
    first, last = output.err.splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
    assert re.fullmatch(time + "reading images: 3 items", first)
    assert re.match(time + "reading images: done in ", last)


@pytest.mark.parametrize(("total", "said"), [(2, "2 items"), (None, "some items")])
def test_total_of_a_generator(capsys, total, said):
    assert list(track((x for x in "ab"), "clustering", total)) == ["a", "b"]
    assert capsys.readouterr().err.splitlines()[0].endswith(f" clustering: {said}")


def test_a_line_is_written_whole_for_other_threads_write_too(monkeypatch):
    written = []
    screen = io.StringIO()
    monkeypatch.setattr(screen, "write", written.append)
    monkeypatch.setattr("sys.stderr", screen)
    say("north: done")
    assert written == ["north: done\n"]


def test_a_failed_loop_is_not_reported_as_done(capsys):
    def broken():
        yield 1
        raise RuntimeError

    with pytest.raises(RuntimeError):
        list(track(broken(), "training"))
    assert "done" not in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "console", console)
    assert list(track(range(4), "encoding")) == [0, 1, 2, 3]
    assert "encoding" in screen.getvalue()
    assert "100%" in screen.getvalue()
