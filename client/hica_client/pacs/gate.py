"""A pause for pynetdicom's reactor that it cannot slip through.

While this side waits for answers, the association's own thread (its reactor) must not take any:
pynetdicom 3.0 closes an event for that and looks at a flag that says "paused". Where one request
follows another at once, the flag is still that of the request before, the thread wakes up, takes an
answer meant for us, and it is lost without a word: about one search in 300 came back empty
(pynetdicom #875). Here the event is closed only once the thread stands still at it.
"""

import threading

from pynetdicom.association import Association

_LOOK_SECONDS = 0.05
"""How often a gate that closes looks whether the thread has ended meanwhile."""


class Gate:
    """Takes the place of the `threading.Event` that an association's reactor waits at."""

    def __init__(self, reactor: threading.Thread) -> None:
        self._reactor = reactor
        self._change = threading.Condition()
        self._open = True
        self._standing = False

    def is_set(self) -> bool:
        """Whether the reactor may run."""
        return self._open

    def set(self) -> None:
        """Let the reactor run."""
        with self._change:
            self._open = True
            self._change.notify_all()

    def clear(self) -> None:
        """Stop the reactor; returns when it stands, or has ended."""
        with self._change:
            self._open = False
            while not self._standing and not self._open and self._reactor.is_alive():
                self._change.wait(_LOOK_SECONDS)

    def wait(self, timeout: float | None = None) -> bool:
        """The reactor's own call: stand here while the gate is closed."""
        with self._change:
            while not self._open:
                self._standing = True
                self._change.notify_all()
                if not self._change.wait(timeout) and timeout is not None:
                    break
            self._standing = False
            return self._open


def put_gate(association: Association) -> None:
    """Give an association a gate in place of its event."""
    association._reactor_checkpoint = Gate(association)  # type: ignore[assignment]
