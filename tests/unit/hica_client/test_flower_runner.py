"""The runner, against the real Runtime API of a SuperNode."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode

from hica.deployment.bundle import APP_ID, BUNDLE_SHA256, build
from hica.errors import ConfigurationError
from hica.wire.messages import Kind, Request
from hica.wire.packing import PARCEL, pack, unpack
from hica.wire.records import decode_reply, encode_request
from hica_client import flower_runner
from hica_client.approval import approve
from hica_client.audit import verify
from hica_client.flower_runner import TASK_LOST, local_app, refusal, work
from hica_client.site import load_site

from .fake_supernode import SECRET, FakeSuperNode, supernode, wait_until

ECHO = """
import sys, time
from flwr.app import Message
from hica_client import flower_runner

def answer(message, context, app_id, bundle):
    if message.metadata.message_type == "train.endless":
        print("busy", flush=True)
        time.sleep(3600)
    return Message(message.content, reply_to=message)

flower_runner.HEARTBEAT_SECONDS = 0.1
flower_runner.serve(sys.argv[1], b"shared secret", answer)
"""


def echo(message, context, app_id, bundle):
    return Message(message.content, reply_to=message)


def numbers(*values: float) -> RecordDict:
    return RecordDict({"arrays": ArrayRecord([np.array(values)])})


def content_of(message) -> list[float]:
    (array,) = message.content.array_records["arrays"].values()
    return array.numpy().tolist()


@pytest.fixture
def node():
    with supernode() as found:
        yield found


@pytest.fixture
def start_runner():
    """Starts a runner that gives every message back, as a process of its own."""
    started = []

    def start(runtime: str) -> subprocess.Popen:
        command = [sys.executable, "-c", ECHO, runtime]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def do(node: FakeSuperNode, task: int, answer) -> None:
    """Work on a task as the runner's loop would."""
    work(node.runtime, node.token(task), answer)


def test_a_message_is_answered_and_its_task_finished(node):
    task = node.ask(numbers(1, 2, 3))
    do(node, task, echo)
    reply = node.reply()
    assert content_of(reply) == [1, 2, 3]
    assert (reply.metadata.group_id, reply.metadata.dst_node_id) == ("3", 1)
    assert node.status(task) == ("finished", "completed")


def test_small_arrays_travel_in_a_parcel_that_the_app_does_not_see(node):
    seen = {}

    def look(message, context, app_id, bundle):
        seen.update(message.content.array_records["arrays"])
        return echo(message, context, app_id, bundle)

    sent = RecordDict(
        {
            "message": ConfigRecord({"header": ""}),
            "arrays": ArrayRecord([np.array([1.0]), np.array([2.0, 3.0])]),
        }
    )
    do(node, node.ask(pack(sent)), look)
    assert [array.numpy().tolist() for array in seen.values()] == [[1.0], [2.0, 3.0]]
    reply = node.reply().content
    assert list(reply) == ["message"] and PARCEL in reply["message"]
    assert unpack(reply)["arrays"] == sent["arrays"]


def test_the_app_gets_the_context_and_the_bundle_of_the_run(node):
    seen = {}

    def look(message, context, app_id, bundle):
        seen.update(config=context.run_config, app_id=app_id, bundle=bundle)
        return echo(message, context, app_id, bundle)

    do(node, node.ask(numbers(1), bundle=b"zip", run_config={"study": "abc"}), look)
    assert seen == {"config": {"study": "abc"}, "app_id": "hica/hica-bundle", "bundle": b"zip"}


def test_an_answer_that_fails_is_named_by_its_type_only(node, caplog):
    def fail(message, context, app_id, bundle):
        raise KeyError("patient 4711")

    do(node, node.ask(numbers(1)), fail)
    error = node.reply().error
    assert error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert error.reason == "KeyError at the site; the log of its runner says more"
    assert "patient 4711" in caplog.text


def test_heartbeats_keep_a_task_while_it_is_worked_on(node, monkeypatch):
    monkeypatch.setattr(flower_runner, "HEARTBEAT_SECONDS", 0.01)
    task = node.ask(numbers(1))
    token = node.token(task)

    def expires() -> float:
        return node.state.task_token_store[task].active_until.timestamp()

    def answer(message, context, app_id, bundle):
        before = expires()
        wait_until(lambda: expires() > before)
        return echo(message, context, app_id, bundle)

    work(node.runtime, token, answer)
    assert node.status(task) == ("finished", "completed")


def test_a_task_the_supernode_gave_up_ends_the_runner_that_works_on_it(node, start_runner):
    runner = start_runner(node.runtime)
    task = node.ask(numbers(1), kind="train.endless")
    assert runner.stdout.readline() == "busy\n"
    node.state.finish_task(task, "failed", "given up")
    assert runner.wait() == TASK_LOST


def test_a_task_whose_supernode_is_killed_ends_the_runner_that_works_on_it(node, start_runner):
    runner = start_runner(node.runtime)
    node.ask(numbers(1), kind="train.endless")
    assert runner.stdout.readline() == "busy\n"
    node.stop()
    assert runner.wait() == TASK_LOST


def test_a_slow_supernode_is_not_taken_for_a_dead_one():
    assert not flower_runner._is_gone(httpx.ReadTimeout("slow"))


def test_an_answer_that_nobody_takes_any_more_is_dropped(node, caplog):
    task = node.ask(numbers(1))

    def answer(message, context, app_id, bundle):
        node.state.finish_task(task, "failed", "given up")
        return echo(message, context, app_id, bundle)

    do(node, task, answer)
    assert "a task is dropped" in caplog.text


