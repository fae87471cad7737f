"""Associations with a DICOM node: made, made again where that may help, and why there is none."""

from collections.abc import Callable

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import build_context, build_role

from hica_client.pacs import dimse_words as words
from hica_client.pacs.address import Node, Own
from hica_client.pacs.connection import probe, tls_context
from hica_client.pacs.delays import hurry
from hica_client.pacs.errors import PacsError
from hica_client.pacs.gate import put_gate
from hica_client.site import PacsSection

TRIES = 3
"""Of an association or a search that breaks off."""


class BrokenOffError(PacsError):
    """The PACS does not answer, or not to the end; it may be restarting."""


class Associations:
    """Makes them, all with the same node and under the same title."""

    def __init__(
        self, node: Node, own: Own, settings: PacsSection, pause: Callable[[float], object]
    ) -> None:
        self._node, self._own, self._pause = node, own, pause
        self._timeout = settings.timeout
        self._tls = tls_context(settings) if node.encrypted else None
        self._ae = AE(own.title)
        self._ae.acse_timeout = self._ae.connection_timeout = settings.timeout
        self._ae.network_timeout = settings.patience

    def make(
        self, contexts: list[tuple[str, str | None]], handlers: list[EventHandlerType]
    ) -> Association:
        """An association for contexts, each a kind and its one encoding, or None for any.

        With an encoding it is a kind of objects that come to this side. It is established, or holds
        which contexts the node rejected.

        Raises:
            PacsError: There is none, and why.
        """
        for attempt in range(1, TRIES):
            try:
                return self._make_once(contexts, handlers)
            except BrokenOffError:
                self._pause(2.0**attempt)
        return self._make_once(contexts, handlers)

    def _make_once(
        self, contexts: list[tuple[str, str | None]], handlers: list[EventHandlerType]
    ) -> Association:
        kinds = dict.fromkeys(kind for kind, syntax in contexts if syntax)
        association = self._ae.associate(
            self._node.host,
            self._node.port,
            contexts=[build_context(kind, syntax) for kind, syntax in contexts],
            ae_title=self._node.title,
            ext_neg=[build_role(kind, scp_role=True) for kind in kinds],
            evt_handlers=handlers,
            tls_args=(self._tls, self._node.host) if self._tls is not None else None,
        )
        if association.is_established:
            put_gate(association)
            hurry(association)
            return association
        if association.rejected_contexts:  # it is there, and offers none of this
            return association
        if association.is_rejected:
            why = words.rejection(association, self._node, self._own)
            raise PacsError(f"{self._node}: {why}")
        try:
            probe(self._node.host, self._node.port, self._tls, self._timeout)
        except PacsError as error:
            raise BrokenOffError(f"{self._node}: {error}") from None
        raise BrokenOffError(f"{self._node}: {words.NO_ASSOCIATION}")
