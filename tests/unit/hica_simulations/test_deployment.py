"""The parts of a deployment that need no federation; whole ones are in tests/deployment."""

import math

import pytest

from hica.errors import FederationError
from hica_simulations import deployment
from hica_simulations.deployment import COORDINATOR, Deployment, largest_difference
from hica_simulations.place import Place
from hica_simulations.scenario import load_scenario

SCENARIO = """
[study]
name = "test"
[[classes]]
name = "clear"
prompts = ["clear lungs"]
[[classes]]
name = "nodule"
prompts = ["a nodule"]
[simulation.phantoms]
modality = "xray"
[[simulation.sites]]
name = "north"
"""


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": {"b": [0.5, 1]}, "n": 3}, {"a": {"b": [0.25, 1]}, "n": 3}, 0.25),
        ({"a": None}, {"a": None}, 0.0),
        ({}, {}, 0.0),
        ([], [], 0.0),
        ({"a": None}, {"a": 0.0}, math.inf),
        ({"a": 1.0}, {"b": 1.0}, math.inf),
        ([1.0], [1.0, 1.0], math.inf),
        ({"a": "x"}, {"a": "y"}, math.inf),
        ([0.0, math.nan], [0.0, 1.0], math.inf),
    ],
)
def test_the_largest_difference_of_two_tables(one, other, expected):
    assert largest_difference(one, other) == expected
    assert largest_difference(other, one) == expected


@pytest.fixture
def make_deployment(tmp_path):
    """Makes a deployment of one site, of which nothing is prepared."""

    def make() -> Deployment:
        file = tmp_path / "scenario.toml"
        file.write_text(SCENARIO)
        return Deployment(load_scenario(file), Place(tmp_path, tmp_path / "out", tmp_path))

    return make


def test_a_command_that_fails_is_named_with_what_it_said(make_deployment, tmp_path):
    with pytest.raises(FederationError) as failed:
        make_deployment().command("hica-server", "validate", tmp_path / "absent.toml")
    assert "hica-server validate" in str(failed.value)
    assert "exit code 2" in str(failed.value)
    assert "absent.toml: no such file" in str(failed.value)


@pytest.fixture
def scripted(make_deployment, tmp_path, monkeypatch):
    """Starts a deployment of one site whose two commands are shell scripts."""

    def start(server: str, client: str) -> Deployment:
        for name, script in (("hica-server", server), ("hica-client", client)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(deployment, "program", lambda name: str(tmp_path / name))
        started = make_deployment()
        started.start("north")
        started.start(COORDINATOR)
        return started

    return start


def test_what_the_coordinator_prints_is_passed_on(scripted, capsys):
    with scripted("echo round 1", "exec sleep 600") as running:
        running.wait()
    assert capsys.readouterr().err == "round 1\n"
    assert running.processes["north"].returncode < 0  # stopped


def test_a_coordinator_that_fails_is_told_with_its_last_words(scripted):
    failing = scripted("echo below quorum; exit 6", "exec sleep 600")
    with (
        failing,
        pytest.raises(FederationError, match=r"exit code 6:\nbelow quorum\n.*coordinator"),
    ):
        failing.wait()


def test_a_hospital_that_ends_early_is_told_with_its_last_words(scripted):
    failing = scripted("exec sleep 600", "echo not approved; exit 2")
    with failing, pytest.raises(FederationError, match="'north' has ended:\nnot approved\n"):
        failing.wait()
    assert failing.processes[COORDINATOR].returncode < 0


def test_a_process_that_does_not_stop_is_killed(scripted, monkeypatch):
    monkeypatch.setattr(deployment, "STOP_SECONDS", 0.2)
    stubborn = scripted("true", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    with stubborn:
        while "deaf" not in stubborn.log("north").read_text():
            pass
    assert stubborn.processes["north"].returncode == -9
