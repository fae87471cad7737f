"""Whole runs over scripted sites: published, gathered, walked, resumed and left as a result."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from hica.steps.clusters import LLOYD
from hica.steps.plan import plan
from hica_server.app import Watcher, run_study
from hica_server.state import RunState

SHORT = ["pretraining.rounds=1", "pretraining.clusters=3", "pretraining.lloyd_rounds=3"]
SHORT += ["alignment.rounds=2", "calibration.rounds=1"]


class CrashError(Exception):
    """Stands for the end of the process."""


class Place:
    """A run directory and its sites; every run begins as a new process would.

    Attributes:
        told: Steps, exchanges, and how many steps were done in each saved state, as they came.
    """

    def __init__(self, make_run, make_site, out):
        self.out, self.told = out, []
        sizes = {"a": 40, "b": 30}
        self._new = lambda: make_run(
            *(make_site(name, 0.01, unlabelled=size) for name, size in sizes.items()),
            overrides=SHORT,
        )
        self.study = self._new().study

    def run(self, crash_at=None, **more):
        fresh = self._new()

        def publish():
            self.told.append("publish")
            self.out.mkdir(exist_ok=True)
            replace(fresh.state, tower="good").save(self.out)

        def step(title, number, of):
            if number == crash_at:
                raise CrashError
            self.told.append((title, number, of))

        watcher = Watcher(
            step,
            lambda entry: self.told.append(entry["stage"]),
            lambda state: self.told.append(state.done),
        )
        gather = more.pop("gather", lambda: self.told.append("gather"))
        return run_study(fresh.grid, self.study, self.out, publish, watcher, gather=gather, **more)

    @property
    def state(self):
        return RunState.load(self.out, self.study.sha256)

    @property
    def model(self):
        return load_file(self.out / "model.safetensors")


@pytest.fixture
def place(make_run, make_site, tmp_path):
    """`place(name)`: a run directory of this name, and its sites."""
    return lambda name="run": Place(make_run, make_site, tmp_path / name)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_is_published_gathered_and_walked_in_the_order_of_its_plan(place):
    here = place()
    result = here.run()
    assert here.told[:4] == ["publish", 0, "gather", "capabilities"]
    turns = plan(here.study)
    walked = [each for each in here.told[4:] if isinstance(each, tuple)]
    assert walked == [(turn.title, n, len(turns)) for n, turn in enumerate(turns)]
    assert [each for each in here.told[4:] if isinstance(each, int)] == [
        number + 1 for number in range(len(turns))
    ]
    assert result["rounds"] == here.state.rounds
    assert set(result["baselines"]) == {"zero_shot"}
    assert result["final"]["n"] == 12


def test_the_texts_alone_need_not_be_evaluated(place):
    whole, without = place("whole"), place("without")
    whole.run()
    result = without.run(zero_shot=False)
    titles = [each[0] for each in without.told if isinstance(each, tuple)]
    assert titles == [turn.title for turn in plan(without.study) if not turn.optional]
    assert len(titles) == len(plan(without.study)) - 1
    assert result["baselines"] == {}
    assert_same(whole.model, without.model)


def test_a_run_that_ends_before_any_step_goes_on_to_the_same_bits(place):
    whole = place("whole")
    expected = json.loads(json.dumps(whole.run()))
    lloyd = [number for number, turn in enumerate(plan(whole.study)) if turn.step is LLOYD]
    moved = []
    for number in range(len(plan(whole.study))):
        crashed = place(f"crashed-{number}")
        with pytest.raises(CrashError):
            crashed.run(crash_at=number)
        assert crashed.state.done == number
        moved.append(crashed.state.learnt.centroids)
        crashed.told.clear()
        result = json.loads(json.dumps(crashed.run()))
        last = number == len(plan(whole.study)) - 1  # who was told of the end is not waited for
        waits = [number, "capabilities"] if last else [number, "gather", "capabilities"]
        assert crashed.told[: len(waits)] == waits  # and nothing is published
        assert crashed.told[len(waits)][1] == number
        assert (result["final"], result["per_site"]) == (expected["final"], expected["per_site"])
        assert_same(crashed.model, whole.model)
        np.testing.assert_array_equal(crashed.state.learnt.centroids, whole.state.learnt.centroids)
    for number in lloyd[:2]:  # there is something between two Lloyd steps to go on from
        assert not np.array_equal(moved[number], moved[number + 1])


def test_a_finished_run_meets_its_sites_and_asks_them_nothing(place):
    here = place()
    expected = here.run()
    here.told.clear()
    again = here.run()
    assert here.told == [len(plan(here.study)), "capabilities"]
    assert again["final"] == expected["final"]


def test_what_it_starts_from_is_on_disk_before_sites_are_waited_for(place):
    here = place()

    def gather():
        assert here.state.tower == "good"
        raise CrashError

    with pytest.raises(CrashError):
        here.run(gather=gather)
    here.told.clear()
    here.run()
    assert here.told[:2] == [0, "gather"]
