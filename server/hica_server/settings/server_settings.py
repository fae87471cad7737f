"""ServerSettings: how a coordinator's machine is set up.

`server.toml` holds what concerns this machine only. It is no part of the study: no site sees it
and it changes no hash.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from hica.study import Section, read_toml, validated
from hica_server.settings.folder import Folder

HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
SMALLEST_REQUEST_LIMIT = 8 * 2**20
"""Flower cuts arrays into pieces of 5 MiB: below this, updates could not be sent."""


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f'{text!r} is no IP address; give one of this machine, or "0.0.0.0" for all of them'
        ) from None
    return text


def _host(text: str) -> str:
    try:
        return _address(text)
    except ValueError:
        if len(text) > 253 or not all(map(HOST_LABEL.fullmatch, text.split("."))):
            raise ValueError(
                f"{text!r} is neither a DNS name nor an IP address; give what sites are to connect "
                'to, without https:// and port, for example "hica.example.org"'
            ) from None
        return text


Port = Annotated[int, Field(ge=1, le=65535)]


class ServerSection(Section):
    """`[server]`: where sites find the coordinator."""

    name: Annotated[str, AfterValidator(_host)] = "localhost"
    """Public DNS name or IP address: goes into the certificate and the start kits."""
    port: Port = 8443
    """The only port open to the outside."""
    listen: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    """Address of this machine the port is opened on."""


class DataSection(Section):
    """`[data]`: weights and corpus of the study, relative to `server.toml`."""

    folder: Path = Path("data")
    """Below it lie the files that the study names."""
    hubs: bool = False
    """Whether weights that the study pins may be fetched from a hub where they are not there."""


class PortsSection(Section):
    """`[ports]`: ports on loopback that somebody else than HiCA looks at."""

    metrics: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Prometheus metrics; 0: off."""
    health: Annotated[int, Field(ge=0, le=65535)] = 0
    """gRPC health service of the SuperLink; 0: off."""


class LimitsSection(Section):
    """`[limits]`: what the public port lets through."""

    request_bytes: Annotated[int, Field(ge=SMALLEST_REQUEST_LIMIT)] = 64 * 2**20
    """Largest body of one HTTP request."""
    unasked_bytes: Annotated[int, Field(ge=SMALLEST_REQUEST_LIMIT)] = 2**30
    """What a site may send in a study beyond the answers that it was asked for."""
    address_connections: Annotated[int, Field(ge=4)] = 100
    """Connections at a time from one address: that of a hospital may stand for several sites."""


class ServerSettings(Section):
    """The whole of `server.toml`, paths made absolute."""

    server: ServerSection = ServerSection()
    data: DataSection = DataSection()
    ports: PortsSection = PortsSection()
    limits: LimitsSection = LimitsSection()

    @property
    def public_address(self) -> str:
        """`host:port` as a site writes it; IPv6 addresses in brackets."""
        host = f"[{self.server.name}]" if ":" in self.server.name else self.server.name
        return f"{host}:{self.server.port}"


def load_settings(root: Path) -> ServerSettings:
    """Read and check `server.toml` of a coordinator's folder; without one, all is default.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    path = Folder(root).settings
    settings = validated(ServerSettings, read_toml(path) if path.exists() else {}, str(path))
    folder = root.resolve() / settings.data.folder
    data = settings.data.model_copy(update={"folder": folder})
    return settings.model_copy(update={"data": data})
