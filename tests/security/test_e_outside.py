"""E: numbers and words from outside are bounded (numbers 14, 15 and 16)."""

import json
import logging
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.unit.hica_server.conftest import STUDY, FakeSite, SmallRun
from tests.unit.hica_server.secure_site import SecureSite

from hica.deployment.keys import generate, read_private
from hica.deployment.service_output import ServiceOutput
from hica.errors import FederationError, MessageError
from hica.secure_sum.group import SIGNING
from hica.secure_sum.sharing import seal
from hica.secure_sum.wire import Deal
from hica.steps.alignment import ALIGNMENT
from hica.steps.arrays import STATE_ARRAYS
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import LLOYD, SITE_START
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.study import Study, apply_overrides, validated
from hica.wire.messages import Kind, failure
from hica_server.console import final_table
from hica_server.deployed import logging_to
from hica_server.state import RunState

PRIVATE = ["privacy.mechanism=dp-sgd", "privacy.epsilon=3.0", "privacy.delta=1e-3"]
PRIVATE += ["calibration.rounds=0"]


def study_of(*overrides) -> Study:
    return validated(Study, apply_overrides(STUDY, list(overrides)), "toy")


def run_of(*sites, overrides=(), **more) -> SmallRun:
    return SmallRun(study_of(*overrides), sites, **more).meet()


def sites_with_liar(kind, change, step=1.0, **more):
    """Three sites, of which the second spoils its replies of a kind."""
    sites = [FakeSite(name, step, **more) for name in "abc"]
    sites[1].changes[kind] = change
    return sites


def arrays(**changed):
    """A change of a reply's arrays; a number fills one."""

    def change(reply):
        new = {n: np.full_like(reply.arrays[n], v) for n, v in changed.items() if n in reply.arrays}
        return replace(reply, arrays={**reply.arrays, **new})

    return change


def details(**changed):
    return lambda reply: replace(reply, details={**reply.details, **changed})


def is_finite(state: RunState) -> bool:
    learnt = state.learnt
    parts = [*learnt.arrays().values(), learnt.centroids, *learnt.optimiser.values()]
    return all(np.isfinite(each).all() for each in parts)


def resumed(state: RunState, folder: Path) -> RunState:
    """The state as another process finds it."""
    folder.mkdir(exist_ok=True)
    state.save(folder)
    return RunState.load(folder, state.study_sha256)


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


def honest(names):
    return [FakeSite(name, 1.0) for name in names]


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
        r"round 0: what the answers of b give cannot be right: weight .* on disk: mend the sites"
    )
    with pytest.raises(FederationError, match=words):
        run.take(ALIGNMENT)
    assert run.learnt is before


HOSTILE = [CENTRE, PROTOTYPES, LLOYD, PRETRAINING, ALIGNMENT, CALIBRATION, EVALUATION]
NUMBERS = st.one_of(
    st.floats(width=32),
    st.sampled_from([1e300, -1e300, 1e30, 1e5, 2000.0, 0.0, -1.0, math.nan, math.inf]),
)
WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
TABLES = st.dictionaries(st.text(max_size=6), WORDS, max_size=3)


