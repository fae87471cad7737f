import gc
import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from tests.coordinator import KEY

from hica.errors import FederationError
from hica.wire.packing import PARCEL, pack, unpack
from hica.wire.signature import content_hash, verify
from hica_server.superlink import grid as grid_module
from hica_server.superlink.grid import PromptGrid
from hica_server.superlink.upload import most_reply_bytes

from .fake_link import Link, Upload, answer, nodes_of, reply, to

ONES = np.ones(3)


def test_answers_are_given_out_as_they_come_and_no_longer_asked_for(grid_of):
    grid, link = grid_of([], [answer(2)], [], [answer(1)])
    assert nodes_of(grid.send_and_receive([to(1), to(2)], timeout=60.0)) == [2, 1]
    assert link.awaited == [{"to 1", "to 2"}, {"to 1", "to 2"}, {"to 1"}, {"to 1"}]


def test_an_answer_says_what_its_site_sent_and_replies_to_what_was_asked(grid_of):
    sent = reply(1, RecordDict({"message": ConfigRecord({"header": "so"})}))
    upload = Upload(sent)
    grid, link = grid_of([upload])
    (got,) = grid.send_and_receive([Message(RecordDict(), 1, "train.align", group_id="3")])
    assert got.content == sent.content
    assert link.asked == {got.metadata.reply_to_message_id: 1}
    assert got.metadata.group_id == "3"
    assert link.confirmed == [upload.root]


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_site_whose_answer_cannot_come_any_more_is_silent_and_not_waited_for(grid_of, code):
    grid, _ = grid_of([answer(1, Error(code, "gone")), answer(2)])
    assert nodes_of(grid.send_and_receive([to(1), to(2)])) == [2]


def test_a_failure_at_a_site_is_an_answer(grid_of):
    grid, _ = grid_of([answer(1, Error(2, "disk is full"))])
    (failed,) = grid.send_and_receive([to(1)])
    assert failed.error == Error(2, "disk is full")


def test_a_message_that_the_superlink_did_not_take_is_not_waited_for(grid_of):
    grid, link = grid_of([answer(2)], refused=[1])
    assert len(list(grid.send_and_receive([to(1), to(2)]))) == 1
    assert link.awaited == [{"to 2"}]


def test_nothing_is_waited_for_beyond_the_deadline(grid_of):
    grid, link = grid_of([answer(2)])
    assert len(list(grid.send_and_receive([to(1), to(2)], timeout=0.0))) == 1
    assert len(link.awaited) == 1


def test_no_messages_no_answers(grid_of):
    grid, link = grid_of()
    assert list(grid.send_and_receive([], timeout=60.0)) == []
    assert link.awaited == []


def test_what_was_sent_with_patience_can_be_looked_for_once(grid_of):
    grid, _ = grid_of([], [answer(1)])
    ids = grid.push_messages([to(1)])
    assert list(grid.pull_messages(ids)) == []
    assert nodes_of(grid.pull_messages(ids)) == [1]
    assert list(grid.pull_messages(ids)) == []


def test_small_arrays_travel_in_a_parcel_that_is_made_once_for_all_sites(grid_of):
    content = RecordDict(
        {
            "message": ConfigRecord({"header": ""}),
            "arrays": ArrayRecord([np.zeros(3), np.ones(2)]),
        }
    )
    grid, link = grid_of([answer(1, pack(content)), answer(2, pack(content))])
    answers = list(grid.send_and_receive([to(1, content), to(2, content)]))
    pushed = b"".join(link.pushed.values())
    assert pushed.count(PARCEL.encode()) == 1 and b"Array" not in pushed
    for each in answers:
        assert [array.numpy().tolist() for array in each.content["arrays"].values()] == [
            [0.0, 0.0, 0.0],
            [1.0, 1.0],
        ]


def test_answers_are_taken_one_at_a_time_and_not_held(grid_of):
    grid, link = grid_of([answer(1), answer(2)])
    answers = iter(grid.send_and_receive([to(1), to(2)]))
    first = next(answers)
    pulled, first = len(link.pulled), weakref.ref(first)
    assert first() is None
    assert pulled == len(link.uploads[0].objects)
    assert len(list(answers)) == 1


def test_what_is_sent_is_not_held_while_answers_are_awaited(grid_of):
    grid, _ = grid_of()
    content = RecordDict({"message": ConfigRecord({"header": ""})})
    sent = weakref.ref(content)
    grid.push_messages([to(1, content)])
    del content
    gc.collect()  # a record that has been looked into is part of a circle
    assert sent() is None


def test_every_object_is_sent_once_whole_and_only_if_it_is_wanted(grid_of):
    grid, link = grid_of()
    content = RecordDict({"arrays": ArrayRecord([np.arange(6.0), np.zeros(2)])})
    messages = [to(1, content), to(2, content)]
    objects = {}
    for message in messages:
        objects |= {key: it.deflate() for key, it in get_all_nested_objects(message).items()}
    known = next(key for key, it in objects.items() if it.startswith(b"ArrayChunk"))
    link.known = {known}
    ids = grid.push_messages(messages)
    assert list(link.asked) == ids
    own = (b"Message", b"RecordDict")  # of a site, as its signature is in it
    contents = {key: it for key, it in objects.items() if not it.startswith(own)}
    assert known in contents
    assert {key: link.pushed.get(key) for key in contents} == contents | {known: None}
    assert len(link.pushed) == len(contents) - 1 + 3 * len(messages)


