import pytest

from hica.errors import ConfigurationError
from hica.steps.plan import plan
from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    round_of,
    round_seconds,
    small_scenario,
    step_starts,
)

LOG = """\
2026-11-22 18:00:01,500 INFO hica.server: Flower run 17
2026-11-22 18:00:02,250 INFO hica.server: [3/9] alignment 1/2
2026-11-22 18:00:03,000 WARNING hica.server: [3/9] site-1: few images
2026-11-22 18:00:03,100 INFO hica.client: [4/9] centre
2026-11-22 18:00:04,500 INFO hica.server: [4/9] centre
"""


def test_steps_and_when_they_began_are_read_from_the_log():
    (first, began), (second, went_on) = step_starts(LOG)
    assert (first, second) == ("alignment 1/2", "centre")
    assert went_on - began == 2.25


def test_a_round_lasts_until_the_next_step():
    starts = [("alignment 1/2", 10.0), ("alignment 2/2", 30.0), ("evaluation", 60.0)]
    assert round_seconds([("zero-shot evaluation", 5.0), *starts]) == [20.0, 30.0]


def test_a_log_without_steps_has_none():
    assert step_starts("") == []


@pytest.mark.parametrize(
    ("progress", "number"),
    [
        ({"step": "alignment 20/200"}, 20),
        ({"step": "centre"}, None),
        ({"step": "starting"}, None),
        ({}, None),
    ],
)
def test_the_round_is_that_of_the_step(progress, number):
    assert round_of(progress) == number


def test_the_small_study_holds_its_rounds_and_little_else():
    scenario = small_scenario("test", 3, 2, {"train": "adapter"}, deadline=5)
    assert [site.name for site in scenario.simulation.sites] == ["site-1", "site-2", "site-3"]
    assert scenario.study.federation.quorum == 3
    assert scenario.study.federation.deadline == 5
    assert [turn.title for turn in plan(scenario.study)] == [
        "zero-shot evaluation",
        "alignment 1/2",
        "alignment 2/2",
        "evaluation",
        "telling the end",
    ]


def test_an_earlier_run_is_not_resumed(tmp_path):
    with pytest.raises(ConfigurationError, match="exists already"):
        new_deployment(small_scenario("test", 1, 1, {}), tmp_path)
