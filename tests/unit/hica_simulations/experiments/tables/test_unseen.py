import numpy as np
import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.tables import unseen
from hica_simulations.predictions import Predictions


@pytest.mark.parametrize("name", ["breast_ultrasound", "pneumonia_kinds", "phantoms"])
def test_every_class_is_held_out_in_turn(loaded, name):
    lines = loaded(unseen, name)
    names = lines[unseen.SEEN].study.class_names
    assert lines[unseen.SEEN].simulation.unseen == []
    for each in names:
        assert lines[f"without {each}"].simulation.unseen == [each]
        fixed = lines[f"without {each}: texts as they are"]
        assert fixed.simulation.unseen == [each] and not fixed.study.alignment.train_text_bank
        assert fixed.study.calibration.rounds == 0
    assert ("zero_shot" in lines) == ("without " + names[0] + ": zero_shot" in lines)
    assert ("zero_shot" in lines) == (name != "phantoms")  # a tower drawn at random knows nothing


def test_baselines_are_run_as_such(study):
    cells = unseen.cells([study("pneumonia_kinds")], [5], [3])
    methods = {cell.labels["method"]: cell.method for cell in cells}
    assert methods["without viral: zero_shot"] == methods["zero_shot"] == "zero_shot"
    assert methods["without viral"] == "federated"


def test_two_classes_are_too_few(study):
    with pytest.raises(ConfigurationError, match=r"pneumonia: table unseen: has 2 classes"):
        unseen.cells([study("pneumonia")], [5], [3])


def test_recall_and_auroc_of_each_class():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.7, 0.2], [0.5, 0.4, 0.1]])
    names = ["a", "b", "c"]
    found = Predictions(probabilities, np.array([0, 0, 1, 1]), list("pqrs"), ["n"] * 4, names)
    assert unseen.each_class(found, {}) == {
        "recall of a": 0.5,
        "AUROC of a": pytest.approx(0.75),
        "recall of b": 0.5,
        "AUROC of b": pytest.approx(0.75),
        "recall of c": None,
        "AUROC of c": None,
    }


def test_a_table_shows_them(row, save, predictions, tmp_path):
    rows = [row(name, seed, 0.5) for name in (unseen.SEEN, "without star") for seed in (1, 2)]
    for each in rows:
        save(tmp_path, each, predictions(5.0, classes=3))
    text = unseen.write(rows, tmp_path)
    assert "| recall of round | AUROC of round | recall of square |" in text
    assert "that class's own recall" in text
