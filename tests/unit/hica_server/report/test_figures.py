"""What the figures compute before they draw, and that they show what they are given."""

import base64

import numpy as np
import pytest

from hica_server.report import figures


def svg(uri):
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def test_labels_that_do_not_collide_stay():
    assert figures.spread([3.0, 1.0, 2.0], gap=0.5) == [3.0, 1.0, 2.0]


def test_labels_that_collide_part_around_their_mean():
    assert figures.spread([1.0, 1.0], gap=1.0) == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_their_order_and_distance(seed):
    values = np.random.default_rng(seed).random(9).tolist()
    heights = figures.spread(values, gap=0.1)
    assert np.array_equal(np.argsort(values), np.argsort(heights))
    assert np.diff(sorted(heights)).min() >= 0.1 - 1e-12
    assert np.mean(heights) == pytest.approx(np.mean(values))


def test_pooled_bins_equal_a_weighted_mean():
    bins = [
        {"count": 10, "confidence": 0.95, "accuracy": 0.8},
        {"count": 30, "confidence": 0.97, "accuracy": 1.0},
        {"count": 5, "confidence": 0.5, "accuracy": 0.2},
    ]
    low, high = figures.pooled_bins(bins)
    assert low == {"count": 5, "confidence": 0.5, "accuracy": 0.2}
    assert high["count"] == 40
    assert high["confidence"] == pytest.approx(0.965)
    assert high["accuracy"] == pytest.approx(0.95)


def test_a_long_name_is_shortened():
    assert figures.shortened("a" * 40, 10) == "a" * 9 + "…"
    assert figures.shortened("Bern", 10) == "Bern"


def test_nothing_to_draw_gives_no_figure():
    idle = [{"stage": "statistics", "round": 1, "loss": None}]
    assert figures.loss_curves(idle, ["a"]) is None
    assert figures.traffic(idle) is None
    assert figures.attendance([], ["a"]) is None
    assert figures.reliability({"a": []}, {}) is None


def test_curves_name_stage_and_sites_and_survive_divergence():
    rounds = [
        {"stage": "alignment", "round": i, "loss": loss, "site_loss": {"Bern": loss, "$x$": 1.0}}
        for i, loss in enumerate([2.0, 1.0, float("nan")], start=1)
    ]
    drawn = svg(figures.loss_curves(rounds, ["Bern", "$x$"]))
    for text in ("alignment: loss", "federation", "Bern", "$x$"):
        assert f">{text}<" in drawn


def test_many_sites_are_drawn_in_grey_without_names():
    names = [f"site-{i}" for i in range(20)]
    rounds = [
        {"stage": "alignment", "round": i, "loss": 1 / i, "site_loss": dict.fromkeys(names, 1 / i)}
        for i in (1, 2)
    ]
    drawn = svg(figures.loss_curves(rounds, names))
    assert ">federation<" in drawn and "site-3" not in drawn


def test_rounds_between_evaluations_keep_their_numbers_and_count_from_1():
    rounds = [
        {"stage": stage, "round": number, "bytes_up": 5, "bytes_down": 5}
        for stage, number in [("alignment", 0), ("evaluation", 1), ("alignment", 1)]
    ]
    drawn = svg(figures.traffic(rounds))
    assert drawn.count(">alignment<") == 1
    assert all(f">{tick}<" in drawn for tick in ("1", "e", "2", "bytes"))


def test_text_is_set_in_the_readers_font():
    drawn = svg(figures.reliability({"a": [{"count": 3, "confidence": 0.9, "accuracy": 1.0}]}, {}))
    assert "system-ui" in drawn and "DejaVu" not in drawn
