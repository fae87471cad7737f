"""The side that studies are sent to: one interface, two AE titles, and only what was asked for."""

import ssl
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self, cast

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from hica.errors import ConfigurationError, StorageError
from hica.printable import plain
from hica_client.pacs.address import Own
from hica_client.pacs.delays import hurry
from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.store import Store
from hica_client.site import PacsSection

SUCCESS, NOT_AUTHORISED, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0x0124, 0xA700, 0xC000


class Expected:
    """Which instances may come now, and what became of those that came; for several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._study = ""
        self._wanted: Mapping[str, str] = {}
        self.kept: set[str] = set()
        """Came, and are in the store."""
        self.lost: dict[str, LostInstanceError] = {}
        """Came, but not whole, or another."""
        self.oversized = False
        """Whether a connection was cut because an instance grew too large."""
        self.stopped: StorageError | None = None
        """Why nothing more can be kept."""
        self.unasked = 0
        """Instances that nobody asked for; they were refused."""

    def expect(self, study: str, wanted: Mapping[str, str]) -> None:
        """From now on take these instances of a study, and no others."""
        with self._lock:
            self._study, self._wanted = study, wanted
            self.kept, self.lost, self.oversized = set(), {}, False

    def receive(self, event: Event) -> int:
        """Take the instance of a C-STORE request; returns the status of the answer."""
        sop = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        part = event.dataset_path
        with self._lock:
            study, awaited = self._study, sop in self._wanted
        try:
            if not awaited:
                self.unasked += 1
                return NOT_AUTHORISED
            if sop not in self.kept:
                self._store.keep(part, sop, study)
                self.kept.add(sop)
        except LostInstanceError as error:
            self.lost[sop] = error
            return CANNOT_UNDERSTAND
        except StorageError as error:
            self.stopped = error
            return OUT_OF_RESOURCES
        finally:
            part.unlink(missing_ok=True)
        return SUCCESS


def receiver(expected: Expected, most: int) -> list[EventHandlerType]:
    """Handlers of an association on which instances come: none may be larger than `most` bytes."""
    sizes: weakref.WeakKeyDictionary[Association, int] = weakref.WeakKeyDictionary()

    def count(event: Event) -> None:
        sizes[event.assoc] = sizes.get(event.assoc, 0) + len(event.data)
        if sizes[event.assoc] > most + most // 64 + (1 << 20):  # what PDUs add around it
            expected.oversized = True
            event.assoc.abort()
            event.assoc.dimse.msg_queue.put((None, None))  # who waits for an answer stops waiting

    def begin_anew(event: Event) -> None:
        sizes[event.assoc] = 0

    return [
        (evt.EVT_C_STORE, expected.receive),
        (evt.EVT_DATA_RECV, count),
        (evt.EVT_DIMSE_RECV, begin_anew),
    ]


@contextmanager
def streamed_to_disk() -> Iterator[None]:
    """Let pynetdicom write what comes into a file instead of holding it in memory."""
    before = _config.STORE_RECV_CHUNKED_DATASET
    _config.STORE_RECV_CHUNKED_DATASET = True
    try:
        yield
    finally:
        _config.STORE_RECV_CHUNKED_DATASET = before


ALL_KINDS = [
    build_context(str(known.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    for known in AllStoragePresentationContexts
]


class Listener:
    """A storage SCP as a context: it listens inside, and nowhere else than it was told to."""

    def __init__(
        self,
        own: Own,
        senders: list[str],
        expected: Expected,
        settings: PacsSection,
        context: ssl.SSLContext | None,
    ) -> None:
        """`senders` are the AE titles that may send."""
        self._own = own
        self._context = context
        self._handlers = [
            *receiver(expected, settings.max_instance_bytes),
            (evt.EVT_CONN_OPEN, self._count),
            (evt.EVT_REQUESTED, self._look),
        ]
        self._senders = senders
        self._node = AE(own.title)
        self._node.require_called_aet = True
        self._node.require_calling_aet = senders
        self._node.acse_timeout = settings.timeout
        self._node.dimse_timeout = self._node.network_timeout = settings.patience
        self._node.supported_contexts = ALL_KINDS
        self.connections = 0
        """How many have come in."""
        self.strangers: set[str] = set()
        """Pairs of AE titles, as words, that were turned away."""

    def __enter__(self) -> Self:
        where = (self._own.host, self._own.port or 0)
        try:
            server = self._node.start_server(
                where, block=False, ssl_context=self._context, evt_handlers=self._handlers
            )
        except OSError as error:
            raise ConfigurationError(
                f"--as: cannot listen at {where[0]}:{where[1]}: {error.strerror}; name an address "
                "of this machine and a free port above 1023, the one that the PACS sends to"
            ) from None
        self._server = cast(ThreadedAssociationServer, server)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._node.shutdown()

    def offer(self, classes: Collection[str]) -> None:
        """Take instances of these SOP classes from now on; of all, where the PACS told none.

        pynetdicom copies the list for every connection, which takes it 0.1 s with all of them.
        """
        known = [
            build_context(each, ALL_TRANSFER_SYNTAXES) for each in sorted(set(classes)) if each
        ]
        self._server.contexts = ALL_KINDS if "" in classes else known

    def _count(self, event: Event) -> None:
        self.connections += 1
        hurry(event.assoc)

    def _look(self, event: Event) -> None:
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        called, calling = request.called_ae_title.strip(), request.calling_ae_title.strip()
        if called != self._own.title:
            self.strangers.add(f"it sends to the AE title {plain(called)!r}")
        elif calling not in self._senders:
            self.strangers.add(f"it sends as the AE title {plain(calling)!r}")
