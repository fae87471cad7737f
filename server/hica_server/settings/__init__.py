"""How a coordinator's machine is set up, and where its files lie."""

from hica_server.settings.folder import Folder
from hica_server.settings.server_settings import (
    LimitsSection,
    ServerSection,
    ServerSettings,
    load_settings,
)

__all__ = ["Folder", "LimitsSection", "ServerSection", "ServerSettings", "load_settings"]
