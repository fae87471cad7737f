from pathlib import Path

import pytest

from hica_simulations.deployment import Deployment
from hica_simulations.experiments.benchmarks.deployed import small_scenario
from hica_simulations.experiments.benchmarks.overhead import (
    as_figures,
    credentials_of,
    our_seconds,
    stock_seconds,
)
from hica_simulations.place import Place

STARTS = [
    ("zero-shot evaluation", 0.0),
    ("alignment 1/5", 10.0),
    ("alignment 2/5", 20.0),
    ("alignment 3/5", 30.0),
    ("alignment 4/5", 33.0),
    ("alignment 5/5", 37.0),
    ("evaluation", 40.0),
]


def test_two_rounds_are_start_up_and_a_round_lasts_until_the_next():
    assert our_seconds(STARTS) == [3.0, 4.0]


def test_training_is_no_overhead_of_stock_flower():
    start_up = [{"seconds": 100.0, "training": 0.0}] * 2
    counted = [{"seconds": 7.0, "training": 1.0}, {"seconds": 5.0, "training": 0.5}]
    assert stock_seconds(start_up + counted) == [6.0, 4.5]


def test_ratios_are_those_of_runs_side_by_side():
    seconds = {"ours": [1.0, 2.0, 3.0], "torch": [4.0, 4.0, 60.0], "plain": [2.0, 8.0, 6.0]}
    figures = {figure.name: figure for figure in as_figures(seconds)}
    assert figures["HiCA / stock Flower with torch"].value == pytest.approx(0.25)
    assert figures["HiCA / stock Flower with torch"].met
    assert figures["HiCA / stock Flower without torch"].value == pytest.approx(0.5)
    assert not figures["HiCA / stock Flower without torch"].met
    assert figures["deployed: a round, HiCA"].value == 2.0


def test_stock_flower_runs_with_the_certificates_and_keys_of_the_deployment():
    place = Place(Path(), Path("out"), Path("cache"))
    credentials = credentials_of(Deployment(small_scenario("test", 2, 1, {}), place))
    assert credentials.ca == Path("out/coordinator/federation/ca.crt")
    assert credentials.nodes == {
        name: Path("out/sites") / name / "keys" / "site" for name in ("site-1", "site-2")
    }
