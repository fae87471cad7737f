import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body

from hica_server.superlink.upload import MOST_BEYOND

from .fake_link import Upload, answer, reply, to


def forged(kind, body):
    """A class whose objects pass for Flower's `kind`, whatever is in them."""

    class Forged(kind):
        def deflate(self):
            return add_header_to_object_body(body, self)

    Forged.__qualname__ = kind.__qualname__
    return Forged


def with_record(record):
    return answer(1, RecordDict({"message": record}))


def unlike_its_tree():
    upload = answer(1, RecordDict({"message": ConfigRecord({"header": ""})}))
    upload.tree.children[0].ClearField("children")
    return upload


def endless():
    """A hundred bytes named so often that they are more than can be taken."""
    body = {"dtype": "uint8", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 10**6}
    arrays = ArrayRecord()
    arrays["a"] = forged(Array, json.dumps(body).encode())(np.zeros(100, np.uint8))
    return with_record(arrays)


@pytest.mark.parametrize(
    ("upload", "why"),
    [
        (
            lambda: with_record(forged(ConfigRecord, b"\xff")({"a": 1})),
            "cannot be read: DecodeError",
        ),
        (
            lambda: with_record(forged(ArrayRecord, b"[" * 10**5)({"a": Array(np.zeros(1))})),
            "cannot be read: RecursionError",
        ),
        (lambda: Upload(reply(1), ConfigRecord({"a": 1})), "cannot be read: AttributeError"),
        (unlike_its_tree, "cannot be read: KeyError"),
        (endless, f"has more than {MOST_BEYOND} bytes"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_of_its_site_alone(grid_of, upload, why):
    bad = upload()
    grid, link = grid_of([bad, answer(2)])
    got = {it.metadata.src_node_id: it for it in grid.send_and_receive([to(1), to(2)])}
    assert got[1].error == Error(0, f"the answer {why}")
    assert got[2].has_content()
    assert bad.root in link.confirmed
