import time

import pytest
from flwr.proto.message_pb2 import ObjectTree

from hica_server.superlink.fleet_messages import why_refused

NOW = 1_800_000_000.0
HALF_A_DAY = 43200.0


@pytest.fixture
def why(announcement):
    """`why(**metadata)` → why an announcement with it is refused."""
    told = {"created_at": NOW - 60.0}
    return lambda **more: why_refused(announcement(**told | more).SerializeToString(), NOW)


def test_an_answer_passes(why, announcement):
    assert why() is None
    assert why_refused(announcement().SerializeToString(), time.time()) is None


def test_an_answer_of_a_clock_that_is_five_minutes_off_passes(why):
    """Its life ends with that of the request, which is told by the coordinator's clock."""
    for minutes in (-5, 5):
        assert why(created_at=NOW + 60 * minutes, ttl=HALF_A_DAY - 60 * minutes) is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"src_node_id": 1}, "in the name of another"),
        ({"src_node_id": 8}, "in the name of another"),
        ({"src_node_id": 0}, "in the name of another"),
        ({"dst_node_id": 8}, "to another than the coordinator"),
        ({"dst_node_id": 7}, "to another than the coordinator"),
        ({"dst_node_id": 0}, "to another than the coordinator"),
        ({"reply_to_message_id": ""}, "answers no request"),
        ({"message_id": "c" * 64}, "objects of another message"),
        ({"ttl": 3.2e8}, "lives longer than any request"),
        ({"created_at": NOW + 3.2e8}, "lives longer than any request"),
        ({"ttl": float("inf")}, "lives longer than any request"),
        ({"ttl": float("nan")}, "lives longer than any request"),
        ({"created_at": float("-inf")}, "lives longer than any request"),
        ({"ttl": 1e300, "created_at": -1e300}, "lives longer than any request"),
        ({"ttl": float("inf"), "created_at": float("-inf")}, "lives longer than any request"),
    ],
)
def test_what_is_no_answer_of_its_node_is_refused(why, told, words):
    assert words in why(**told)


def test_one_answer_at_a_time(announcement):
    """Flower takes the first, and would not look at what it was told of the others."""
    none, two, trees = announcement(), announcement(), announcement()
    del none.messages_list[:]
    two.messages_list.append(two.messages_list[0])
    trees.message_object_trees.append(ObjectTree(object_id="c" * 64))
    for each in (none, two, trees):
        assert "not one message at a time" in why_refused(each.SerializeToString(), NOW)


def deep(levels):
    """Bytes of an announcement whose tree of objects has so many levels."""
    tree = b""
    for _ in range(levels):
        tree = b"\x12" + varint(len(tree)) + tree
    return b"\x1a" + varint(len(tree)) + tree


def varint(number):
    pieces = b""
    while number > 127:
        pieces, number = pieces + bytes([number & 127 | 128]), number >> 7
    return pieces + bytes([number])


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x7f", deep(10_000)])
def test_what_is_no_announcement(body):
    assert why_refused(body, NOW) == "not an announcement of a message"
