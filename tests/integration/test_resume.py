"""Runs that are killed, interrupted or out of disk go on to the same bits by the same command."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hica.steps.clusters import LLOYD
from hica.steps.plan import plan
from hica_server.app import Watcher
from hica_server.state import RunState
from hica_simulations.cli import main
from hica_simulations.run import introduce
from hica_simulations.scenario import load_scenario

SCENARIO = """
[study]
name = "resumed"
[model]
train = "adapter"
adapter_width = 8
[text]
epochs = 1
[[classes]]
name = "normal"
healthy = true
prompts = ["normal tissue"]
findings = ["parallel tissue layers"]
[[classes]]
name = "smooth"
prompts = ["an oval mass with a smooth margin"]
findings = ["oval shape", "smooth margin"]
[[classes]]
name = "spiculated"
prompts = ["an irregular mass with spicules"]
findings = ["taller than wide", "spiculated margin"]
[pretraining]
rounds = 2
clusters = 3
lloyd_rounds = 2
recluster_every = 1
[alignment]
rounds = 3
shots = 3
views = 2
centring = "site"
[federation]
aggregation = "adam"
min_count = 4
[regions]
method = "masks"
count = 2
[simulation]
test_fraction = 0.5
[simulation.phantoms]
modality = "ultrasound"
per_class = 8
size = 32
[[simulation.sites]]
name = "north"
[[simulation.sites]]
name = "south"
shift = { gain = 1.2 }
"""

INTERRUPTIONS = [
    ("south: drawing phantoms", signal.SIGKILL),
    ("federated: [10/27] clusters", signal.SIGKILL),  # between two Lloyd steps
    ("federated: [12/27] pretraining 2/2", signal.SIGINT),
    ("federated: [17/27] alignment 2/3", signal.SIGKILL),
    ("federated: [23/27] calibration 3/4", signal.SIGKILL),
    ("federated: [26/27] evaluation", signal.SIGKILL),
    ("federated: [27/27] telling the end", signal.SIGKILL),
    ("local only: south: [14/25] alignment 1/3", signal.SIGKILL),
]
"""What the command says it begins with, and how it is ended upon that."""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "scenario.toml"
    path.write_text(SCENARIO)
    return path


def arguments(scenario, folder):
    return ["run", str(scenario), f"--out={folder / 'run'}", f"--cache={folder / 'cache'}"]


def hica_sim(scenario, folder, until=None, by=None):
    """Run the command, ended by a signal at a line of its log; returns exit code and log."""
    command = [Path(sysconfig.get_path("scripts")) / "hica-sim", *arguments(scenario, folder)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # In a background job of a shell Ctrl-C would be ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        log = []
        for line in process.stderr:
            log.append(line)
            if until is not None and until in line:
                os.kill(process.pid, by)
                until = None
    return process.returncode, "".join(log)


def outcome(folder):
    """All that must not depend on the clock or on interruptions."""
    result = json.loads((folder / "run" / "result.json").read_text())
    weights = {
        str(path.relative_to(folder)): {
            name: (array.dtype.str, array.tolist()) for name, array in load_file(path).items()
        }
        for path in sorted((folder / "run").rglob("model.safetensors"))
    }
    measured = {key: result[key] for key in ("sites", "final", "per_site", "baselines")}
    return measured, weights


def exit_code(command):
    with pytest.raises(SystemExit) as end:
        main(command)
    torch.use_deterministic_algorithms(False)
    return end.value.code


@pytest.fixture(scope="module")
def uninterrupted(scenario, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert exit_code(arguments(scenario, folder)) == 0
    return folder


def interrupt(scenario, folder, line, by):
    """Run the command until a line of its log; what it leaves is whole, whatever happened."""
    code, log = hica_sim(scenario, folder, line, by)
    if by == signal.SIGKILL:
        assert code == -signal.SIGKILL, log
    else:
        assert code == 130, log
        assert "run the same command again to resume" in log
        assert "Traceback" not in log
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    RunState.load(folder / "run", load_scenario(scenario).study.sha256)


def test_the_command_killed_in_a_round_goes_on_to_the_same_bits(
    scenario, uninterrupted, tmp_path, capsys
):
    interrupt(scenario, tmp_path, "federated: [17/27] alignment 2/3", signal.SIGKILL)
    assert exit_code([*arguments(scenario, tmp_path), "--no-baselines"]) == 0
    log = capsys.readouterr().err
    assert "federated: [16/27]" not in log and "federated: [17/27]" in log
    (measured, weights), (expected, expected_weights) = outcome(tmp_path), outcome(uninterrupted)
    for what in ("sites", "final", "per_site"):
        assert measured[what] == expected[what]
    assert weights["run/model.safetensors"] == expected_weights["run/model.safetensors"]


@pytest.mark.matrix
def test_the_command_killed_again_and_again_ends_as_if_it_had_not_been(
    scenario, uninterrupted, tmp_path
):
    for line, by in INTERRUPTIONS:
        interrupt(scenario, tmp_path, line, by)
    code, log = hica_sim(scenario, tmp_path)
    assert code == 0, log
    assert "federated: [" not in log  # that was done
    measured, weights = outcome(tmp_path)
    expected, expected_weights = outcome(uninterrupted)
    assert measured == expected
    at_sites = 2 + 2 + 3  # together; alone; of one pool, with the two that have the test images
    assert len(weights) == 4 + at_sites  # federated, two alone, pooled
    assert weights == expected_weights
    assert (tmp_path / "run" / "report.html").exists()


# --- In one process ------------------------------------------------------------------------------


class CrashError(Exception):
    """Stands for the end of the process."""


def test_a_step_done_but_not_yet_saved_is_repeated_to_the_same_bits(
    federate, draw_site, toy_study, arrays_of, monkeypatch
):
    """Sites have already written what the step made them write; the coordinator has not."""
    study = toy_study(
        "pretraining.recluster_every=1",
        "pretraining.lloyd_rounds=1",
        "calibration.rounds=1",
        "federation.aggregation=adam",
        "alignment.centring=site",
    )
    sites = [draw_site("north"), draw_site("south")]
    crashed, save = [], RunState.save

    def crash_once(state, directory):
        if state.done not in crashed:
            crashed.append(state.done)
            raise CrashError
        save(state, directory)

    def run_through_crashes():
        while True:
            try:
                return federate(study, sites, "crashed")
            except CrashError:
                pass

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "save", crash_once)
        result = run_through_crashes()
    assert crashed == list(range(len(plan(study)) + 1))
    for site in sites:
        shutil.rmtree(site.parent / "state")
    expected = federate(study, sites, "uninterrupted")
    assert (result["final"], result["per_site"]) == (expected["final"], expected["per_site"])
    one, other = arrays_of("crashed"), arrays_of("uninterrupted")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_that_ends_between_two_lloyd_steps_goes_on_from_the_first_to_the_same_bits(
    federate, draw_site, toy_study, arrays_of, tmp_path
):
    """From a drawn start, which several steps move."""
    hidden = ["privacy.secure_aggregation=true", "federation.quorum=3"]
    short = ["pretraining.rounds=1", "alignment.rounds=1", "calibration.rounds=0"]
    study = toy_study(*hidden, *short, "pretraining.clusters=6", "pretraining.lloyd_rounds=3")
    names = ["east", "north", "south"]
    sites = [draw_site(name, images=32) for name in names]
    introduce(sites, names)
    first, second, _ = (n for n, turn in enumerate(plan(study)) if turn.step is LLOYD)
    assert second == first + 1

    def crash(title, number, of):
        if number == second:
            raise CrashError

    with pytest.raises(CrashError):
        federate(study, sites, "crashed", watcher=Watcher(step=crash))
    between = RunState.load(tmp_path / "crashed", study.sha256)
    assert between.done == second
    begun = []
    federate(
        study, sites, "crashed", watcher=Watcher(step=lambda _, number, of: begun.append(number))
    )
    assert begun == list(range(second, len(plan(study))))
    for site in sites:
        shutil.rmtree(site.parent / "state")
    federate(study, sites, "uninterrupted")
    ended = [RunState.load(tmp_path / run, study.sha256) for run in ("crashed", "uninterrupted")]
    one, other = (state.learnt.centroids for state in ended)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(between.learnt.centroids, one)
    one, other = arrays_of("crashed"), arrays_of("uninterrupted")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture
def plain_torch():
    yield
    torch.use_deterministic_algorithms(False)


def test_a_finished_run_is_not_run_again(scenario, uninterrupted, capsys):
    state = uninterrupted / "run" / "state.safetensors"
    before, written = outcome(uninterrupted), state.stat().st_mtime_ns
    assert exit_code(arguments(scenario, uninterrupted)) == 0
    assert "federated: [" not in capsys.readouterr().err
    assert outcome(uninterrupted) == before
    assert state.stat().st_mtime_ns == written


def test_a_full_disk_ends_the_run_with_its_state_whole_and_the_same_command_resumes(
    scenario, uninterrupted, tmp_path, monkeypatch, capsys
):
    command = [*arguments(scenario, tmp_path), "--no-baselines"]
    saves, save_file = [], safetensors.numpy.save_file

    def fill_up(arrays, path, header):
        """The state after the fifth step, so the sixth, is cut short by the end of the disk."""
        if Path(path).name == "state.safetensors":
            saves.append(path)
            if len(saves) == 6:
                Path(path).write_bytes(b"half")
                raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(arrays, path, header)

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.numpy.save_file", fill_up)
        assert exit_code(command) == 7
    message = capsys.readouterr().err
    assert "error: " in message and str(tmp_path / "run" / "state.safetensors") in message
    assert "the disk is full: free space there" in message
    assert RunState.load(tmp_path / "run", load_scenario(scenario).study.sha256).done == 4
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert exit_code(command) == 0
    (measured, weights), (expected, expected_weights) = outcome(tmp_path), outcome(uninterrupted)
    assert measured["per_site"] == expected["per_site"]
    assert weights["run/model.safetensors"] == expected_weights["run/model.safetensors"]
