import json

import pytest

from hica_server.progress import Progress, read_progress
from hica_server.settings import Folder
from hica_server.state import RunState
from hica_server.tracker import FILE_NAME


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def entry(stage="alignment", round_=3, **changes):
    return {
        "stage": stage,
        "round": round_,
        "participants": ["a", "b"],
        "missing": [],
        "refused": {},
        "loss": 0.5,
        "bytes_up": 10,
        "bytes_down": 20,
        "seconds": 1.0,
        **changes,
    }


def test_before_the_first_run_there_is_nothing_to_read(folder):
    assert read_progress(folder) == {}


def test_a_step_an_exchange_and_a_saved_state_are_told_as_they_happen(folder):
    progress = Progress(folder)
    assert read_progress(folder)["step"] == "starting"
    progress.step("alignment 1/2", 4, 9)
    assert read_progress(folder).items() >= {"step": "alignment 1/2", "number": 4, "of": 9}.items()
    progress.entry(entry(missing=["c"], refused={"d": "disk is full"}))
    told = read_progress(folder)
    assert (told["stage"], told["round"], told["participants"]) == ("alignment", 4, ["a", "b"])
    assert (told["missing"], told["refused"]) == (["c"], {"d": "disk is full"})
    assert (told["bytes_up"], told["bytes_down"], told["failures"]) == (10, 20, 2)
    progress.saved(RunState("0" * 64, done=5, rounds=[entry(missing=["c"])]))
    told = read_progress(folder)
    assert (told["done"], told["bytes_up"], told["failures"]) == (5, 10, 1)


def test_a_resumed_run_counts_on_from_what_is_on_disk(folder):
    Progress(folder).entry(entry())
    resumed = Progress(folder)  # of the next process; that exchange was not saved
    resumed.saved(RunState("0" * 64, done=1, rounds=[entry("centre", bytes_up=1)]))
    resumed.entry(entry(bytes_up=5))
    told = read_progress(folder)
    assert (told["done"], told["bytes_up"]) == (1, 6)


def test_sites_that_are_waited_for_are_named(folder):
    Progress(folder).waiting(["c"])
    told = read_progress(folder)
    assert (told["step"], told["missing"]) == ("waiting for sites", ["c"])


def test_tensorboard_follows_the_saved_rounds(folder):
    progress = Progress(folder)
    progress.saved(RunState("0" * 64, rounds=[entry()]))
    events = folder.run / "events" / FILE_NAME
    size = events.stat().st_size
    progress.saved(RunState("0" * 64, rounds=[entry(), entry(round_=4)]))
    assert events.stat().st_size > size


def test_a_reader_never_sees_half_a_file(folder):
    progress = Progress(folder)
    progress.step("one", 0, 2)
    assert json.loads(folder.progress.read_bytes()) == read_progress(folder)
    assert [path.name for path in folder.run.iterdir()] == ["progress.json"]
