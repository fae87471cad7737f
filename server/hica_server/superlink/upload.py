"""The upload of one reply: its objects reach the SuperLink one after the other.

A site may send what it likes. Flower's own grid waits for hours for a reply that is announced and
never uploaded; here a reply is fetched by itself, within limits.
"""

from collections.abc import Callable, Iterable

from flwr.app import Error
from flwr.common.constant import ErrorCode

MOST_OBJECTS = 2048
"""Of a reply: each is a request of its own. A tower of a thousand layers takes no more."""
MOST_SHARE, MOST_BEYOND = 1.5, 16 * 2**20
"""Bytes of a reply, as a share of those of the message, and beside it: header and parcel."""


class UnusableReplyError(Exception):
    """A reply that is not fetched to its end; `code` says what kind of error it becomes."""

    def __init__(self, reason: str, code: int = ErrorCode.UNKNOWN) -> None:
        super().__init__(reason)
        self.error = Error(code, reason)


class Upload:
    """An announced reply, whose objects are fetched as they come.

    The object that holds all others is pushed last, and is asked for first: a look at an upload
    that is stuck costs one small request. What has been seen is pulled again only when all objects
    have been: in whatever order a site holds them back, none is pulled more than twice.

    `objects` are ids in the order in which they are pushed; all together have `most_bytes` at most.
    """

    def __init__(self, objects: Iterable[str], most_bytes: int) -> None:
        self._objects = list(dict.fromkeys(objects))
        self._unseen = list(self._objects)
        self._seen_bytes = 0
        self.root = self._objects[-1]
        self.most_bytes = most_bytes

    def contents(self, pull: Callable[[str], bytes | None]) -> dict[str, bytes]:
        """Contents of all objects, by id; empty while one is on its way.

        `pull` gives the content of one: empty while it is on its way, None where it cannot come.

        Raises:
            UnusableReplyError: They are too many or too large, or one cannot come.
        """
        if len(self._objects) > MOST_OBJECTS:
            raise UnusableReplyError(f"the answer has more than {MOST_OBJECTS} objects")
        contents = {}
        while self._unseen:
            content = _found(pull(self._unseen[-1]))
            if not content:
                return {}
            self._seen_bytes += len(content)
            check_size(self._seen_bytes, self.most_bytes)
            contents[self._unseen.pop()] = content
        seen_before = [each for each in self._objects if each not in contents]
        return contents | {each: _found(pull(each)) for each in seen_before}


def most_reply_bytes(message_bytes: int) -> int:
    """Bytes that the reply to a message of `message_bytes` may have."""
    return int(MOST_SHARE * message_bytes) + MOST_BEYOND


def check_size(size: int, most: int) -> None:
    """Raise UnusableReplyError where a reply has more than `most` bytes."""
    if size > most:
        raise UnusableReplyError(f"the answer has more than {most} bytes")


def _found(content: bytes | None) -> bytes:
    """The content of an object that the SuperLink knows."""
    if content is None:  # it drops what a site has not uploaded for three minutes
        code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
        raise UnusableReplyError("the answer was never uploaded to its end", code)
    return content
