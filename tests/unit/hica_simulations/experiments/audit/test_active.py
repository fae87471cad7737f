from dataclasses import replace

import pytest

from hica.study import changed
from hica_simulations.experiments.audit import active
from hica_simulations.experiments.audit.active import REQUESTS, attack_actively


def of_two_rounds(setting):
    """A setting whose study has a round after training."""
    return replace(setting, training=changed(setting.training, {"alignment": {"rounds": 2}}))


@pytest.fixture(scope="module")
def rows(world, place, settings):
    """Rows by setting and request, of two rounds; two studies within what is allowed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(active, "STUDIES", 2)
        found = [
            row
            for name in ("none", "secure", "dp-1")
            for row in attack_actively(world, place, of_two_rounds(settings[name]))
        ]
    assert len(found) == 3 * len(REQUESTS)
    return {(row["setting"], row["request"]): row for row in found}


def test_where_nothing_is_checked_crafted_weights_tell_images(rows):
    row = rows["none", "unchecked"]
    assert row["found"] >= 2 and row["best"] > 0.99 > row["guess"]
    assert row["images"] == 9


@pytest.mark.parametrize("name", ["none", "secure", "dp-1"])
def test_a_real_site_refuses_them_and_tells_nothing(rows, name):
    row = rows[name, "refused"]
    assert (row["asked"], row["answered"], row["found"]) == (1, 0, 0)
    assert "training can move it by" in row["said"]


@pytest.mark.parametrize("name", ["none", "secure", "dp-1"])
def test_a_window_is_refused_in_every_round(rows, name):
    row = rows[name, "window"]
    assert (row["asked"], row["answered"], row["found"]) == (2, 0, 0)
    assert "array 'scale' is not as it is in this study" in row["said"]


@pytest.mark.parametrize("name", ["none", "secure", "dp-1"])
def test_what_is_allowed_is_answered_once_for_each_round(rows, name):
    row, again = rows[name, "allowed"], rows[name, "again"]
    assert row["asked"] == row["answered"] == again["asked"] == 4
    assert (again["answered"], again["found"]) == (0, 0)
    assert "each turn of a study is answered once" in again["said"]


def test_of_nine_images_what_is_allowed_tells_some(rows):
    """Of many fewer: `tests/security/test_c_active.py`."""
    row = rows["none", "allowed"]
    assert 1 <= row["most"] <= 5 and row["best"] > 0.99 > row["guess"]


@pytest.mark.parametrize("request_", ["unchecked", "allowed"])
def test_under_noise_nothing_is_recovered(rows, request_):
    row = rows["dp-1", request_]
    assert (row["found"], row["near"]) == (0, 0)


def test_a_study_without_an_adapter_is_not_attacked(world, place, settings):
    study = changed(settings["none"].training, {"model": {"train": "last-1"}})
    assert attack_actively(world, place, replace(settings["none"], training=study)) == []
