"""E, 14: numbers from outside are bounded."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.hica_server.conftest import FakeSite

from hica.errors import FederationError
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import LLOYD, SITE_START
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.wire.messages import Kind

from .hostile_site import (
    PRIVATE,
    arrays,
    details,
    honest,
    is_finite,
    resumed,
    run_of,
    sites_with_liar,
)

# --- 14: what a reply counts ---------------------------------------------------------------------


@pytest.mark.parametrize(("step", "role"), [(ALIGNMENT, "labelled"), (PRETRAINING, "unlabelled")])
def test_14_a_site_cannot_make_itself_the_model_by_claiming_examples(step, role):
    """A site claims 10⁹ examples, so that its weights are all of the mean."""
    sites = sites_with_liar(step.kind, lambda reply: replace(reply, examples=10**9))
    sites[1].step = 9.0
    run = run_of(*sites)
    before = run.learnt.shared["tower.weight"].copy()
    run.take(step)
    announced = sites[1].counts[role]
    assert run.last["refused"]["b"].startswith(
        f"claims 1000000000 examples, announced were {announced} {role} images. If there are more"
    )
    assert run.last["participants"] == ["a", "c"]
    np.testing.assert_allclose(run.learnt.shared["tower.weight"], before + 1)


@pytest.mark.parametrize("step", [CENTRE, PROTOTYPES, LLOYD])
@pytest.mark.parametrize(
    ("name", "value"),
    [("sums", 1e300), ("sums", -1e300), ("sums", 1e4), ("counts", 1e300), ("counts", 1e4)],
)
def test_14_a_private_sum_is_no_larger_than_its_images_and_their_noise(tmp_path, step, name, value):
    """Where there is noise, sums had no bound at all: 1e300 gave a state that no site can take."""
    overrides = [*PRIVATE, "pretraining.clusters=2"]
    liar = sites_with_liar(step.kind, arrays(**{name: value}))
    run, alone = run_of(*liar, overrides=overrides), run_of(*honest("ac"), overrides=overrides)
    for each in (run, alone):
        for turn in plan(each.study):
            if turn.step.name == step.name:
                each.coordinator.take(turn)
    told = [e for e in run.state.rounds if e["stage"] == step.name and e["refused"]]
    assert told and all(list(entry["refused"]) == ["b"] for entry in told)
    assert is_finite(run.state)
    for key, array in alone.learnt.arrays().items():
        np.testing.assert_array_equal(run.learnt.arrays()[key], array)
    again = run_of(*honest("abc"), overrides=overrides, state=resumed(run.state, tmp_path))
    assert again.take(ALIGNMENT).last["participants"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (CENTRE, arrays(sums=4096 * 200.0), "array 'sums' holds up to 8.192e+05 in row 0"),
        (PROTOTYPES, arrays(sums=5.0), "possible are 2.02 of 2 that are counted there"),
        (PROTOTYPES, arrays(counts=100.0), "array 'counts' adds up to 200, possible are 4 of 4"),
        (SITE_START, arrays(sums=7.0), "array 'sums' holds up to 7 in row 0"),
        (LLOYD, arrays(counts=7.0), "array 'counts' adds up to 14, possible are 6 of 6"),
    ],
)
def test_14_a_sum_is_no_larger_than_its_images(step, change, words):
    """A site sends sums that so many images cannot have, within what the study's most could."""
    overrides = ["pretraining.clusters=2"]
    sites = sites_with_liar(step.kind, change)
    run = run_of(*sites, overrides=overrides)
    run.take_all(step.name)
    assert any(words in entry["refused"].get("b", "") for entry in run.state.rounds)
    assert is_finite(run.state)


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (6, "metrics of 1000000000000 images, 6 stand behind them"),
        (10**9, "metrics of 1000000000000 images, 1000000000 stand behind them"),
    ],
)
def test_14_a_site_cannot_set_the_federations_auroc(claimed, words):
    """A site reports n = 10¹² test images, so that the federation's metrics are its own."""

    def lie(reply):
        n = 10**12
        table = {**reply.details, "n": n, "counts": [n // 2, n // 2]}
        table |= {"confusion": [[n // 2, 0], [0, n // 2]]}
        table["calibration"] = [{**reply.details["calibration"][0], "count": n}]
        return replace(reply, details=table, examples=claimed)

    run = run_of(*sites_with_liar(EVALUATION.kind, lie)).take(EVALUATION, 1)
    assert words in run.last["refused"]["b"]
    assert run.learnt.evaluations["final"]["overall"]["n"] == 12


def test_14_metrics_are_of_no_more_images_than_were_announced():
    """The same lie, told with as many examples."""

    def lie(reply):
        table = {**reply.details, "n": 600, "counts": [300, 300]}
        table |= {"confusion": [[300, 0], [0, 300]]}
        table["calibration"] = [{**reply.details["calibration"][0], "count": 600}]
        return replace(reply, details=table, examples=600)

    run = run_of(*sites_with_liar(EVALUATION.kind, lie)).take(EVALUATION, 1)
    assert "claims 600 examples, announced were 6 test images" in run.last["refused"]["b"]
    assert run.learnt.evaluations["final"]["overall"]["n"] == 12


# --- 14: what a reply says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": {"a": "x", "b": 1}}, "classes.a: Input should be a valid integer"),
        ({"classes": {"round": 1}}, "classes: of ['round'], the study has ['a', 'b']"),
        ({"classes": {"a": 3, "b": 3}}, "classes: 6 shots, labelled are 4"),
        ({"labelled": 10**6}, "labelled: 1000000 images, the study takes 40"),
        ({"unlabelled": 10**6}, "unlabelled: 1000000 images, the study takes 200"),
        ({"test": 10**12}, "test: Input should be less than or equal to 10000000"),
        ({"test": -1}, "test: Input should be greater than or equal to 0"),
        ({"test": 4.0}, "test: Input should be a valid integer"),
        ({"labelled": True}, "labelled: Input should be a valid integer"),
        ({"shortfall": ["c"]}, "shortfall: names a class that the study does not have"),
        ({"device": "x" * 10**6}, "device: String should have at most 200"),
        ({"notes": ["x" * 3_000_000]}, "notes.0: String should have at most 2000"),
        ({"notes": ["x"] * 1000}, "notes: List should have at most 50"),
        ({"versions": {str(n): "" for n in range(1000)}}, "versions: Dictionary should have at"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_14_capabilities_are_read_strictly(change, words):
    """A site announces what a report cannot show, or what no site of the study can have."""
    run = run_of(*sites_with_liar(Kind.CAPABILITIES, details(**change)))
    assert words in run.last["refused"]["node 2"]
    assert list(run.state.sites) == ["a", "c"]
    assert len(json.dumps(run.state.rounds)) < 3000


def test_14_notes_are_one_line_without_control_signs(caplog):
    """A note holds a line break and an escape sequence, to forge a log and to steer a terminal."""
    note = "fine\n2026-11-27 ERROR hica.server: c was revoked\x1b[2J"
    with caplog.at_level(logging.WARNING, logger="hica.server"):
        run = run_of(*sites_with_liar(Kind.CAPABILITIES, details(notes=[note])))
    kept = "fine 2026-11-27 ERROR hica.server: c was revoked�[2J"
    assert run.state.sites["b"]["notes"] == [kept]
    assert f"b: {kept}" in caplog.messages


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (ALIGNMENT, details(loss=1e308), "loss: Input should be less than or equal to 1000000"),
        (ALIGNMENT, details(loss=math.inf), "loss: Input should be a finite number"),
        (ALIGNMENT, details(more="x" * 1000), "more: Extra inputs are not permitted"),
        (CENTRE, details(loss=1.0), "loss: Extra inputs are not permitted"),
        (CALIBRATION, details(note="hello"), "note: Extra inputs are not permitted"),
        (EVALUATION, details(note="hello"), "note: Unexpected keyword argument"),
    ],
)
def test_14_details_are_read_strictly(step, change, words):
    """A reply says more than its kind has, or a number that is none."""
    run = run_of(*sites_with_liar(step.kind, change)).take(step)
    assert words in run.last["refused"]["b"]
    assert run.last["participants"] == ["a", "c"]


# --- 14: the state -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "adam"])
def test_14_a_state_that_no_site_would_take_is_not_saved_and_the_site_is_named(tmp_path, rule):
    """Step by step a site pushes a weight to where features overflow and every request is refused.

    The run goes on without it, as if it had not answered, and so does a resumed one.
    """
    overrides = [f"federation.aggregation={rule}", "federation.server_learning_rate=3.0"]

    def at_the_edge(*sites):
        run = run_of(*sites, overrides=overrides)
        shared = run.learnt.shared | {"tower.weight": np.full((2, 3), 999_999.0, np.float32)}
        run.state.learnt = replace(run.learnt, shared=shared)
        return run

    def push(reply):
        pushed = reply.arrays["shared.tower.weight"] + np.float32(4000.0)
        return replace(reply, arrays={**reply.arrays, "shared.tower.weight": pushed})

    sites = [FakeSite(name, 0.0) for name in "abc"]
    sites[1].changes[ALIGNMENT.kind] = push
    run = at_the_edge(*sites).take(ALIGNMENT)
    assert list(run.last["refused"]) == ["b"]
    assert (
        "with its answer the state cannot be right: weight 'tower.weight' has values up to"
        in (run.last["refused"]["b"])
    )
    assert run.last["participants"] == ["a", "c"]
    assert list(run.last["site_loss"]) == ["a", "c"]
    alone = at_the_edge(FakeSite("a"), FakeSite("c")).take(ALIGNMENT)
    again = run_of(
        *[FakeSite(name) for name in "abc"],
        overrides=overrides,
        state=resumed(run.state, tmp_path),
    )
    for each in (run, alone, again):
        each.take(ALIGNMENT, 1)
    for name, value in alone.learnt.shared.items():
        np.testing.assert_array_equal(run.learnt.shared[name], value)
        np.testing.assert_array_equal(again.learnt.shared[name], value)


def test_14_where_the_quorum_needs_the_site_the_run_stops_with_the_state_before():
    """The same with two sites: nothing is saved that a resume could not go on from."""
    sites = [FakeSite("a", 0.0), FakeSite("b", 0.0)]
    sites[1].changes[ALIGNMENT.kind] = arrays(**{"shared.tower.weight": 3000.0})
    run = run_of(*sites)
    shared = run.learnt.shared | {"tower.weight": np.full((2, 3), 999_999.0, np.float32)}
    run.state.learnt = before = replace(run.learnt, shared=shared)
    sites[1].changes[ALIGNMENT.kind] = lambda reply: replace(
        reply,
        arrays={**reply.arrays, "shared.tower.weight": before.shared["tower.weight"] + 3000},
    )
    words = (
        r"round 1: what the answers of b give cannot be right: weight .* on disk: mend the sites"
    )
    with pytest.raises(FederationError, match=words):
        run.take(ALIGNMENT)
    assert run.learnt is before


# --- 14: secure sums -----------------------------------------------------------------------------


def test_14_a_secure_sum_stands_for_no_more_images_than_were_announced(secure_run):
    """A site claims more examples where nobody sees a single answer."""
    run, sites = secure_run("abc")
    reply = sites[1].site.reply
    sites[1].site.reply = lambda request: replace(
        reply(request), examples=30 if request.kind == ALIGNMENT.kind else reply(request).examples
    )
    before = run.learnt
    words = (
        "secure sum over a, b, c cannot be right: claims 38 examples, announced were 12 labelled"
    )
    with pytest.raises(FederationError, match=words):
        run.take(ALIGNMENT)
    assert run.learnt is before


def test_14_a_masked_answer_says_nothing_beside_its_numbers(secure_run):
    """A site puts words beside its masked numbers."""
    run, sites = secure_run("abcd")
    sites[3].changes[ALIGNMENT.kind] = details(loss=1.0)
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c"]
    assert "loss: Extra inputs are not permitted" in run.last["refused"]["d"]
