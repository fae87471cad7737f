import pytest

from hica_simulations.experiments.tables import training_table
from hica_simulations.experiments.tables.efficiency import training_seconds

EVERY = ["breast_lesions", "breast_ultrasound", "pneumonia", "pneumonia_kinds", "tuberculosis"]


@pytest.mark.parametrize("name", [*EVERY, "phantoms"])
def test_lines_differ_in_what_is_trained_and_how_long(loaded, name):
    lines = loaded(training_table, name)
    own = lines["federated"].study
    found = {
        line: (study.model.train, study.pretraining.rounds, study.alignment.rounds)
        for line, study in ((line, scenario.study) for line, scenario in lines.items())
    }
    kept, stage, rounds = found.pop("federated")
    assert (kept, stage, rounds) == (own.model.train, own.pretraining.rounds, own.alignment.rounds)
    assert found == {
        "stage 1 of 30 rounds": (kept, 30, rounds),
        "whole tower": ("full", stage, rounds),
        "whole tower, 24 rounds": ("full", stage, 24),
        "whole tower, stage 1 of 30 rounds": ("full", 30, rounds),
    }


def test_rounds_that_train_are_timed():
    stages = {"clusters": 1, "pretraining": 2, "alignment": 4, "calibration": 8, "evaluation": 16}
    rounds = [{"stage": stage, "seconds": seconds} for stage, seconds in stages.items()]
    assert training_seconds({"rounds": rounds}) == 6
    assert training_table.measured(None, None, {"rounds": rounds}) == {"training_seconds": 6}


def test_a_table_shows_how_long_it_took(row, tmp_path):
    lines = ("federated", "whole tower")
    rows = [row(line, seed, 0.5, training_seconds=12.4) for line in lines for seed in (1, 2)]
    text = training_table.write(rows, tmp_path)
    assert text.count("| 50.0 | 12 |") == 2
    assert "--jobs 1" in text
