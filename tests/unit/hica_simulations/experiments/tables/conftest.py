"""Rows and predictions made by hand, and the studies that tables are meant for."""

from pathlib import Path

import numpy as np
import pytest

from hica_simulations.experiments.tables.cells import COSTS, METRICS, WORST, Cell
from hica_simulations.predictions import Predictions
from hica_simulations.run import PREDICTIONS

STUDIES = Path(__file__).parents[5] / "simulations" / "studies"


@pytest.fixture
def study():
    """Path of one of the repository's studies."""
    return lambda name: STUDIES / f"{name}.toml"


@pytest.fixture
def loaded(study):
    """Scenarios of all cells of a table, by the cells' lines; every cell has its own folder."""

    def loaded(module, name, seeds=(3,), shots=(5,)):
        cells = module.cells([study(name)], shots, seeds)
        assert len({cell.folder for cell in cells}) == len(cells)
        return {cell.labels["method"]: cell.scenario() for cell in cells}

    return loaded


@pytest.fixture
def row():
    """A row of a table; without a value, of a cell that could not be run."""

    def row(method, seed, value, shots=20, study="s", **more):
        labels = {"study": study, "shots": shots, "method": method, "seed": seed}
        costs = dict.fromkeys((*METRICS, *WORST, *COSTS), value)
        return {**labels, **costs, "error": "" if value is not None else "no such luck", **more}

    return row


@pytest.fixture
def save():
    """Leaves predictions where a table looks for those of a row."""

    def save(out, row, predictions):
        labels = {name: row[name] for name in ("study", "shots", "method", "seed")}
        predictions.save(out / "cells" / Cell(labels, Path(), {}).folder / PREDICTIONS)

    return save


@pytest.fixture
def predictions():
    """Of two images of every patient, as certain as `right` says and right with that chance."""

    def predictions(right, patients=12, classes=2, seed=0):
        rng = np.random.default_rng(seed)
        labels = np.arange(2 * patients) % classes
        logits = rng.normal(size=(len(labels), classes)) + right * np.eye(classes)[labels]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        groups = [f"p{number // 2}" for number in range(len(labels))]
        sites = ["north" if number % 3 else "south" for number in range(len(labels))]
        names = ["round", "square", "star"][:classes]
        return Predictions(probabilities, labels, groups, sites, names)

    return predictions
