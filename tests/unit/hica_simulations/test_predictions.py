import json

import numpy as np
import pytest

from hica_simulations.predictions import Predictions, joined


def made(labels, right, site):
    """Certain predictions of two classes."""
    chosen = np.where(right, labels, 1 - np.array(labels))
    probabilities = 0.8 * np.eye(2)[chosen] + 0.1
    groups = [f"{site}/{number}" for number in range(len(labels))]
    return Predictions(probabilities, np.array(labels), groups, [site] * len(labels), ["a", "b"])


def test_metrics_of_all_images_together_and_of_the_worst_site():
    north = made([0, 1, 0, 1], [True, True, True, True], "north")
    south = made([0, 0, 0, 1], [True, False, False, True], "south")
    metrics = joined([north, south]).metrics()
    assert metrics["accuracy"] == 0.75
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 5 + 1) / 2)
    assert metrics["worst_accuracy"] == 0.5
    assert metrics["worst_balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics["worst_auroc"] == pytest.approx(2 / 3)  # of 3 pairs one right, two tied
    assert metrics["ece"] == pytest.approx(0.9 - 0.75)


def test_a_site_of_one_class_has_no_auroc_and_is_not_the_worst():
    one, two = made([0, 0], [True, False], "one"), made([0, 1], [True, True], "two")
    assert joined([one, two]).metrics()["worst_auroc"] == 1.0
    assert one.metrics()["auroc"] is None and one.metrics()["worst_auroc"] is None


def test_predictions_are_joined_in_order():
    whole = joined([made([0, 1], [True, True], "one"), made([1], [False], "two")])
    assert whole.labels.tolist() == [0, 1, 1]
    assert whole.groups == ["one/0", "one/1", "two/0"] and whole.sites == ["one", "one", "two"]
    assert list(whole.classes) == ["a", "b"]


def test_what_is_saved_can_be_loaded(tmp_path):
    saved = made([0, 1, 1], [True, False, True], "one")
    saved.save(tmp_path / "new" / "p.json")
    found = Predictions.load(tmp_path / "new" / "p.json")
    assert np.array_equal(found.probabilities, saved.probabilities)
    assert np.array_equal(found.labels, saved.labels)
    assert found.groups == saved.groups and found.sites == saved.sites
    assert found.classes == ["a", "b"]


def test_predictions_saved_without_class_names_can_be_loaded(tmp_path):
    made([0], [True], "one").save(tmp_path / "p.json")
    table = json.loads((tmp_path / "p.json").read_text())
    del table["classes"]
    (tmp_path / "p.json").write_text(json.dumps(table))
    assert Predictions.load(tmp_path / "p.json").classes == ()
