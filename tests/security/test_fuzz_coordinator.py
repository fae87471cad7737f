"""A hostile coordinator asks two hospitals that differ by one patient: 2,000 cases.

Whatever it sends, in whatever order: a reply holds the declared arrays and nothing else, nobody can
tell the two hospitals apart but by the noise, the ledger holds every private answer, and no fault
of the program shows.
"""

import json
import math
import shutil
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.conftest import TOY_STUDY
from tests.coordinator import KEY, signed

import hica.storage
from hica.privacy.budget import statistics_multiplier
from hica.privacy.noise import GRID
from hica.privacy.statistics import SENSITIVITY
from hica.secure_sum.forms import question_of
from hica.steps.alone import start_of
from hica.steps.arrays import COUNT_SCALE, Sizes
from hica.steps.clusters import ASSIGN
from hica.steps.plan import all_kinds, plan, step_kinds, turn_of
from hica.steps.state import State
from hica.steps.step import Statistic
from hica.study import Study, apply_overrides, validated
from hica.wire.messages import Kind, Request
from hica.wire.records import decode_request, encode_request
from hica_client.app import app
from hica_client.approval import approve
from hica_client.guard import Guard
from hica_client.ledger import verify
from hica_client.session import Session
from hica_client.site import load_site

from .conftest import PRIVATE, WIDTH, Hospital

# Nine patients of a class or eight: the coordinator is told of eight, and all are drawn.
STUDY = (*PRIVATE, "alignment.shots=9", "alignment.rounds=1", "pretraining.rounds=1")
STUDY += ("federation.min_count=5", "personal.epochs=1")
POLICY = '[policy]\nmax_epsilon = 50.0\ndelta = 1e-3\nnoise = "seeded"\n'
NUMBERS = st.sampled_from(
    [0.0, 1e-45, 1e-12, 0.5, 1.0, -1.0, 4096.0, 1e6, -1e6, 1e30, 1e300, math.nan, math.inf]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)
DTYPES = ["float32", "float64", "float16", "int64", "bool", "complex64", "<U3"]


@dataclass(frozen=True)
class Two:
    """A study, two guards with their site files, and the state that a run starts from."""

    study: Study
    guards: list[tuple[Path, Guard]]
    state: State
    answered: Counter[str] = field(default_factory=Counter)
    """Kinds of the requests that were answered."""

    def ask(self, message):
        """What both answer."""
        return [
            outcome_of(guard.answer(message, context_of(path, self.study), app))
            for path, guard in self.guards
        ]

    def __repr__(self) -> str:
        return "two"  # or a failing case would show all weights


@pytest.fixture(scope="module")
def two(draw_site_below, tmp_path_factory):
    """Hospitals of the same name, the second without patient p0, each behind its guard."""
    study = validated(Study, apply_overrides(TOY_STUDY, list(STUDY)), "toy")
    guards = []
    for number in range(2):
        path = draw_site_below(tmp_path_factory.mktemp(f"{number}"), "north", images=36)
        path.write_text(path.read_text() + POLICY)
        manifest = path.parent / "manifest.csv"
        if number:
            lines = [line for line in manifest.read_text().splitlines() if ",p0," not in line]
            manifest.write_text("\n".join(lines) + "\n")
        site = load_site(path)
        approve(site, study, "dr-grey", datetime(2026, 11, 27, tzinfo=UTC))
        guards.append((path, Guard(site, KEY.public_key())))
    return Two(study, guards, Hospital(guards[0][0], study).state())


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """A message can only be made by somebody: here the coordinator's node."""
    for name, value in {"_task_id": 1, "_run_id": 77, "_node_id": 0}.items():
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A site's own models, of which nothing leaves, are not trained, and no power can fail."""

    def alone(session, texts):
        return session.model(start_of(session, texts), centred=False)

    monkeypatch.setattr(Session, "adapted", Session.model)
    monkeypatch.setattr(Session, "alone", alone)
    monkeypatch.setattr(hica.storage, "_sync", lambda path, access: None)


def context_of(path, study):
    return Context(1, 1, {"site": str(path)}, RecordDict(), {"study": study.sha256})


def request_of(study, state, turn):
    """As an honest coordinator asks."""
    arrays = dict(state.arrays())
    arrays |= turn.step.asked(study, replace(state, centroids=np.eye(3, WIDTH)))
    return Request(turn.step.kind, study, turn.round, dict(turn.settings), arrays)