@pytest.mark.matrix
@seed(14)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_14_whatever_one_site_answers_the_state_can_be_sent_and_the_others_go_on(data):
    """A hostile site: any numbers, counts and details, in any step, with and without privacy."""
    private = data.draw(st.booleans(), "private")
    overrides = ["pretraining.clusters=2", "federation.retries=0", *(PRIVATE if private else [])]
    steps = [step for step in HOSTILE if not (private and step is CALIBRATION)]

    pushed = [0.0]

    def lie(reply):
        told = dict(reply.arrays)
        for name, array in told.items():
            if data.draw(st.booleans(), name):
                number = data.draw(NUMBERS, f"value of {name}")
                with np.errstate(all="ignore"):
                    told[name] = np.full_like(array, number)
                    pushed.append(float(np.abs(told[name] - array).max()))
        examples = data.draw(st.sampled_from([reply.examples, 0, 1, 10**6, 10**9, 10**12, -1]))
        more = data.draw(TABLES, "details")
        table = {**reply.details, **more} if data.draw(st.booleans(), "merged") else more
        return replace(reply, arrays=told, examples=examples, details=table)

    sites = honest("abc")
    run = run_of(*sites, overrides=overrides)
    sites[1].changes = {step.kind: lie for step in steps}
    for step in steps:
        for turn in (turn for turn in plan(run.study) if turn.step.name == step.name):
            before, moved = run.learnt.shared, len(pushed)
            run.coordinator.take(turn)
            if step in (PRETRAINING, ALIGNMENT):  # of three sites that announced as much
                share = max([0.0, *filter(math.isfinite, pushed[moved:])]) / 3
                for name, value in run.learnt.shared.items():
                    honest_step = 0 if step is PRETRAINING and "bank." in name else 1
                    assert np.abs(value - before[name] - honest_step).max() <= share * 1.01 + 0.01
        assert is_finite(run.state)
        for array in STATE_ARRAYS:
            array.check(run.learnt.arrays()[array.name])
        for evaluation in run.learnt.evaluations.values():
            assert evaluation["overall"]["n"] <= 18
        assert {"a", "c"} <= set(run.last["participants"])
    sites[1].changes = {}
    assert run.take(ALIGNMENT).last["participants"] == ["a", "b", "c"]


# --- 14: secure sums -----------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    """A registered key for each of five sites."""
    made = {name: generate(tmp_path / name) for name in "abcde"}
    return {name: (read_private(tmp_path / name), public) for name, public in made.items()}


@pytest.fixture
def secure_run(keys):
    """`secure_run("abcd")`: a run over sites that only sums are seen of; and the sites."""

    def make(names, *overrides):
        public = {name: keys[name][1] for name in "abcde"}
        plain = [FakeSite(name, 0.01 * (1 + "abcde".index(name))) for name in names]
        sites = [SecureSite(site, keys[site.name][0], public) for site in plain]
        told = ["privacy.secure_aggregation=true", *overrides]
        return run_of(*sites, overrides=told, registered=public), sites

    return make


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


# --- 15: logs and consoles -----------------------------------------------------------------------

EVIL = "key\x1b[2J\x1b]0;owned\x07\r\nERROR hica.client: all is well\u202e" + "x" * 100_000
FORGED = "ERROR hica.client: all is well"

RUNNER = """
import logging, sys
from pathlib import Path
from hica_client import flower_runner
evil = sys.stdin.read()
log = logging.getLogger("hica.client")
def app(site_file):
    log.warning("%s refused: %s", evil, evil)
    return None
def serve(*arguments):
    try:
        raise RuntimeError(evil)
    except RuntimeError:
        log.exception("the answer to a %s failed", evil)
    raise SystemExit(0)
flower_runner.local_app, flower_runner.serve = app, serve
Path("secret").write_bytes(b"")
flower_runner.main(["site.toml", "--runtime", "127.0.0.1:1", "--secret", "secret"])
"""

COMMAND = """
import logging, sys
import typer
from hica.deployment.command_line import run_app
from hica.errors import MessageError
evil = sys.stdin.read()
app = typer.Typer()
@app.command()
def do() -> None:
    logging.getLogger("hica.server").warning("%s", evil)
    raise MessageError(evil[:200])
run_app(app, "do", [])
"""


