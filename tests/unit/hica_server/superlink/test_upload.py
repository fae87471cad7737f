import numpy as np
from flwr.app import ArrayRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree

from hica_server.superlink.upload import MOST_BEYOND, MOST_OBJECTS

from .fake_link import Upload, answer, reply, to


def test_an_upload_that_is_stuck_keeps_no_other_waiting_and_ends_with_the_deadline(grid_of):
    stuck, whole = answer(1), answer(2)
    stuck.hold_back(stuck.root)
    grid, link = grid_of([stuck], [whole])
    answers = iter(grid.send_and_receive([to(1), to(2)], timeout=0.5))
    assert next(answers).metadata.src_node_id == 2
    assert link.pulled == [stuck.root, stuck.root, *reversed(whole.objects)]
    assert list(answers) == []
    assert set(link.pulled) == {stuck.root, *whole.objects}  # one small object a look
    assert link.confirmed == [whole.root]


def test_an_upload_is_taken_once_it_is_whole_and_its_objects_are_pulled_twice_at_most(grid_of):
    """It is held back in the order that costs most: every look finds one object more."""
    upload = Upload(
        reply(1, RecordDict({name: ArrayRecord([np.array([i])]) for i, name in enumerate("abcd")}))
    )
    whole, order = dict(upload.objects), list(upload.objects)
    upload.hold_back(*order)
    grid, link = grid_of([upload])

    def come(object_id):
        if link.pulled.count(object_id) > 1:
            upload.objects[object_id] = whole[object_id]

    link.when_pulled = come
    (got,) = grid.send_and_receive([to(1)])
    arrays = [array.numpy() for record in got.content.values() for array in record.values()]
    assert arrays == [0, 1, 2, 3]
    assert max(map(link.pulled.count, order)) == 3  # the first time it was not there
    assert link.awaited == [{"to 1"}]  # it is announced once


def test_an_upload_that_was_given_up_by_its_site_is_silence(grid_of):
    upload = answer(1)
    upload.hold_back(upload.root)
    grid, link = grid_of([upload])
    link.when_pulled = lambda object_id: len(link.pulled) > 2 and upload.objects.clear()
    assert list(grid.send_and_receive([to(1)])) == []
    assert len(link.pulled) == 3


def test_the_bytes_of_an_answer_are_limited_by_those_of_the_question(grid_of):
    content = RecordDict({"arrays": ArrayRecord([np.arange(3 * 2**20)])})
    grid, link = grid_of([answer(1, content)])
    (refused,) = grid.send_and_receive([to(1)])
    assert refused.error.reason == f"the answer has more than {MOST_BEYOND} bytes"
    assert len(link.pulled) < len(link.uploads[0].objects)  # it was broken off
    grid, _ = grid_of([answer(1, content)])
    (taken,) = grid.send_and_receive([to(1, content)])
    assert taken.has_content()


def test_too_many_objects_are_not_even_asked_for(grid_of):
    upload = answer(1)
    upload.tree.children.extend(ObjectTree(object_id=str(i)) for i in range(MOST_OBJECTS))
    grid, link = grid_of([upload])
    (refused,) = grid.send_and_receive([to(1)])
    assert refused.error.reason == f"the answer has more than {MOST_OBJECTS} objects"
    assert link.pulled == []