def cast(value, dtype):
    """As another type, also where numbers are lost."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        return value.astype(dtype)


def filled(value, number, size):
    """With so many first numbers replaced, as far as the type of the array holds such."""
    value = value.copy()
    value.flat[:size] = cast(np.float64(number), value.dtype)
    return value


def asked(data, study, state):
    """A signed message: a request of the plan, of which anything may have been changed."""
    turns = [turn for turn in plan(study) if turn.step.kind]
    kind = data.draw(st.sampled_from(sorted({turn.step.kind for turn in turns})), "kind")
    turn = data.draw(st.sampled_from([turn for turn in turns if turn.step.kind == kind]), "turn")
    honest = request_of(study, state, turn)
    kind, round_, table, arrays = honest.kind, honest.round, honest.settings, dict(honest.arrays)
    header = {}
    for change in data.draw(st.lists(st.sampled_from(CHANGES), max_size=3), "changes"):
        name = data.draw(st.sampled_from(sorted(arrays)), "name") if arrays else ""
        value = arrays.get(name, np.zeros(2, np.float32))
        match change:
            case "fill":
                arrays[name] = filled(value, data.draw(NUMBERS, "value"), value.size)
            case "one":
                arrays[name] = filled(value, data.draw(NUMBERS, "value"), 1)
            case "unit rows":
                rows = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=value.shape)
                arrays[name] = (rows / np.linalg.norm(rows)).astype(value.dtype)
            case "shape":
                arrays[name] = value[: data.draw(st.integers(0, 3), "rows")]
            case "type":
                kind_of = data.draw(st.sampled_from(DTYPES), "type")
                with suppress(ValueError):  # text is no number
                    arrays[name] = cast(value, kind_of)
            case "leave out":
                arrays.pop(name, None)
            case "add":
                arrays[data.draw(st.text(max_size=9), "added")] = value
            case "kind":
                kind = data.draw(st.sampled_from([*all_kinds(), "train.door", ""]), "kind")
            case "round":
                round_ = data.draw(st.integers(-3, 9) | st.just(10**30), "round")
            case "settings":
                key = data.draw(st.sampled_from(["rate", "step", "sum", "kept", "session", "x"]))
                table[key] = data.draw(ANYTHING, "setting")
            case "header":
                key = data.draw(st.sampled_from(["protocol", "kind", "round", "study", "settings"]))
                header[key] = data.draw(ANYTHING, "field")
    try:
        content = encode_request(Request(kind, study, round_, table, arrays))
    except (TypeError, ValueError, KeyError):  # no such request can be written
        content = RecordDict({"message": ConfigRecord({"header": "{}"}), "arrays": ArrayRecord()})
    if header:
        text = json.loads(str(content.config_records["message"]["header"])) | header
        content.config_records["message"]["header"] = json.dumps(text)
    return signed(Message(content, 1, kind or "train.align"))


CHANGES = ["fill", "fill", "one", "unit rows", "shape", "type", "leave out", "add"]
CHANGES += ["kind", "round", "settings", "header"]


def outcome_of(message):
    """(words, None) of a refusal, (header without arrays, arrays) of an answer."""
    if message.has_error():
        return message.error.reason, None
    header = json.loads(str(message.content.config_records["message"]["header"]))
    arrays = {
        name: array.numpy() for name, array in message.content.array_records["arrays"].items()
    }
    details = header["details"]
    return (details["failed"], None) if "failed" in details else (header, arrays)


def check_case(two, data):
    """A few requests to both hospitals, which have answered nothing before."""
    study, guards, state = two.study, two.guards, two.state
    charged = set()
    for path, _ in guards:
        shutil.rmtree(path.parent / "state" / study.sha256[:16], ignore_errors=True)
        (path.parent / "state" / study.sha256[:16]).mkdir(parents=True)
        for log in (load_site(path).ledger, load_site(path).audit_log):
            for file in (log, log.with_suffix(".head")):
                file.unlink(missing_ok=True)
    # Mostly: a site that has answered nothing does not answer the end.
    if data.draw(st.sampled_from([True, True, True, False]), "clusters are kept"):
        [assign] = [turn for turn in plan(study) if turn.step is ASSIGN]
        two.ask(signed(Message(encode_request(request_of(study, state, assign)), 1, ASSIGN.kind)))
    for _ in range(data.draw(st.integers(1, 3), "requests")):
        message = asked(data, study, state)
        (said, arrays), (also, others) = two.ask(message)
        if arrays is None or others is None:
            assert said == also
            assert "fault in the program" not in said
            continue
        kind = said["kind"]
        assert kind == message.metadata.message_type
        two.answered[kind] += 1
        assert said == also or kind == Kind.CAPABILITIES
        if kind not in step_kinds():
            assert arrays == others == {}
            continue
        request = decode_request(message.content, kind)  # of another turn than drawn, perhaps
        turn = turn_of(request)
        check_arrays(study, turn, state, arrays, others)
        if turn.step.needs_noise:
            charged.add(question_of(request))
    for path, _ in guards:
        assert len(verify(load_site(path).ledger)) >= len(charged)


def check_arrays(study, turn, state, arrays, others):
    """As declared, finite, and of a statistic no further apart than one patient moves it."""
    if not isinstance(turn.step, Statistic):
        weights = {f"shared.{name}": value.shape for name, value in state.shared.items()}
        expected = weights if turn.step.answers(study) else {}
        for found in (arrays, others):
            assert {name: value.shape for name, value in found.items()} == expected
            assert all(np.isfinite(value).all() for value in found.values())
        return
    declared = {array.name: array for array in turn.step.answers(study)}
    sizes = Sizes(study, WIDTH, study.pretraining.clusters)
    for found in (arrays, others):
        assert found.keys() == declared.keys()
        for name, value in found.items():
            assert value.shape == sizes.of(declared[name]) and str(value.dtype) == "float64"
            assert np.isfinite(value).all()
    squares = [
        float(np.square(weight * (arrays[name] - others[name])).sum())
        for name, weight in (("sums", 1.0), ("counts", COUNT_SCALE))
    ]
    numbers = sum(value.size for value in arrays.values())
    rounding = GRID * statistics_multiplier(study) * math.sqrt(numbers)
    assert math.sqrt(sum(squares)) <= declared["sums"].moves * SENSITIVITY * (1 + rounding)


def fuzz(two, cases):
    """So many cases, of which not only what is refused at the door is looked at."""

    @seed(cases)
    @settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data):
        check_case(two, data)

    two.answered.clear()
    check()
    assert two.answered.total() >= cases / 4
    assert two.answered.keys() >= {turn.step.kind for turn in plan(two.study) if turn.step.kind}


def test_whatever_a_coordinator_asks_one_patient_does_not_show(two):
    fuzz(two, 60)


@pytest.mark.matrix
def test_whatever_a_coordinator_asks_one_patient_does_not_show_in_2000_cases(two):
    fuzz(two, 2000)
