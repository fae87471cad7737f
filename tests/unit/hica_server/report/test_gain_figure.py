"""The figure of what joining gave."""

import base64

from hica_server.report.gain_figure import gain


def svg(uri):
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def metric(value):
    return {"value": value, "low": value - 0.03, "high": value + 0.03}


def compared(alone, joined):
    one = {"balanced_accuracy": metric(alone), "auroc": metric(alone)}
    other = {"balanced_accuracy": metric(joined), "auroc": None}
    difference = {"balanced_accuracy": metric(joined - alone), "auroc": None}
    return {"alone": one, "personal": other, "difference": difference}


def test_every_site_has_a_bar_with_both_ends_and_names_are_drawn_as_they_are():
    shown = svg(gain({"north $x$": compared(0.8, 0.9), "south": compared(0.7, 0.65)}))
    for words in ("north $x$", "south", "80.0 → 90.0", "70.0 → 65.0", "points over training alone"):
        assert words in shown


def test_where_no_site_can_say_there_is_no_figure():
    assert gain({}) is None
