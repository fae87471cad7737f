"""The gateway: the one port of a coordinator that is open to the outside.

    python -m hica_server.gateway FOLDER PORT-OF-SUPERLINK

The SuperLink answers whoever reaches its port, not only SuperNodes: control, which knows no users,
runtime and documentation are there, too. So it listens on loopback, and before it stands this
process, whose `Proxy` passes on what SuperNodes ask.
"""

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import httpx
import typer
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hica.deployment.command_line import run_app
from hica.errors import ConfigurationError
from hica.storage import keep_private
from hica_server.admission import Admission
from hica_server.provision import require_provisioned
from hica_server.proxy import Proxy
from hica_server.settings import Folder, LimitsSection, ServerSettings, load_settings
from hica_server.traffic import Traffic

logger = logging.getLogger("hica.gateway")

PATIENCE = 20.0
"""Seconds for which a new connection may ask nothing; between requests, up to twice that."""
CONNECTIONS = 1000
"""From outside, at a time."""
FLEET_CONNECTIONS = 200
HEALTH_CONNECTIONS = 4
"""To the SuperLink, at a time."""
UPSTREAM_TIMEOUT = httpx.Timeout(30.0, connect=15.0, pool=15.0)
"""Seconds the SuperLink has for an answer: as many as a SuperNode waits for it."""
LONGEST_HEAD = 16 * 2**10
"""Bytes of a request's head; a SuperNode's has fewer than 2000."""
OPEN_FILES = 16384

app = typer.Typer(add_completion=False)


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections in excess, and those on which nothing is asked.

    uvicorn's own waits without end for the head of a request, and for the rest of a body that is
    refused already.
    """

    most_of_one: int
    """Connections at a time from one address, so that nobody takes them all."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called after the TLS handshake."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            logger.warning("more than %d connections: one is closed", CONNECTIONS)
            transport.abort()
            return
        place = _place(self.client)
        same = sum(_place(other.client) == place for other in self.connections)
        if same > self.most_of_one:
            logger.warning(
                "%s: more than %d connections (limits.address_connections of server.toml): "
                "one is closed",
                place,
                self.most_of_one,
            )
            transport.abort()
            return
        self.loop.call_later(PATIENCE, self._look, None)

    def shutdown(self) -> None:
        """Called when the server is to end; a request under way is still answered."""
        super().shutdown()
        if self.transport.is_closing():
            self.transport.abort()  # or TLS would wait half a minute for a site's farewell

    def _look(self, previous: object) -> None:
        """Close the connection unless a request is under way, or one came since `previous`."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is previous:
            self.transport.abort()
            return
        self.loop.call_later(PATIENCE, self._look, self.cycle)


def _place(client: tuple[str, int] | None) -> str:
    """Where a connection is from: an IPv4 address, or the half of an IPv6 one that a house has."""
    address = ipaddress.ip_address(client[0].partition("%")[0]) if client else None
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class GatewayServer(uvicorn.Server):
    """A server that lets go of the questions its proxy holds before it waits for their ends."""

    def __init__(self, config: uvicorn.Config, proxy: Proxy) -> None:
        super().__init__(config)
        self._proxy = proxy

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once the server has been told to end."""
        self._proxy.end()
        await super().shutdown(sockets)


def make_proxy(folder: Folder, settings: ServerSettings, superlink: int) -> Proxy:
    """The app before a SuperLink on port `superlink` of loopback.

    Raises:
        ConfigurationError: The folder has no certificates.
    """
    require_provisioned(folder)
    trust = ssl.create_default_context(cafile=folder.ca_certificate)

    def client(connections: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{superlink}",
            verify=trust,
            trust_env=False,  # a proxy of the environment has no place within a machine
            timeout=UPSTREAM_TIMEOUT,
            # the SuperLink closes connections that were idle for 5 s
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=3.0),
            headers={"accept-encoding": "identity", "user-agent": "hica-gateway"},
        )

    return Proxy(
        Admission(folder, ready=folder.connected.exists),
        client(FLEET_CONNECTIONS),
        client(HEALTH_CONNECTIONS),
        settings.limits.request_bytes,
        Traffic(folder.asked, settings.limits.unasked_bytes),
    )


def make_server(proxy: Proxy, folder: Folder, limits: LimitsSection) -> GatewayServer:
    """A TLS server of the app, to be run on a socket of the caller's."""

    class Protocol(ImpatientProtocol):
        most_of_one = limits.address_connections

    config = uvicorn.Config(
        proxy,
        interface="asgi3",
        http=Protocol,
        ws="none",
        lifespan="off",
        ssl_certfile=folder.certificate,
        ssl_keyfile=folder.key,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    config.load()
    assert config.ssl is not None  # it was just given a certificate
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return GatewayServer(config, proxy)


def open_port(settings: ServerSettings) -> socket.socket:
    """The public port.

    Raises:
        ConfigurationError: Another program has it, or the address is not of this machine.
    """
    address, port = settings.server.listen, settings.server.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        opened = socket.create_server((address, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigurationError(
            f"server.toml: server.listen, server.port: {address} port {port} cannot be opened: "
            f"{os.strerror(error.errno or 0)}; end the program that has it (`ss -ltnp`), or choose "
            "others"
        ) from None
    # Connections inherit it. asyncio sets it only on sockets that it has opened itself, and
    # without it head and body of every answer would lie 40 ms apart.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def allow_many_files() -> None:
    """Every connection is an open file, of which people get 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def collect_often() -> None:
    """Leave what was imported out of garbage collection.

    Python looks through all objects once new ones are a quarter of them; of a process this large
    that takes minutes, and what broken connections leave behind grows to a fifth of its memory.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # counts anew what a quarter is taken of


async def serve(proxy: Proxy, server: uvicorn.Server, port: socket.socket) -> None:
    """Serve until the server is told to end."""
    try:
        await server.serve([port])
    finally:
        await proxy.aclose()


@app.command()
def run(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")],
    superlink: Annotated[int, typer.Argument(metavar="PORT", help="The SuperLink's, on loopback.")],
) -> None:
    """Serve until a signal comes."""
    folder, settings = Folder(root), load_settings(root)
    proxy = make_proxy(folder, settings, superlink)
    allow_many_files()
    collect_often()
    server = make_server(proxy, folder, settings.limits)
    asyncio.run(serve(proxy, server, open_port(settings)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    keep_private()
    run_app(app, "hica_server.gateway", arguments, supervised=True)


if __name__ == "__main__":
    main()
