import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.task_identity import TaskIdentity
from tests.coordinator import KEY, signed

from hica.deployment.kit import roster_sha256
from hica.errors import CheckpointError, DataError, MessageError
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.plan import steps_of
from hica.wire.messages import Kind, Reply, Request, SiteError, failure
from hica.wire.records import PROTOCOL, decode_reply, encode_reply, encode_request, payload_bytes
from hica_client import app as client
from hica_client import egress
from hica_client.approval import approve, decisions, revoke
from hica_client.audit import verify
from hica_client.guard import Guard
from hica_client.policy import arrays_of
from hica_client.site import PolicySection, load_site

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEIGHTS = {"shared.a": np.ones((2, 3), np.float32), "shared.b": np.zeros(4, np.float16)}


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """A message can only be made by somebody: here the coordinator's node 0 in run 77."""
    for name, value in {"_task_id": 1, "_run_id": 77, "_node_id": 0}.items():
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture
def study(toy_study):
    return toy_study()


@pytest.fixture
def site(tmp_path, study):
    """A site that has approved the study."""
    path = tmp_path / "north" / "site.toml"
    path.parent.mkdir()
    path.write_text('[site]\nname = "north"\n[data]\nmanifest = "m.csv"\n[policy]\nmin_count = 3\n')
    site = load_site(path)
    approve(site, study, "dr-grey", NOW)
    return site


def guard_of(site):
    return Guard(site, KEY.public_key())


def with_policy(site, **fields):
    return site.model_copy(update={"policy": PolicySection(**{"min_count": 3, **fields})})


def message(study, kind=ALIGNMENT.kind, round_=3, type_=None):
    request = Request(kind, study, round_, {}, {"centre": np.zeros(2, np.float32)})
    return signed(Message(encode_request(request), 1, type_ or kind))


def raw(header, kind=ALIGNMENT.kind):
    text = header if isinstance(header, str) else json.dumps(header)
    record = RecordDict({"message": ConfigRecord({"header": text}), "arrays": ArrayRecord()})
    return signed(Message(record, 1, kind))


def context(study, settings=None):
    expected = {"study": study.sha256}
    return Context(1, 1, {}, RecordDict(), expected if settings is None else settings)


def replying(reply, **records):
    """An app that answers with this reply and further records."""

    def app(message, context):
        record = encode_reply(reply)
        record.update(records)
        return Message(record, reply_to=message)

    return app


def update(**changes):
    return replace(Reply(ALIGNMENT.kind, "north", 3, 8, {"loss": 0.5}, WEIGHTS), **changes)


def never(message, context):
    raise AssertionError("the app was called")


def reason(answer, kind=ALIGNMENT.kind, round_=3):
    """Why the site says it does not answer; nothing else may be in the reply."""
    assert dict(answer.content.array_records["arrays"]) == {}
    with pytest.raises(SiteError) as error:
        decode_reply(answer.content, kind, round_, {})
    assert error.value.site == "north"
    return str(error.value)


def entry(site):
    """The log's only entry."""
    [found] = verify(site.audit_log)
    return found


def refused(site, answer, words, **expected):
    """The coordinator and the log read the same reason; nothing is noted as having left."""
    assert words in (answer.error.reason if answer.has_error() else reason(answer))
    found = entry(site)
    assert (found["event"], found["decision"]) == ("message", "refused")
    assert words in found["reason"]
    assert (found["arrays"], found["details"], found["bytes"], found["header"]) == ({}, [], 0, "")
    for name, value in expected.items():
        assert found[name] == value


def test_an_approved_request_is_answered_and_logged_in_full(site, study):
    asked = message(study)
    answer = guard_of(site).answer(asked, context(study), replying(update()))
    spec = {name: (array.shape, str(array.dtype)) for name, array in WEIGHTS.items()}
    assert decode_reply(answer.content, ALIGNMENT.kind, 3, spec).examples == 8
    found = entry(site)
    buffer = io.BytesIO()
    np.save(buffer, WEIGHTS["shared.a"])
    assert found["arrays"] == {
        "shared.a": [[2, 3], "float32", hashlib.sha256(buffer.getvalue()).hexdigest()],
        "shared.b": [[4], "float16", found["arrays"]["shared.b"][2]],
    }
    header = answer.content.config_records["message"]["header"]
    assert found["header"] == hashlib.sha256(header.encode()).hexdigest()
    assert found["bytes"] == payload_bytes(answer.content)
    wanted = ("message", "sent", "", "train.align", 3, study.sha256, 77, 8, ["loss"])
    names = ("event", "decision", "reason", "kind", "round", "study", "run_id", "examples")
    assert tuple(found[name] for name in (*names, "details")) == wanted


