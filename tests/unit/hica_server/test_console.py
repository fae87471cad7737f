from datetime import datetime
from io import StringIO

import pytest
from rich.console import Console

from hica_server import console as module
from hica_server.console import Display, final_table, gain_table, left_out
from hica_server.progress import Progress
from hica_server.settings import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def shown(folder, monkeypatch):
    """A display, and a function that returns what it has printed, without times."""

    def shown(terminal=False):
        text = StringIO()
        console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
        monkeypatch.setattr(module, "console", console)
        return Display(folder), lambda: [without_times(line) for line in lines(text)]

    def without_times(line):
        """A line is: when it was, what there is to say, seconds since the start."""
        time, _, rest = line.partition("Z ")
        datetime.fromisoformat(time)
        return rest.rpartition(" (")[0]

    def lines(text):
        return text.getvalue().splitlines()

    return shown


def test_in_a_log_every_step_is_a_line(folder, shown):
    display, lines = shown()
    with display:
        display.refresh()  # before the ServerApp has said anything
        progress = Progress(folder)
        display.refresh()
        progress.step("centre", 0, 2)
        display.refresh()
        display.refresh()
        progress.step("evaluation", 1, 2)
        display.refresh()
    assert lines() == ["starting", "[1/2] centre", "[2/2] evaluation"]


def test_on_a_terminal_there_is_a_bar(folder, shown):
    display, _ = shown(terminal=True)
    with display:
        Progress(folder).step("centre", 0, 2)
        display.refresh()
    output = module.console.file.getvalue()
    assert "0/2" in output
    assert "centre" in output


def test_sites_that_are_left_out_are_named_once_with_the_reason(folder, shown):
    display, lines = shown()
    progress = Progress(folder)
    with display:
        for _ in range(2):
            progress.write(
                step="alignment 1/2",
                number=0,
                of=2,
                stage="alignment",
                round=1,
                missing=["c"],
                refused={"d": "[loss] is nan"},
            )
            display.refresh()
    assert lines() == ["[1/2] alignment 1/2", "alignment round 1: c is missing; d: [loss] is nan"]


def test_while_sites_are_waited_for_they_are_named():
    assert left_out({"step": "waiting for sites", "missing": ["c"]}) == "start: c is missing"


def test_the_table_has_a_row_for_what_was_measured_and_a_dash_for_what_was_not():
    interval = {"value": 0.8125, "low": 0.7, "high": 0.9}
    measured = {"accuracy": interval, "balanced_accuracy": interval, "auroc": None}
    result = {
        "study": "toy",
        "seed": 3,
        "final": measured,
        "baselines": {"zero_shot": measured},
    }
    text = StringIO()
    Console(file=text, width=160).print(final_table(result))
    assert "toy, seed 3" in text.getvalue()
    (row,) = [line for line in text.getvalue().splitlines() if "federated" in line]
    assert "81.2 [70.0, 90.0]" in row
    assert "–" in row
    assert "texts only" in text.getvalue()
    assert "pooled" not in text.getvalue()


def test_methods_that_only_a_simulation_has_are_shown_where_their_titles_are_given():
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    measured = {"accuracy": interval, "balanced_accuracy": interval, "auroc": interval}
    result = {"study": "toy", "seed": 3, "final": measured, "baselines": {"probe": measured}}
    assert final_table(result).row_count == 1
    assert final_table(result, {"probe": "a probe", "federated": "ours"}).row_count == 2


def test_what_joining_gave_is_a_row_a_site():
    def metric(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.01}

    gain = {
        "alone": {"accuracy": metric(0.8), "balanced_accuracy": metric(0.7), "auroc": None},
        "personal": {"accuracy": metric(0.85), "balanced_accuracy": metric(0.69), "auroc": None},
        "difference": {"accuracy": metric(0.05), "balanced_accuracy": metric(-0.01), "auroc": None},
    }
    text = StringIO()
    Console(file=text, width=160).print(gain_table({"gain": {"north[1]": gain}}))
    (row,) = [line for line in text.getvalue().splitlines() if "north[1]" in line]
    assert "70.0 → 69.0" in row and "-1.0 [-3.0, +0.0]" in row and "–" in row
    assert gain_table({"gain": {}}) is None and gain_table({}) is None


def test_where_methods_saw_different_images_each_says_how_many():
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    measured = {"accuracy": interval, "balanced_accuracy": interval, "auroc": interval}
    final, fewer = {**measured, "n": 50}, {**measured, "n": 40}
    for before, shown in ((fewer, ["(texts only), n = 40", "federated, n = 50"]), (final, [])):
        result = {"study": "toy", "seed": 3, "final": final, "baselines": {"zero_shot": before}}
        text = StringIO()
        Console(file=text, width=160).print(final_table(result))
        assert all(words in text.getvalue() for words in shown)
        assert ("n = " in text.getvalue()) == bool(shown)