def assert_plain(text):
    """No line but those that are meant, none too long, and nothing that steers a terminal."""
    lines = text.split("\n")
    assert not any(line.startswith(FORGED) for line in lines)
    assert all(len(line) < 5000 for line in lines)
    assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_15_the_sites_runner_logs_what_came_from_outside_as_it_is_safe(tmp_path):
    """Keys of a study reach the site's log as the coordinator wrote them, escape codes and all."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=EVIL, text=True, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_plain(done.stderr)
    assert "WARNING key�[2J�]0;owned��\\nERROR hica.client" in done.stderr
    assert "    RuntimeError: key�[2J" in done.stderr


def test_15_every_command_prints_and_logs_what_came_from_outside_as_it_is_safe(tmp_path):
    """An error of the other side, in its own words, ends a command."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], input=EVIL, text=True, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 5
    log, _, error = done.stderr.partition("error: ")
    assert_plain(log)
    assert all(sign.isprintable() or sign == "\n" for sign in error)


def test_15_the_coordinators_log_holds_a_record_as_one_line(tmp_path):
    """A reason in a site's words forges a line of the coordinator's log."""
    path = tmp_path / "logs" / "serverapp.log"
    log = logging.getLogger("hica.server")
    with logging_to(path):
        log.warning("b refused: %s", EVIL)
        try:
            raise MessageError(EVIL)
        except MessageError:
            log.exception("the run has failed")
        log.warning("after")
    text = path.read_text()
    assert_plain(text)
    records = [line for line in text.splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert len(records) == 3
    assert all(line.startswith("    ") for line in text.splitlines() if line not in records)


def test_15_what_flowers_processes_print_is_kept_without_control_signs(tmp_path):
    """Flower's own processes print what came over the network, past every formatter of ours."""
    read, write = os.pipe()
    heard: list[str] = []
    output = ServiceOutput(os.fdopen(read, "rb", 0), tmp_path / "a.log", heard.append)
    os.write(write, "\x1b[92mINFO\x1b[0m \x1b]0;owned\x07\u202e\rrun\n".encode())
    os.close(write)
    output.close()
    assert heard == ["INFO �]0;owned���run"]
    assert "\x1b" not in (tmp_path / "a.log").read_text()


def test_15_no_other_formatter_is_made_anywhere():
    """The next log that somebody adds goes through the same one."""
    root = Path(__file__).parents[2]
    places = [root / "common", root / "client", root / "server", root / "simulations"]
    made = re.compile(r"logging\.Formatter\(|basicConfig\(|StreamHandler\(|FileHandler\(")
    found = {
        file.relative_to(root).as_posix()
        for place in places
        for file in place.rglob("*.py")
        if made.search(file.read_text())
    }
    assert found == {"common/hica/printable.py", "server/hica_server/deployed.py"}
    assert "PlainFormatter(" in (root / "server/hica_server/deployed.py").read_text()


def test_15_markup_in_a_result_is_shown_and_not_obeyed():
    """A name is written as markup of the console's."""
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    metrics = {"accuracy": interval, "balanced_accuracy": interval, "auroc": None}
    result = {"study": "[red]x[/]", "seed": 0, "baselines": {}, "final": metrics}
    out = StringIO()
    Console(file=out, width=100).print(final_table(result))
    assert "[red]x[/], seed 0" in out.getvalue()


# --- 16: shares ----------------------------------------------------------------------------------


def weights(run):
    return run.learnt.shared


def wrong_shares(field):
    def change(reply):
        shares = dict.fromkeys(reply.details[field], "00" * 16)
        return replace(reply, details={**reply.details, field: shares})

    return change


@pytest.mark.parametrize("field", ["self_masks", "mask_keys"])
def test_16_a_wrong_share_is_refused_by_name_and_the_sum_is_made_of_the_others(secure_run, field):
    """A site gives back other shares than it was dealt: the sum was lost, and nobody was named."""
    runs = {}
    for lies in (False, True):
        run, sites = secure_run("abcde", "privacy.threshold=0.6")
        sites[0].silent = [ALIGNMENT.kind] if field == "mask_keys" else []
        if lies:
            sites[4].changes[Kind.UNMASK] = wrong_shares(field)
        runs[lies] = run.take(ALIGNMENT)
        assert len(sites[0].sessions) == 1
    told = runs[True].last
    assert "'s shares are" not in str(told) and list(told["refused"]) == ["e"]
    assert re.match(r"sends another share than '[abcd]' has dealt to it", told["refused"]["e"])
    assert told["participants"] == (list("bcde") if field == "mask_keys" else list("abcde"))
    for name, value in weights(runs[False]).items():  # to the bit: the integers are the same
        np.testing.assert_array_equal(weights(runs[True])[name], value)


@pytest.mark.parametrize("victims", ["a", "ab", "abce"])
def test_16_who_deals_wrong_shares_is_named_and_left_out(secure_run, victims):
    """A site deals shares that give nothing: each victim dropped out, and the liar stayed."""
    run, sites = secure_run("abcde")
    liar = sites[3]

    def spoil(reply):
        sealed = dict(reply.details["sealed"])
        for name in victims:
            key = liar.party._envelope_key("d", name)
            sealed[name] = seal(bytes(32), key, liar.party._envelope("d", name)).hex()
        return replace(reply, details={**reply.details, "sealed": sealed})

    liar.changes[Kind.SHARES] = spoil
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["a", "b", "c", "e"]
    assert run.last["refused"] == {"d": "'d' has dealt wrong shares: it is left out of the sum"}
    assert len(sites[0].sessions) == 2
    alone = secure_run("abce")[0].take(ALIGNMENT)
    for name, value in weights(alone).items():
        np.testing.assert_array_equal(weights(run)[name], value)


def test_16_a_false_accusation_harms_only_who_makes_it(secure_run):
    """A site says of an honest one that it deals wrong shares."""
    run, sites = secure_run("abcde")

    def accuse(reply):
        lie = MessageError("")
        lie.proof = {"dealer": "d", "key": sites[0].party._envelope_key("d", "a").hex()}
        return failure(reply.kind, "a", reply.round, "d has dealt wrongly", lie)

    sites[0].changes[ALIGNMENT.kind] = accuse
    run.take(ALIGNMENT)
    assert run.last["participants"] == ["b", "c", "d", "e"]
    assert list(run.last["refused"]) == ["a"]
    assert len(sites[1].sessions) == 1


def test_16_a_promise_that_its_dealer_has_not_signed_is_refused(secure_run):
    """Somebody between the sites exchanges what a dealer has committed to."""
    run, sites = secure_run("abcde")

    def exchange(reply):
        promise = {**reply.details["promise"], "commitment": "00" * 32}
        return replace(reply, details={**reply.details, "promise": promise})

    sites[3].changes[Kind.SHARES] = exchange
    run.take(ALIGNMENT)
    assert "what 'd' commits to is not signed by its registered key" in run.last["refused"]["d"]
    assert run.last["participants"] == ["a", "b", "c", "e"]


def test_16_shares_that_give_another_seed_than_was_committed_to_name_their_dealer(secure_run):
    """A dealer seals the shares that it commits to, but they are of another seed than it says."""
    from hica.secure_sum.group import promise_statement

    run, sites = secure_run("abcde")
    liar = sites[3]

    def commit_to_another(reply):
        deal = Deal.from_json(reply.details)
        told = (liar.party.group.transcript, "d", bytes(32), deal.promise.shares)
        signature = liar.key.sign(promise_statement(*told), SIGNING)
        promise = replace(deal.promise, commitment=bytes(32), signature=signature)
        return replace(reply, details=replace(deal, promise=promise).to_json())

    liar.changes[Kind.SHARES] = commit_to_another
    run.take(ALIGNMENT)
    assert run.last["refused"] == {"d": "'d' has dealt wrong shares: it is left out of the sum"}
    alone = secure_run("abce")[0].take(ALIGNMENT)
    for name, value in weights(alone).items():
        np.testing.assert_array_equal(weights(run)[name], value)
