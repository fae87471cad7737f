"""The server on a real port: it opens by the printed address, and ends by itself."""

import threading

import httpx
import pytest

from hica.errors import ConfigurationError
from hica_client.review.serving import Idle, open_port, serve


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_idle_is_so_long_after_the_last_request():
    clock = Clock()
    idle = Idle(60, clock)
    clock.now = 59
    assert not idle.is_over
    idle.touch()
    clock.now = 118
    assert not idle.is_over
    clock.now = 119
    assert idle.is_over


def test_the_page_ends_once_nobody_has_asked_for_a_while(desk):
    clock, found = Clock(), []

    def opened(access):
        def look():
            found.append(httpx.get(access.address, trust_env=False).status_code)
            clock.now = 61

        threading.Thread(target=look).start()

    serve(desk, open_port(0), Idle(60, clock), opened)
    assert found == [303]


def test_the_port_is_of_loopback_and_one_that_is_taken_is_said():
    with open_port(0) as port:
        address, number = port.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(ConfigurationError, match=rf"--port {number}: cannot be opened \(.+\)"):
            open_port(number)