def test_the_local_app_answers_behind_the_guard(enrolled_site, study):
    site = load_site(enrolled_site)
    approve(site, study, "dr-grey", NOW)
    here = Context(1, 1, {"site": str(enrolled_site)}, RecordDict(), {"study": study.sha256})
    asked = message(study, Kind.CAPABILITIES, 0)
    answer = guard_of(site).answer(asked, here, client.app)
    said = decode_reply(answer.content, Kind.CAPABILITIES, 0, {}).details
    assert said["labelled"] == 8
    assert entry(site)["details"] == sorted(said)


@pytest.mark.parametrize("kind", ["train.backdoor", "train", "query.capabilities2", "system"])
def test_an_unknown_kind_of_request(site, study, kind):
    answer = guard_of(site).answer(message(study, type_=kind), context(study), never)
    refused(site, answer, f"{kind!r} is no kind of request", kind="", study="")
    assert answer.error.reason.startswith("north: ")


def test_a_message_that_is_an_error_or_of_another_kind_than_it_says(site, study):
    error = Message(Error(0, "lost"), reply_to=message(study))
    refused(site, guard_of(site).answer(error, context(study), never), "has no content")
    site.audit_log.unlink(), site.audit_log.with_suffix(".head").unlink()
    other = message(study, CENTRE.kind, type_=ALIGNMENT.kind)
    refused(site, guard_of(site).answer(other, context(study), never), "is a 'train.moments'")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("no JSON", "header is not JSON"),
        ("[" * 100_000, "header is not JSON"),
        ('{"protocol": ' + "1" * 5000 + "}", "header is not JSON"),
        ("[]", "header is not a JSON object"),
        (" " * 4_000_001, "at most 4000000 are read"),
        ({"protocol": 99}, "protocol 99"),
        (
            {"protocol": PROTOCOL, "kind": "train.align", "round": "3"},
            "'round' is missing or no int",
        ),
        (
            {"protocol": PROTOCOL, "kind": "train.align", "round": 3, "study": {}, "settings": {}},
            "study received: study: Field required",
        ),
    ],
)
def test_a_header_that_cannot_be_read(site, study, header, words):
    answer = guard_of(site).answer(raw(header), context(study), never)
    refused(site, answer, words, kind="train.align", study="")


def test_a_message_without_header(site, study):
    empty = signed(Message(RecordDict(), 1, ALIGNMENT.kind))
    refused(site, guard_of(site).answer(empty, context(study), never), "no header")


def test_a_kind_that_the_policy_does_not_answer(site, study):
    site = with_policy(site, kinds=["query.capabilities"])
    answer = guard_of(site).answer(message(study), context(study), never)
    refused(site, answer, "policy.kinds of this site does not list train.align", round=3)


def test_a_study_that_was_not_approved_or_changed_since(site, study, toy_study):
    changed = toy_study("alignment.local_epochs=3")
    answer = guard_of(site).answer(message(changed), context(changed), never)
    words = f"study {changed.sha256[:12]} is not approved at this site"
    refused(site, answer, words, study=changed.sha256)


def test_an_approval_taken_back_counts_at_once(site, study):
    guard = guard_of(site)
    revoke(site, decisions(site)[study.sha256], "dr-grey", NOW)
    refused(site, guard.answer(message(study), context(study), never), "is not approved")


def test_approvals_that_cannot_be_read_approve_nothing(site, study):
    with site.approvals.open("a") as file:
        file.write("damaged\n")
    answer = guard_of(site).answer(message(study), context(study), never)
    refused(site, answer, "ConfigurationError: approvals.jsonl: line 2")
    assert str(site.data.state) not in reason(answer)


def test_a_policy_made_stricter_after_the_approval_counts(site, study):
    site = with_policy(site, min_count=10)
    answer = guard_of(site).answer(message(study), context(study), never)
    refused(site, answer, "policy.min_count is 10")


