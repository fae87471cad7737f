"""The pause of pynetdicom's reactor: it stands still when the gate is closed, at any timing."""

import threading

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from hica_client.pacs.gate import Gate, put_gate


class Reactor(threading.Thread):
    """Runs round and round as pynetdicom's does."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gate = Gate(self)
        self.rounds = 0
        self.over = False

    def run(self):
        while not self.over:
            self.gate.wait()
            self.rounds += 1


def test_a_closed_gate_lets_nothing_through_however_soon_it_is_closed_again():
    reactor = Reactor()
    reactor.start()
    for _ in range(2000):
        reactor.gate.clear()
        rounds = reactor.rounds
        assert reactor.gate._standing
        assert reactor.rounds == rounds
        reactor.gate.set()
    reactor.over = True
    reactor.gate.set()
    reactor.join(10)
    assert not reactor.is_alive()
    reactor.gate.clear()  # of a thread that has ended: not waited for


def test_pynetdicom_waits_at_what_is_replaced():
    association = Association(ApplicationEntity(), "requestor")
    assert isinstance(association._reactor_checkpoint, threading.Event), "has another gate now"
    put_gate(association)
    assert association._reactor_checkpoint.is_set()
    assert "_reactor_checkpoint.wait()" in _source()


def _source():
    import inspect

    return inspect.getsource(Association._run_reactor)
