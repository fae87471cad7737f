import copy
import json

import pytest

from hica.errors import MessageError
from hica.method.evaluation import site_metrics
from hica.method.site_metrics import SiteMetrics

from .measured import counted, predictions


def message():
    """A valid message of a site with two classes, as read from JSON."""
    probabilities, labels, groups = predictions(60, 2, seed=11)
    got = site_metrics(probabilities, labels, groups, 2, resamples=20, seed=0, min_count=5)
    return json.loads(json.dumps(got.to_dict())), got


def test_message_survives_json():
    table, got = message()
    assert SiteMetrics.from_dict(table, 2, "a") == got
    hidden = counted([20, 3, 2])
    assert SiteMetrics.from_dict(json.loads(json.dumps(hidden.to_dict())), 3, "a") == hidden


def test_counts_that_are_all_hidden_are_read():
    table, _ = message()
    hidden = table | {"counts": [None, None], "confusion": None}
    assert SiteMetrics.from_dict(hidden, 2, "a").counts == (None, None)


def replaced(table, path, value):
    """A copy of nested dicts and lists with the item at `path` set (or dropped: value is ...)."""
    table = copy.deepcopy(table)
    target = table
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["ece"], float("nan"), "ece"),
        (["ece"], 1.5, "ece"),
        (["ece"], "0.5", "ece"),
        (["ece"], ..., "ece"),
        (["extra"], 1, "extra"),
        (["n"], 0, "n"),
        (["n"], 60.5, "n"),
        (["n"], 61, "counts: they sum to 60"),
        (["counts"], [60], "counts: 1 classes where the study has 2"),
        (["counts", 0], -1, "counts.0"),
        (["counts", 0], None, "confusion"),
        (["accuracy", "value"], float("inf"), "accuracy.value"),
        (["accuracy", "value"], None, "accuracy.value"),
        (["accuracy", "low"], -0.1, "accuracy.low"),
        (["accuracy", "low"], 1.0, "accuracy: value lies outside"),
        (["accuracy"], None, "accuracy"),
        (["auroc", "high"], 0.0, "auroc: value lies outside"),
        (["auroc", "standard_error"], ..., "auroc.standard_error"),
        (["confusion", 0], [1], "confusion: not a 2 x 2"),
        (["confusion", 0], [29, 2], "confusion: its rows do not sum"),
        (["confusion", 1, 1], -4, "confusion.1.1"),
        (["calibration"], [], "calibration: its bins do not sum"),
        (["calibration", 0, "accuracy"], 2, "calibration.0.accuracy"),
        (["calibration", 0, "count"], -2, "calibration.0.count"),
    ],
)
def test_damaged_messages_are_refused_by_field(path, value, field):
    table, _ = message()
    with pytest.raises(MessageError) as caught:
        SiteMetrics.from_dict(replaced(table, path, value), 2, "St. Mary")
    assert f"metrics of site 'St. Mary': {field}" in str(caught.value)


def test_a_message_that_is_no_table_is_refused():
    with pytest.raises(MessageError, match="table"):
        SiteMetrics.from_dict([1, 2], 2, "a")
