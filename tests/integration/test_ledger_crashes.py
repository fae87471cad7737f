"""The ledger under kill -9: never below what left, at most one charge above it for each kill."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.privacy.accountant import Charge, epsilon
from hica_client import chain
from hica_client.ledger import Budget, Release, spendings, verify
from hica_client.ledger import charge as ledger_charge

DELTA = 1e-5
RUNS = 3
KILLS = 5
"""In every run."""
MECHANISMS = [Charge(1.7, 0.26, 10), Charge(1.7, 0.26, 3), Charge(4.0), Charge(9.0, 1.0, 2)]
POINTS = (
    "before the charge",
    "in the middle of the line",
    "after the line, before it is synced",
    "after the line, before the head",
    "in the middle of the head",
    "after the head, before the release",
    "after the release",
)
FORK = multiprocessing.get_context("fork")


def charge(path, each, most, delta, **options):
    """Charge it, under a site's budget and a study's that is never reached."""
    budget = Budget(max_epsilon=most, delta=delta, study_epsilon=1e9, study_delta=delta)
    return ledger_charge(path, each, budget, **options)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_charge(point):
    """Arrange that this process is killed at a point of the next charge."""
    append_line, write_real_head = chain.append_line, chain.write_head

    def append(file, line):
        if point == "in the middle of the line":
            file.write(line[: len(line) // 2])
            kill()
        if point == "after the line, before it is synced":
            os.fsync = lambda number: kill()
        return append_line(file, line)

    def write_head(path, head):
        if head.n == 0:  # of a new ledger, before its first line
            return write_real_head(path, head)
        if point == "in the middle of the head":
            path.with_suffix(".part").write_bytes(b'{"n": ')
        return kill()

    chain.append_line = append
    if point in ("after the line, before the head", "in the middle of the head"):
        chain.write_head = write_head


def site(folder, run, plan, kills):
    """A site's process: goes on with a run where its markers say, and dies where it is told to.

    Args:
        folder: Of the ledger and the markers.
        run: Number of the run.
        plan: Its charges.
        kills: Charge of this life → point of it at which to die.
    """
    markers = folder / "released.jsonl"
    done = sum(json.loads(line)["run_id"] == run for line in read_lines(markers))
    for life, number in enumerate(range(done, len(plan))):
        point = kills.get(life)
        if point == "before the charge":
            kill()
        release = release_of(run, number, plan[number])
        kill_in_charge(point)
        charge(folder / "ledger.jsonl", release, 1e6, DELTA)
        if point == "after the head, before the release":
            kill()
        with markers.open("a") as file:
            file.write(json.dumps(vars(release)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if point == "after the release":
            kill()


def release_of(run, number, spent):
    return Release(
        study=f"{run:064x}",
        run_id=run,
        round=number,
        kind="train.align",
        question="12" * 32,
        mechanism="gaussian" if spent.sampling_rate == 1 else "sampled gaussian",
        unit="patient",
        holds="everyone",
        noise="secure",
        noise_multiplier=spent.noise_multiplier,
        sampling_rate=spent.sampling_rate,
        steps=spent.steps,
    )


def read_lines(path):
    return path.read_text().splitlines() if path.exists() else []


def charges(lines):
    """Read without the ledger's own code."""
    tables = [json.loads(line) for line in lines]
    return [
        Charge(each["noise_multiplier"], each["sampling_rate"], each["steps"]) for each in tables
    ]


@pytest.fixture(scope="module", autouse=True)
def _accountant_is_loaded():
    """Once, and not in each of the processes."""
    epsilon(MECHANISMS, DELTA)


plans = st.lists(st.sampled_from(MECHANISMS), min_size=2 * KILLS + 1, max_size=14)
deaths = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(POINTS)), min_size=KILLS, max_size=KILLS
)


@pytest.mark.matrix
@settings(max_examples=15)
@given(st.lists(st.tuples(plans, deaths), min_size=RUNS, max_size=RUNS))
def test_never_below_what_left_and_at_most_a_charge_above_for_each_kill(runs):
    with TemporaryDirectory() as name:
        folder = Path(name)
        crashes = 0
        for run, (plan, kills) in enumerate(runs):
            for after, point in [*kills, (0, "")]:  # the last life of a run is not cut short
                process = FORK.Process(target=site, args=(folder, run, plan, {after: point}))
                process.start()
                process.join()
                assert process.exitcode in (0, -signal.SIGKILL)
                crashes += process.exitcode == -signal.SIGKILL
        assert crashes == RUNS * KILLS
        check(folder, crashes)
        released = charges(read_lines(folder / "released.jsonl"))
        assert released == [each for plan, _ in runs for each in plan]


@pytest.mark.parametrize("point", POINTS)
def test_each_point_of_death(tmp_path, point):
    """Five times in a row at the same one, in each of three runs."""
    for run in range(RUNS):
        plan = [Charge(4.0)] * 7
        for life in range(KILLS):
            process = FORK.Process(target=site, args=(tmp_path, run, plan, {0: point}))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            check(tmp_path, run * KILLS + life + 1)
        process = FORK.Process(target=site, args=(tmp_path, run, plan, {}))
        process.start()
        process.join()
        assert process.exitcode == 0
    check(tmp_path, RUNS * KILLS)
    leaves_a_charge = POINTS.index(point) in (2, 3, 4, 5)
    charged = read_lines(tmp_path / "ledger.jsonl")
    assert len(charged) == RUNS * 7 + leaves_a_charge * RUNS * KILLS


def check(folder, crashes):
    """What must hold of ledger and releases after any number of kills."""
    ledger = folder / "ledger.jsonl"
    text = ledger.read_text() if ledger.exists() else ""
    charged = charges(text[: text.rfind("\n") + 1].splitlines())
    released = charges(read_lines(folder / "released.jsonl"))
    assert not Counter(released) - Counter(charged)
    assert len(charged) <= len(released) + crashes
    found = epsilon((each.charge for each in spendings(verify(ledger))), DELTA)
    assert found == epsilon(charged, DELTA)
    assert found >= epsilon(released, DELTA)