@pytest.mark.parametrize(
    "settings",
    [{}, {"study": ""}, {"study": "0" * 64}, {"study": "its own", "lr": 1.0}, {"lr": 1.0}],
)
def test_a_run_started_with_anything_but_the_approved_study(site, study, settings):
    settings = {k: study.sha256 if v == "its own" else v for k, v in settings.items()}
    answer = guard_of(site).answer(message(study), context(study, settings), never)
    refused(site, answer, "the run was started with {")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (update(arrays={"secret": np.ones(2)}), "policy.tensors holds back the arrays secret"),
        (update(arrays={"shared.a": np.array([1, np.nan])}), "'shared.a' holds NaN or infinite"),
        (update(arrays={"shared.a": np.array([np.inf])}), "'shared.a' holds NaN or infinite"),
        (update(arrays={"shared.a": np.array(["text"])}), "only plain numbers"),
        (update(details={"loss": float("nan")}), "details hold NaN or infinite values"),
        (update(details={"a": [{"b": float("-inf")}]}), "details hold NaN or infinite values"),
        (update(details={"a": "x" * 1000}), "details of 1009 bytes, at most 500 may leave"),
        (update(site="south"), "the app answers as 'south'"),
        (failure(ALIGNMENT.kind, "south", 3, "no", MessageError()), "the app answers as 'south'"),
        (update(round=4), "answers round 5, asked was round 4"),
        (update(kind=CENTRE.kind), "is a 'train.moments', expected 'train.align'"),
        (update(examples=-1), "claims -1 examples"),
        (update(details={"failed": "see arrays"}), "the reason of a failure comes with arrays"),
    ],
)
def test_a_reply_that_may_not_leave(site, study, monkeypatch, reply, words):
    monkeypatch.setattr(egress, "MAX_DETAILS_BYTES", 500)
    declared = {name for step in steps_of(study) for name in arrays_of(step, study)}
    site = with_policy(site, tensors={*declared, "shared.?"})
    answer = guard_of(site).answer(message(study), context(study), replying(reply))
    refused(site, answer, words, study=study.sha256, examples=0)


def test_a_reply_of_more_bytes_than_allowed(site, study):
    size = payload_bytes(encode_reply(update()))
    site = with_policy(site, max_reply_bytes=size - 1)
    answer = guard_of(site).answer(message(study), context(study), replying(update()))
    refused(site, answer, f"the reply has {size} bytes, policy.max_reply_bytes is {size - 1}")


def test_a_reply_of_as_many_bytes_as_allowed_leaves(site, study):
    site = with_policy(site, max_reply_bytes=payload_bytes(encode_reply(update())))
    guard_of(site).answer(message(study), context(study), replying(update()))
    assert entry(site)["decision"] == "sent"


@pytest.mark.parametrize(
    "records",
    [
        {"more": MetricRecord({"mean": 1.5})},
        {"more": ConfigRecord({"header": "text"})},
        {"more": ArrayRecord({"shared.a": Array(np.ones(2))})},
        {"arrays": MetricRecord({"mean": 1.5})},
        {"message": MetricRecord({"mean": 1.5})},
        {"message": ConfigRecord({"header": "{}", "more": "text"})},
    ],
)
def test_a_reply_with_parts_that_the_log_would_not_show(site, study, records):
    answer = guard_of(site).answer(message(study), context(study), replying(update(), **records))
    refused(site, answer, "the reply has parts that the audit log would not show")


def test_an_array_that_is_not_what_it_says(site, study):
    data = Array(np.ones((2, 3), np.float32)).data
    for array in (
        Array("float16", (2, 3), "numpy.ndarray", data),
        Array("float32", (6,), "numpy.ndarray", data),
        Array("float32", (3, 2), "numpy.ndarray", data),
        Array("float32", (2, 3), "numpy.ndarray", b"not an array"),
    ):
        app = replying(update(), arrays=ArrayRecord({"shared.a": array}))
        answer = guard_of(site).answer(message(study), context(study), app)
        assert "array 'shared.a'" in reason(answer)
    assert [each["decision"] for each in verify(site.audit_log)] == ["refused"] * 4


def test_an_app_that_answers_with_an_error(site, study):
    def app(message, context):
        return Message(Error(2, "patient 17 has no image"), reply_to=message)

    answer = guard_of(site).answer(message(study), context(study), app)
    refused(site, answer, "the app answered with an error")
    assert "patient 17" not in reason(answer)


def test_of_a_fault_in_the_program_only_its_kind_leaves(site, study):
    def app(message, context):
        raise KeyError("patient 17")

    answer = guard_of(site).answer(message(study), context(study), app)
    refused(site, answer, "fault in the program: KeyError")
    assert "patient 17" not in reason(answer)


def test_what_a_user_can_mend_is_said_without_folders(site, study):
    def app(message, context):
        raise CheckpointError("/data/north/weights.safetensors: no such weights file")

    answer = guard_of(site).answer(message(study), context(study), app)
    refused(site, answer, "CheckpointError: weights.safetensors: no such weights file")


def test_what_is_wrong_with_the_data_stays_in_the_log_of_the_site(site, study, caplog):
    """Said by the app in its reply, or raised on the way."""
    error = DataError("manifest.csv: on both sides of the split: ['patient:17']")

    def raising(message, context):
        raise error

    said = failure(ALIGNMENT.kind, "north", 3, f"DataError: {error}", error)
    for app in (raising, replying(said)):
        answer = guard_of(site).answer(message(study), context(study), app)
        assert "its data cannot be used; why is in the log of the site" in reason(answer)
        assert "17" not in str(answer.content)
    assert "patient:17" in caplog.text
    assert [each["decision"] for each in verify(site.audit_log)] == ["refused"] * 2
    assert "patient:17" not in site.audit_log.read_text()