def test_every_message_is_signed_for_its_site_and_the_content_hashed_once(grid_of, monkeypatch):
    grid, link = grid_of()
    content = RecordDict({"message": ConfigRecord({"header": ""}), "arrays": ArrayRecord([ONES])})
    hashed = []
    whole = content_hash
    monkeypatch.setattr(grid_module, "content_hash", lambda it: hashed.append(it) or whole(it))
    for asked in grid.push_messages([to(1, content), to(2, content)]):
        received = inflate_object_from_contents(asked, dict(link.pushed))
        received.content = unpack(received.content)
        verify(received, KEY.public_key())
        (array,) = received.content["arrays"].values()
        assert array.numpy().tolist() == ONES.tolist()
    assert len(hashed) == 1


def test_how_much_may_be_answered_is_noted_by_site_before_it_is_asked(make_grid):
    make_grid({})
    link, noted = Link(refused=[2]), []
    grid = PromptGrid(link, KEY, lambda it: noted.append((dict(it), dict(link.asked))))
    arrays = RecordDict({"arrays": ArrayRecord([ONES])})
    size = len(arrays["arrays"]["0"].data)
    grid.push_messages([to(1, arrays), to(2), to(1)])
    limit = most_reply_bytes(0)
    assert noted == [({"a": most_reply_bytes(size) + limit, "b": limit}, {})]
    assert link.asked
    assert grid.push_messages([]) == [] and len(noted) == 1


def test_an_answer_is_not_held_twice_while_it_is_put_together(grid_of, monkeypatch):
    arrays = ArrayRecord([np.full(2**18, float(number)) for number in range(4)])
    upload = answer(1, RecordDict({"arrays": arrays}))
    held = []
    made = ArrayChunk.inflate.__func__

    def inflate(cls, *arguments, **named):
        assert not [piece for piece in held if piece() is not None]  # they are arrays by now
        piece = made(cls, *arguments, **named)
        held.append(weakref.ref(piece))
        return piece

    monkeypatch.setattr(ArrayChunk, "inflate", classmethod(inflate))
    grid, _ = grid_of([upload])
    (got,) = grid.send_and_receive([to(1)])
    assert [array.numpy()[0] for array in got.content["arrays"].values()] == [0.0, 1.0, 2.0, 3.0]


def test_a_piece_that_arrays_share_is_in_each_of_them(grid_of):
    zeros = np.zeros(12 * 2**17)  # 12 MiB in pieces of 5 MiB, the first two alike
    content = RecordDict({"arrays": ArrayRecord({"a": Array(zeros), "b": Array(zeros.copy())})})
    content["arrays"]["c"] = Array(np.zeros(5 * 2**17))
    grid, _ = grid_of([answer(1, content)])
    question = to(1, RecordDict({"arrays": ArrayRecord([np.ones(4 * 12 * 2**17)])}))
    (got,) = grid.send_and_receive([question])
    assert {name: array.numpy().sum() for name, array in got.content["arrays"].items()} == {
        "a": 0.0,
        "b": 0.0,
        "c": 0.0,
    }


def test_an_object_that_is_not_stored_stops_the_run(grid_of):
    grid, link = grid_of()
    link.stores = False
    with pytest.raises(FederationError, match="did not store object"):
        grid.push_messages([to(1)])


def test_messages_whose_objects_a_restarted_superlink_has_lost_are_sent_anew(grid_of):
    grid, link = grid_of([answer(1), answer(2)])
    link.loses = 1
    messages = [to(1), to(2)]
    got = list(grid.send_and_receive(messages))
    assert link.announcements == 2 and len(link.asked) == 4  # of which two are of no use
    assert nodes_of(got) == [1, 2]
    for reply_ in got:  # to what was sent in the end
        assert reply_.metadata.reply_to_message_id in link.pushed
    assert all(not message.content for message in messages)


def test_connected_sites_are_known_by_the_names_they_were_registered_for(grid_of):
    assert grid_of()[0].connected() == {"a": 1, "b": 2}


def test_what_an_answer_says_of_its_sender_is_not_believed(grid_of):
    told, said = reply(1), reply(1)
    said.metadata.__dict__ |= {"_src_node_id": 2, "_reply_to_message_id": "to 2"}
    grid, link = grid_of([Upload(told, said)], [answer(2)])
    got = list(grid.send_and_receive([to(1), to(2)]))
    assert nodes_of(got) == [1, 2]
    assert [link.asked[it.metadata.reply_to_message_id] for it in got] == [1, 2]


def test_what_answers_nothing_that_was_asked_is_ignored(grid_of):
    grid, link = grid_of([answer(3), answer(1)])
    assert nodes_of(grid.send_and_receive([to(1)])) == [1]
    assert link.uploads[0].root not in link.pulled
