"""Two delays of 40 ms taken out of every exchange of short messages.

Nagle's algorithm holds back a short packet until the one before it is acknowledged, and the other
side waits 40 ms with that. A DICOM message is several short packets: a search takes 90 ms, and 5
without. Ours are sent at once, and what comes is acknowledged at once.
"""

import socket

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event


def hurry(association: Association) -> None:
    """Let short messages of an association not wait for one another."""
    _set(association, socket.TCP_NODELAY)
    _acknowledge_now(association)
    association.bind(evt.EVT_DATA_SENT, _again)
    association.bind(evt.EVT_DATA_RECV, _again)


def _again(event: Event) -> None:
    _acknowledge_now(event.assoc)  # Linux forgets it after a while


def _acknowledge_now(association: Association) -> None:
    if hasattr(socket, "TCP_QUICKACK"):
        _set(association, socket.TCP_QUICKACK)


def _set(association: Association, option: int) -> None:
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, option, 1)
