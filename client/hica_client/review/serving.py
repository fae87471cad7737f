"""Serving: the page on loopback, until Ctrl-C or until nobody has looked at it for a while."""

import asyncio
import socket
import time
from collections.abc import Callable

import uvicorn

from hica.errors import ConfigurationError
from hica_client.review.access import Access
from hica_client.review.desk import Desk
from hica_client.review.page import make_page

LOOK_SECONDS = 1.0
"""Between two looks at the clock."""


class Idle:
    """Whether nobody has asked for anything for `seconds`, by a clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._last = clock()

    def touch(self) -> None:
        """Somebody has asked for something."""
        self._last = self._clock()

    @property
    def is_over(self) -> bool:
        """Whether it is long enough."""
        return self._clock() - self._last >= self.seconds


def open_port(port: int) -> socket.socket:
    """A port of loopback; 0: any that is free.

    Raises:
        ConfigurationError: Another program has it.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigurationError(
            f"--port {port}: cannot be opened ({error.strerror}); leave the option out, and one "
            "that is free is taken"
        ) from None


def serve(desk: Desk, port: socket.socket, idle: Idle, opened: Callable[[Access], None]) -> None:
    """Serve the page; returns when it was idle. `opened` is told the address to print.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    access = Access(port.getsockname()[1])
    config = uvicorn.Config(
        make_page(desk, access, idle.touch),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    opened(access)
    asyncio.run(_until_idle(uvicorn.Server(config), port, idle))


async def _until_idle(server: uvicorn.Server, port: socket.socket, idle: Idle) -> None:
    async def watch() -> None:
        while not idle.is_over:
            await asyncio.sleep(LOOK_SECONDS)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve([port])
    finally:
        watching.cancel()
