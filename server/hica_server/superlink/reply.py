"""What a reply says, read from the objects of its upload."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import cast

from flwr.app import Array, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from hica.wire.packing import unpack
from hica_server.superlink.upload import UnusableReplyError, Upload, check_size


def fetch_reply(upload: Upload, pull: Callable[[str], bytes | None]) -> list[RecordDict | Error]:
    """What a reply says, or why it is of no use, as a list of one; empty while it is on its way.

    From a list it can be taken without being held here. `pull` gives the content of an object; see
    `Upload.contents`.
    """
    try:
        contents = upload.contents(pull)
        return [_read(contents, upload)] if contents else []
    except UnusableReplyError as unusable:
        return [unusable.error]


def _read(contents: dict[str, bytes], upload: Upload) -> RecordDict | Error:
    """Make a message of the objects, and give its content."""
    try:
        uses = _uses(contents)
        check_size(_inflated_size(contents), upload.most_bytes)
        message = cast(
            Message, inflate_object_from_contents(upload.root, contents, objects=_Objects(uses))
        )
        return message.error if message.has_error() else unpack(message.content)
    except UnusableReplyError:
        raise
    except Exception as error:  # whatever Flower stumbles over in bytes of a site's making
        raise UnusableReplyError(f"the answer cannot be read: {type(error).__name__}") from None


class _Objects(dict[str, InflatableObject]):
    """Flower's store of what it has made of a reply's objects.

    It would hold every piece of every array until the message is whole, which is the update a
    second time. What only one other object is made of is not looked up again, and not kept.
    """

    def __init__(self, uses: Mapping[str, int]) -> None:
        super().__init__()
        self._uses = uses

    def __setitem__(self, object_id: str, made: InflatableObject) -> None:
        if self._uses.get(object_id, 0) > 1:
            super().__setitem__(object_id, made)


def _uses(contents: dict[str, bytes]) -> Counter[str]:
    return Counter(
        child
        for content in contents.values()
        for child in get_object_head_values_from_object_content(content)[1]
    )


def _inflated_size(contents: dict[str, bytes]) -> int:
    """Bytes of all arrays once they are made; one may name the same piece a million times."""
    size = 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == Array.__qualname__:
            pieces = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            size += sum(len(contents[children[piece]]) for piece in pieces)
    return size