def test_a_task_without_a_message_is_a_fault_that_the_supernode_may_not_survive(node):
    task = node.ask(numbers(1))
    node.state.delete_messages()
    with pytest.raises(RuntimeError, match="No messages"):
        do(node, task, echo)


def test_a_runner_that_serves_one_supernode_after_the_other(node, start_runner):
    start_runner(node.runtime)
    for value in range(3):
        node.ask(numbers(value))
        assert content_of(node.reply()) == [value]
    node.stop()
    with supernode(node.port) as restarted:
        restarted.ask(numbers(42))
        assert content_of(restarted.reply()) == [42]


def test_a_runner_that_is_there_first_waits_for_its_supernode(node, start_runner):
    node.stop()
    start_runner(node.runtime)
    with supernode(node.port) as late:
        late.ask(numbers(1))
        assert content_of(late.reply()) == [1]


def test_only_messages_for_a_client_app_are_taken(node, start_runner):
    start_runner(node.runtime)
    agent = node.ask(numbers(1), task_type="flwr-agentapp")
    node.state.delete_messages()  # the agent's own
    node.ask(numbers(2))
    assert content_of(node.reply()) == [2]
    assert node.status(agent)[0] == "pending"


def test_a_supernode_with_another_secret_gives_no_work(node):
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        flower_runner.serve(node.runtime, b"another secret", echo)


def test_our_own_bundle_is_not_refused():
    assert refusal(APP_ID, build()) is None


@pytest.mark.parametrize(
    ("app_id", "bundle"),
    [("stranger/app", build()), (APP_ID, build() + b"\0"), (APP_ID, b""), ("", build())],
)
def test_any_other_bundle_is_refused_by_name_and_hash(app_id, bundle):
    reason = refusal(app_id, bundle)
    assert f"bundle {app_id!r} " in reason
    assert BUNDLE_SHA256[:12] in reason
    assert "install the same version of hica on both sides" in reason


def test_a_bundle_cannot_fill_the_log_or_break_its_lines():
    reason = refusal("stranger\nERROR forged\n" * 100_000, b"")
    assert "\n" not in reason
    assert len(reason) < 500


@pytest.fixture
def approved_site(enrolled_site, toy_study):
    approve(load_site(enrolled_site), toy_study(), "dr-grey", datetime(2026, 3, 1, tzinfo=UTC))
    return enrolled_site


def test_the_installed_app_answers_for_the_site_the_runner_was_started_for(
    node, approved_site, toy_study
):
    study = toy_study()
    request = encode_request(Request(Kind.CAPABILITIES, study))
    run_config = {"study": study.sha256}
    kind, bundle = Kind.CAPABILITIES.value, build()
    task = node.ask(request, kind, APP_ID, bundle, run_config, coordinator=True)
    do(node, task, local_app(approved_site))
    reply = decode_reply(node.reply().content, Kind.CAPABILITIES, 0, {})
    assert reply.site == "north"
    assert reply.details["unlabelled"] == 8
    (entry,) = verify(load_site(approved_site).audit_log)
    assert (entry["decision"], entry["kind"]) == ("sent", "query.capabilities")


def test_a_request_in_the_coordinator_s_name_is_refused_and_noted(node, approved_site, toy_study):
    study = toy_study()
    request = encode_request(Request(Kind.CAPABILITIES, study))
    run_config = {"study": study.sha256}
    task = node.ask(request, Kind.CAPABILITIES.value, APP_ID, build(), run_config)
    do(node, task, local_app(approved_site))
    error = node.reply().error
    assert error.reason.startswith("north: MessageError: the request is not signed")
    (entry,) = verify(load_site(approved_site).audit_log)
    assert (entry["decision"], entry["kind"]) == ("refused", "query.capabilities")


def test_a_site_whose_kit_has_no_key_of_the_coordinator_does_not_start(approved_site):
    kit = approved_site.parent / "kit" / "kit.json"
    old = json.loads(kit.read_text())
    del old["coordinator_key"]
    kit.write_text(json.dumps(old))
    with pytest.raises(ConfigurationError, match="for a new start kit"):
        local_app(approved_site)


def test_a_foreign_bundle_is_answered_by_an_error_and_noted(node, approved_site):
    task = node.ask(numbers(1), "train.align", APP_ID, b"a bundle with code in it")
    do(node, task, local_app(approved_site))
    error = node.reply().error
    assert error.code == ErrorCode.INVALID_FAB
    assert "the only one this site answers" in error.reason
    (entry,) = verify(load_site(approved_site).audit_log)
    assert (entry["event"], entry["decision"]) == ("application", "refused")
    assert (entry["kind"], entry["reason"], entry["run_id"]) == ("train.align", error.reason, 11)


def test_a_bundle_is_refused_before_the_guard_sees_the_message(node, approved_site, monkeypatch):
    monkeypatch.setattr("hica_client.guard.Guard.answer", lambda *_: pytest.fail("asked"))
    do(node, node.ask(numbers(1), bundle=b"foreign"), local_app(approved_site))
    assert node.reply().error.code == ErrorCode.INVALID_FAB


def test_a_runner_that_cannot_start_says_why_without_a_traceback(tmp_path, capsys):
    site, secret = tmp_path / "site.toml", tmp_path / "secret"
    site.write_text("[site]\n")
    secret.write_bytes(SECRET)
    with pytest.raises(SystemExit) as end:
        flower_runner.main([str(site), "--runtime", "127.0.0.1:1", "--secret", str(secret)])
    assert end.value.code == 2
    assert "site.toml: site.name" in capsys.readouterr().err
