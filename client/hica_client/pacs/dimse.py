"""DIMSE through pynetdicom: C-FIND, then C-GET, or C-MOVE to this side's own listener (PS3.4 C)."""

import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from hica.errors import ConfigurationError
from hica_client.pacs import dimse_words as words
from hica_client.pacs.address import Node, Own, is_loopback
from hica_client.pacs.associations import TRIES, Associations, BrokenOffError
from hica_client.pacs.connection import tls_context
from hica_client.pacs.dimse_identifiers import attributes_of, identifier_of
from hica_client.pacs.errors import LostInstanceError, PacsError
from hica_client.pacs.listener import Expected, Listener, receiver, streamed_to_disk
from hica_client.pacs.selection import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Attributes,
    Query,
)
from hica_client.pacs.storage_classes import proposals
from hica_client.pacs.store import Store
from hica_client.pacs.whole import TOO_LARGE
from hica_client.site import PacsSection

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
"""The study root's information models (PS3.4 C.6.2)."""
MOST_CONTEXTS = 127
"""Of an association, beside the one for the request itself (128 in PS3.8 9.3.2)."""
SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)


class Dimse:
    """A DICOM node; as a context, which ends its associations and its listener."""

    def __init__(
        self,
        node: Node,
        own: Own,
        settings: PacsSection,
        *,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """`own` with a port: by C-MOVE to there; else by C-GET. `pause` is for tests.

        Raises:
            ConfigurationError: Certificates cannot be used, or the PACS could not reach `own`.
        """
        if own.port is not None and is_loopback(own.host) and not is_loopback(node.host):
            raise ConfigurationError(
                f"--as: {own.host} is this machine alone, and the PACS cannot send to it; give the "
                f"address that it reaches, as {own.title}@10.0.0.5:{own.port}, or no port, for "
                "C-GET"
            )
        self._node, self._own, self._settings, self._pause = node, own, settings, pause
        self._associations = Associations(node, own, settings, pause)
        self._listener_tls: ssl.SSLContext | None = None
        if node.encrypted and own.port is not None:
            self._listener_tls = tls_context(settings, server=True)
        self._asking: Association | None = None
        self._getting: tuple[frozenset[str], Association] | None = None
        self._expected: Expected | None = None
        self._listener: Listener | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(streamed_to_disk())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for each in (self._asking, self._getting and self._getting[1]):
            if each is not None and each.is_established:
                each.release() if kind is None else each.abort()
        self._open.close()

    @property
    def unasked(self) -> int:
        """See `Archive`."""
        return self._expected.unasked if self._expected is not None else 0

    # --- Searching --------------------------------------------------------------------------------

    def studies(self, query: Query) -> Iterator[Attributes]:
        """See `Archive`."""
        return self._find("STUDY", STUDY_KEYS, query.keys)

    def series(self, study: str) -> Iterator[Attributes]:
        """See `Archive`."""
        return self._listed("SERIES", SERIES_KEYS, {"StudyInstanceUID": study})

    def instances(self, study: str, series: str) -> Iterator[Attributes]:
        """See `Archive`."""
        above = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        return self._listed("IMAGE", INSTANCE_KEYS, above)

    def _listed(
        self, level: str, keywords: tuple[str, ...], match: Mapping[str, str]
    ) -> Iterator[Attributes]:
        """A short list, whole; asked for anew where the PACS breaks off, as when it restarts."""
        for attempt in range(1, TRIES):
            try:
                return iter(list(self._find(level, keywords, match)))
            except BrokenOffError:
                self._pause(2.0**attempt)
        return iter(list(self._find(level, keywords, match)))

    def _find(
        self, level: str, keywords: tuple[str, ...], match: Mapping[str, str]
    ) -> Iterator[Attributes]:
        identifier = identifier_of(level, dict.fromkeys(keywords, "") | dict(match))
        association = self._association()
        association.dimse_timeout = self._settings.timeout
        done = False
        try:
            for status, found in association.send_c_find(identifier, FIND):
                code = status.get("Status")
                if code not in PENDING:
                    done = code is not None
                    if code is None:
                        raise BrokenOffError(f"{self._node}: {words.broken_off(self._own)}")
                    if code != SUCCESS:
                        raise self._problem(words.find_words(code))
                    return
                if found is None:
                    raise self._problem(words.NO_DATA_SET)
                yield attributes_of(found, keywords)
        finally:
            if not done:  # nobody reads on, or the answer broke off
                association.abort()

    # --- Fetching ---------------------------------------------------------------------------------

    def retrieve(
        self, study: str, series: str, wanted: Mapping[str, str], store: Store, *, whole: bool
    ) -> dict[str, LostInstanceError]:
        """See `Archive`."""
        if self._expected is None:
            self._expected = Expected(store)
        expected = self._expected
        expected.expect(study, wanted)
        above = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        identifier = (
            identifier_of("SERIES", above)
            if whole
            else identifier_of("IMAGE", above | {"SOPInstanceUID": "\\".join(wanted)})
        )
        if self._own.port is None:
            code = self._get(identifier, frozenset(wanted.values()), expected)
        else:
            code = self._move(identifier, wanted.values(), expected)
        if expected.stopped is not None:
            raise expected.stopped
        missing = [sop for sop in wanted if sop not in expected.kept]
        if missing:
            store.check_space()  # where it ran out while one came, pynetdicom does not say so
        reason = words.lost_words(code)
        if expected.oversized:
            reason = TOO_LARGE
        elif self._listener is not None and not self._listener.connections:
            reason = words.unreached(self._own)
        again = not (expected.oversized and len(wanted) == 1)
        lost = LostInstanceError(reason, again=again)
        expected.expect("", {})  # whatever comes later was not asked for
        return {sop: expected.lost.get(sop, lost) for sop in missing}

    def _move(
        self, identifier: Dataset, classes: Collection[str], expected: Expected
    ) -> int | None:
        """Have instances sent to the listener; the status that the PACS ends with."""
        if self._listener is None:
            senders = [self._settings.sender or self._node.title]
            self._listener = self._open.enter_context(
                Listener(self._own, senders, expected, self._settings, self._listener_tls)
            )
        self._listener.offer(classes)
        association = self._association()
        association.dimse_timeout = self._settings.patience
        code = None
        for status, _ in association.send_c_move(identifier, self._own.title, MOVE):
            code = status.get("Status")
        if self._listener.strangers:
            raise self._problem(words.turned_away(sorted(self._listener.strangers), self._own))
        if fatal := words.move_words(code, self._own):
            raise self._problem(fatal)
        return code

    def _get(self, identifier: Dataset, classes: frozenset[str], expected: Expected) -> int | None:
        """Have instances sent on the connection that asks; the status that the PACS ends with."""
        association = self._getter(classes, expected)
        code = None
        for status, _ in association.send_c_get(identifier, GET):
            code = status.get("Status")
        if fatal := words.get_words(code):
            raise self._problem(fatal)
        return code

    # --- Associations -----------------------------------------------------------------------------

    def _association(self) -> Association:
        """The one for searches and moves; made anew where the PACS has ended it."""
        if self._asking is None or not self._asking.is_established:
            asked = [FIND] if self._own.port is None else [FIND, MOVE]
            self._asking = self._associations.make([(each, None) for each in asked], [])
            accepted = {str(each.abstract_syntax) for each in self._asking.accepted_contexts}
            if FIND not in accepted:
                raise self._problem(words.NO_FIND)
            if self._own.port is not None and MOVE not in accepted:
                raise self._problem(words.NO_MOVE)
        return self._asking

    def _getter(self, classes: frozenset[str], expected: Expected) -> Association:
        """One on which instances of these kinds can come."""
        if self._getting is not None and self._getting[1].is_established:
            if classes <= self._getting[0]:
                return self._getting[1]
            self._getting[1].release()
        contexts = proposals(classes, MOST_CONTEXTS)
        handlers = receiver(expected, self._settings.max_instance_bytes)
        association = self._associations.make([(GET, None), *contexts], handlers)
        if GET not in {str(each.abstract_syntax) for each in association.accepted_contexts}:
            raise self._problem(words.NO_GET)
        association.dimse_timeout = self._settings.patience
        self._getting = classes, association
        return association

    def _problem(self, what: str) -> PacsError:
        return PacsError(f"{self._node}: {what}")
