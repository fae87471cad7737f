import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from hica_simulations.grid import SERVER_ID, InProcessGrid, run_in_process

SITES = [{"site": "north", "offset": 1.0}, {"site": "south", "offset": 2.0}, {"site": "west"}]


def content(values) -> RecordDict:
    arrays = ArrayRecord({"weight": Array(np.asarray(values, dtype=np.float32))})
    return RecordDict({"arrays": arrays})


def messages(*nodes: int, values=(1.0, 2.0)) -> list[Message]:
    return [Message(content(values), node, MessageType.TRAIN) for node in nodes]


def weight(message: Message) -> list[float]:
    return message.content["arrays"]["weight"].numpy().tolist()


def app_of(handler) -> ClientApp:
    app = ClientApp()
    app.train()(handler)
    return app


def adds_offset(message: Message, context) -> Message:
    total = np.asarray(weight(message)) + context.node_config.get("offset", 0.0)
    return Message(content(total), reply_to=message)


@pytest.mark.parametrize("workers", [1, 4])
def test_replies_come_in_the_order_of_the_messages_from_the_site_addressed(workers):
    with InProcessGrid(app_of(adds_offset), SITES, {}, workers) as grid:
        assert grid.get_node_ids() == [1, 2, 3]
        replies = grid.send_and_receive(messages(3, 1, 2))
    assert [reply.metadata.src_node_id for reply in replies] == [3, 1, 2]
    assert [reply.metadata.dst_node_id for reply in replies] == [SERVER_ID] * 3
    assert [weight(reply) for reply in replies] == [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]


def test_one_worker_runs_the_sites_in_the_order_of_the_messages():
    ran = []

    def handler(message, context):
        ran.append(context.node_id)
        return adds_offset(message, context)

    with InProcessGrid(app_of(handler), SITES * 3, {}) as grid:
        grid.send_and_receive(messages(5, 1, 9, 2, 8))
    assert ran == [5, 1, 9, 2, 8]


def test_a_site_handles_its_messages_one_at_a_time_whatever_the_workers():
    at_work, most = [], []

    def handler(message, context):
        at_work.append(context.node_id)
        most.append(at_work.count(context.node_id))
        reply = adds_offset(message, context)
        at_work.remove(context.node_id)
        return reply

    with InProcessGrid(app_of(handler), SITES, {}, workers=4) as grid:
        assert len(grid.send_and_receive(messages(*[1, 2] * 20))) == 40
    assert max(most) == 1


def test_neither_side_can_change_what_the_other_holds():
    kept = {}

    def handler(message, context):
        message.content["arrays"]["weight"].data = b"changed at the site"
        reply = Message(content([7.0]), reply_to=message)
        kept[context.node_id] = reply
        return reply

    [sent] = messages(1)
    with InProcessGrid(app_of(handler), SITES, {}) as grid:
        [reply] = grid.send_and_receive([sent])
    assert weight(sent) == [1.0, 2.0]
    reply.content["arrays"]["weight"] = Array(np.zeros(1, dtype=np.float32))
    assert weight(kept[1]) == [7.0]


def test_a_site_keeps_its_state_and_does_not_see_the_others():
    def handler(message, context):
        count = context.state.setdefault("seen", MetricRecord({"count": 0}))
        count["count"] += 1
        context.run_config["scratch"] = context.node_id
        return Message(RecordDict({"metrics": MetricRecord(dict(count))}), reply_to=message)

    run_config = {"rounds": 2}
    with InProcessGrid(app_of(handler), SITES, run_config) as grid:
        grid.send_and_receive(messages(1))
        first, second = grid.send_and_receive(messages(1, 2))
    assert first.content["metrics"]["count"] == 2
    assert second.content["metrics"]["count"] == 1
    assert run_config == {"rounds": 2}


@pytest.mark.parametrize("failure", [RuntimeError("disk gone"), SystemExit(3)])
def test_a_failure_is_an_error_reply_and_does_not_stop_the_others(failure):
    def handler(message, context):
        if context.node_id == 2:
            raise failure
        return adds_offset(message, context)

    with InProcessGrid(app_of(handler), SITES, {}) as grid:
        first, failed, third = grid.send_and_receive(messages(1, 2, 3))
    assert failed.has_error()
    assert failed.metadata.src_node_id == 2
    assert failed.error.reason == f"node 2: {failure!r}"
    assert first.has_content() and third.has_content()


