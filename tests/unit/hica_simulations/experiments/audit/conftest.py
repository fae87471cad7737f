"""A small world, made once: attacks on it take no more than seconds."""

from pathlib import Path

import pytest
import tomli_w
import torch

from hica.study import read_toml
from hica_simulations.experiments.audit.settings import settings_of
from hica_simulations.experiments.audit.world import make_world
from hica_simulations.place import Place
from hica_simulations.scenario import load_scenario

STUDY = Path(__file__).parents[5] / "simulations" / "studies" / "audit.toml"
SMALL = (
    "text.epochs=0",
    "alignment.shots=3",
    "alignment.rounds=1",
    "model.adapter_width=16",
    "privacy.delta=1e-3",
    "simulation.phantoms.per_class=10",
)


@pytest.fixture(scope="session")
def small_audit(tmp_path_factory) -> Path:
    """The audit's study with two sites."""
    table = read_toml(STUDY)
    table["simulation"]["sites"] = table["simulation"]["sites"][:2]
    path = tmp_path_factory.mktemp("study") / "audit.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Place:
    """Of the world's files."""
    out = tmp_path_factory.mktemp("audit")
    return Place(out, out / "run", out / "cache", "cpu")


@pytest.fixture(scope="session")
def world(small_audit, place):
    """Two sites with three images of each class."""
    torch.set_num_threads(1)
    return make_world(load_scenario(small_audit, list(SMALL)), place)


@pytest.fixture(scope="session")
def settings(world):
    """The settings of an audit, by name."""
    return {each.name: each for each in settings_of(world.study)}
