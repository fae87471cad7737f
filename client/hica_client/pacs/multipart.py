"""The one file in a WADO-RS answer (`multipart/related`, RFC 2387), written while it comes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.whole import CUT_SHORT, NOT_DICOM, TOO_LARGE

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


_FRAME = 1 << 16
"""Bytes of a multipart answer around its one part, at most."""


def receive(response: httpx.Response, write: Callable[[bytes], object], max_bytes: int) -> None:
    """Write the one instance in an answer.

    Raises:
        LostInstanceError: It is too large, cut short, or none.
    """
    body = OnePart(response.headers.get("content-type", ""), write)
    size = 0
    try:
        for piece in response.iter_bytes():
            size += len(piece)
            if size > max_bytes + _FRAME:
                raise LostInstanceError(TOO_LARGE, again=False)
            body.feed(piece)
    except (httpx.NetworkError, httpx.ProtocolError, httpx.DecodingError):
        raise LostInstanceError(CUT_SHORT) from None
    body.finish()


class OnePart:
    """Takes the body of an answer in pieces and passes on the bytes of its only part."""

    def __init__(self, content_type: str, write: Callable[[bytes], object]) -> None:
        """`content_type` is the answer's header; `write` gets the file, piece by piece.

        Raises:
            LostInstanceError: The answer is neither a DICOM file nor one in a multipart message.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        self._parts = 0
        self._ended = kind == b"application/dicom"  # some archives send the file as it is
        self._write = write
        self._parser = None
        if kind == b"multipart/related" and boundary:
            callbacks: MultipartCallbacks = {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_end": self._end,
            }
            self._parser = MultipartParser(boundary, callbacks)
        elif not self._ended:
            raise LostInstanceError(NOT_DICOM)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            LostInstanceError: They are no multipart message, or hold a second file.
        """
        if self._parser is None:
            self._write(piece)
            return
        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise LostInstanceError(NOT_DICOM) from None

    def finish(self) -> None:
        """Say that the body is over.

        Raises:
            LostInstanceError: Its end is missing.
        """
        if not self._ended:
            raise LostInstanceError(CUT_SHORT)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise LostInstanceError(NOT_DICOM)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._write(data[start:end])

    def _end(self) -> None:
        self._ended = True