def test_a_reply_that_is_no_message_is_an_error_reply():
    with InProcessGrid(app_of(lambda message, context: None), SITES, {}) as grid:
        [reply] = grid.send_and_receive(messages(1))
    assert reply.has_error() and "node 1" in reply.error.reason


def test_a_message_to_no_site_is_an_error_reply_naming_the_sites():
    with InProcessGrid(app_of(adds_offset), SITES, {}) as grid:
        [reply] = grid.send_and_receive(messages(9))
    assert reply.error.reason == "node 9: no such site; there are 1..3"


class Blocking:
    """A client app whose second site works until `release` is set."""

    def __init__(self):
        self.started, self.release = threading.Event(), threading.Event()
        self.app = app_of(self.handle)

    def handle(self, message, context):
        if context.node_id == 2:
            self.started.set()
            self.release.wait()
        return adds_offset(message, context)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_late_site_is_left_out_holds_up_nobody_and_its_late_reply_is_discarded(workers):
    blocking = Blocking()
    with InProcessGrid(blocking.app, SITES, {}, workers) as grid:
        assert grid.send_and_receive(messages(2, values=[10.0]), timeout=0.0) == []
        assert blocking.started.wait(timeout=60)
        others = grid.send_and_receive(messages(1, 3))
        assert [reply.metadata.src_node_id for reply in others] == [1, 3]
        again = grid.push_messages(messages(2, values=[20.0]))
        blocking.release.set()
        later = grid.send_and_receive(messages(2, values=[30.0]))
        assert [weight(reply) for reply in grid.pull_messages(again)] == [[22.0]]
        assert [weight(reply) for reply in later] == [[32.0]]
        assert not grid._replies and not grid._busy and not grid._abandoned


def test_replies_ready_at_the_deadline_are_returned_without_the_late_one(monkeypatch):
    blocking = Blocking()
    with InProcessGrid(blocking.app, SITES, {}, workers=3) as grid:
        # The deadline falls once two replies are there: no clock in the test.
        wait_for = grid._changed.wait_for
        monkeypatch.setattr(
            grid._changed, "wait_for", lambda _, timeout: wait_for(lambda: len(grid._replies) == 2)
        )
        replies = grid.send_and_receive(messages(1, 2, 3), timeout=5.0)
        assert [reply.metadata.src_node_id for reply in replies] == [1, 3]
        blocking.release.set()


def test_what_has_not_started_at_the_deadline_never_runs():
    ran = []
    blocking = Blocking()

    def handler(message, context):
        ran.append(context.node_id)
        return blocking.handle(message, context)

    with InProcessGrid(app_of(handler), SITES, {}) as grid:
        assert grid.send_and_receive(messages(2, 3), timeout=0.0) == []
        blocking.release.set()
    assert ran == [2]


def test_pushed_messages_are_pulled_once():
    done = threading.Event()

    def handler(message, context):
        done.set()
        return adds_offset(message, context)

    grid = InProcessGrid(app_of(handler), SITES, {})
    ids = grid.push_messages(messages(1))
    assert len(set(ids)) == 1
    grid.close()  # waits for what runs
    assert done.is_set()
    [reply] = grid.pull_messages(ids)
    assert reply.metadata.reply_to_message_id == ids[0]
    assert grid.pull_messages(ids) == []


def federation(workers: int, sites=SITES) -> list[float]:
    """Three rounds of plain averaging through a ServerApp."""
    result = []
    server = ServerApp()

    @server.main()
    def main(grid, context):
        values = [0.0, 1.0]
        for _ in range(int(context.run_config["rounds"])):
            replies = grid.send_and_receive(messages(*grid.get_node_ids(), values=values))
            values = np.mean([weight(reply) for reply in replies], axis=0)
        result.extend(np.asarray(values).tolist())

    run_in_process(server, app_of(adds_offset), sites, {"rounds": 3}, workers)
    return result


def test_one_worker_and_four_give_the_same_federation():
    assert federation(workers=1) == federation(workers=4) == [3.0, 4.0]


def test_two_grids_one_after_the_other_share_nothing():
    assert federation(workers=1) == [3.0, 4.0]
    assert federation(workers=1, sites=[{"offset": 5.0}]) == [15.0, 16.0]


def test_what_the_server_app_raises_reaches_the_caller():
    server = ServerApp()

    @server.main()
    def main(grid, context):
        raise ValueError("below quorum")

    with pytest.raises(ValueError, match="below quorum"):
        run_in_process(server, app_of(adds_offset), SITES)


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        InProcessGrid(app_of(adds_offset), SITES, {}, workers=0)