def test_the_app_itself_logs_what_is_wrong_with_the_data(enrolled_site, study, caplog):
    site = load_site(enrolled_site)
    approve(site, study, "dr-grey", NOW)
    manifest = enrolled_site.parent / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("p15,test", "p0,test"))
    here = Context(1, 1, {"site": str(enrolled_site)}, RecordDict(), {"study": study.sha256})
    answer = guard_of(site).answer(message(study, Kind.CAPABILITIES, 0), here, client.app)
    assert "its data cannot be used" in reason(answer, Kind.CAPABILITIES, 0)
    assert "patient:p0" in caplog.text


def test_why_the_app_could_not_answer_leaves_and_is_logged(site, study):
    error = CheckpointError("pseudo_labels: missing")
    said = failure(ALIGNMENT.kind, "north", 3, f"CheckpointError: {error}", error)
    answer = guard_of(site).answer(message(study), context(study), replying(said))
    assert "pseudo_labels: missing" in reason(answer)
    found = entry(site)
    assert (found["decision"], found["arrays"]) == ("failed", {})
    assert "pseudo_labels: missing" in found["reason"]
    assert found["bytes"] == payload_bytes(answer.content)


def test_a_reason_is_cut_to_what_the_coordinator_reads(site, study):
    def app(message, context):
        raise CheckpointError("x" * 5000)

    answer = guard_of(site).answer(message(study), context(study), app)
    refused(site, answer, "CheckpointError: xxx")
    assert len(entry(site)["reason"]) == 1000


def test_nothing_leaves_that_cannot_be_logged(site, study):
    guard = guard_of(site)
    site.audit_log.mkdir()
    answer = guard.answer(message(study), context(study), replying(update()))
    assert "north: nothing leaves without a log: StorageError: audit.jsonl" in answer.error.reason
    assert str(site.data.state) not in answer.error.reason
    site.audit_log.rmdir()
    guard.answer(message(study), context(study), replying(update()))
    assert entry(site)["decision"] == "sent"


def test_the_log_is_written_before_the_reply_is_given_back(site, study):
    """Seen from the app of the next message: the entry of the one before is there."""
    seen = []

    def app(message, context):
        seen.append(len(verify(site.audit_log)))
        return replying(update())(message, context)

    guard = guard_of(site)
    for _ in range(3):
        guard.answer(message(study), context(study), app)
    assert seen == [0, 1, 2]


def test_no_guard_on_a_log_that_was_tampered_with(site, study):
    guard_of(site).answer(message(study), context(study), replying(update()))
    site.audit_log.write_text(site.audit_log.read_text().replace('"examples":8', '"examples":9'))
    with pytest.raises(DataError, match="line 1: was changed"):
        guard_of(site)


# --- Secure aggregation --------------------------------------------------------------------------


@pytest.fixture
def secure(toy_study, site):
    """A study with secure aggregation, approved with a list of keys."""
    study = toy_study("privacy.secure_aggregation=true")
    site.federation.kit.mkdir()
    (site.federation.kit / "keys.json").write_text("{}")
    approve(site, study, "dr-grey", NOW, roster_sha256(site.federation.kit))
    return study


def test_a_list_of_keys_that_was_not_approved_stops_every_request(site, secure):
    said = Reply(Kind.KEYS, "north", 3, details={"site": "north"})
    answer = guard_of(site).answer(message(secure, Kind.KEYS), context(secure), replying(said))
    assert decode_reply(answer.content, Kind.KEYS, 3, {}).details == {"site": "north"}
    (site.federation.kit / "keys.json").write_text("{ }")
    answer = guard_of(site).answer(message(secure, Kind.KEYS), context(secure), replying(said))
    assert "not the list of keys that was approved" in reason(answer, Kind.KEYS)


def test_masked_arrays_are_in_the_log_as_what_they_are(site, secure):
    arrays = {"shared.a": np.ones((2, 3), np.uint32), "examples": np.ones(1, np.uint64)}
    said = Reply(ALIGNMENT.kind, "north", 3, arrays=arrays)
    guard_of(site).answer(message(secure), context(secure), replying(said))
    found = entry(site)
    assert (found["examples"], found["details"]) == (0, [])
    assert found["arrays"]["shared.a"][:2] == [[2, 3], "uint32"]
    assert found["arrays"]["examples"][:2] == [[1], "uint64"]


def test_a_site_that_demands_it_refuses_a_study_without(site, study):
    demanding = with_policy(site, require_secure_aggregation=True)
    answer = guard_of(demanding).answer(message(study), context(study), replying(update()))
    assert "which the study does not offer" in reason(answer)
