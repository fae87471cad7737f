"""The link to the coordinator: what the SuperNode prints about it, in words that say what to do.

The SuperNode has no other way to tell. What was last known lies in `node.json`, for `status` and
for the next start, which may have to sign off a node that was killed.
"""

import json
import logging
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from hica.errors import StorageError
from hica.storage import write_atomically

logger = logging.getLogger("hica.client")

NODE = re.compile(r"SuperNode ID: (\d+)")
REQUEST = re.compile(r"Receiving: (\S+) message")
ANSWER = re.compile(r"Sending: (\S+) message")
SENT = "Sent successfully"
"""What the SuperNode says before an answer goes out, and once the coordinator has it."""

ACTIVATION_FAILED = 2004
"""Flower's code of the error with which an unknown key is refused."""
GRACEFUL = "SuperNode terminated gracefully."
"""What the SuperNode says as it ends on an HTTP 401, as after a SIGTERM."""

UNKNOWN_KEY = (
    "the coordinator does not know this site's key: send them the file ending in .pub to be "
    "enrolled, or ask whether it was revoked. After a crash of this machine it may take a minute "
    "until the site is let in again"
)
REVOKED = (
    "the coordinator does not accept this site's key: send them the file ending in .pub to be "
    "enrolled, or ask whether it was revoked"
)
ENDED = "the SuperNode ended; its log says why"
SILENT = (
    "does not answer; trying on. What `hica-client check` says may help. If this goes on, ask the "
    "coordinator whether the study is over"
)
UNSEEN = "answers this machine, but not the SuperNode yet"


@dataclass(frozen=True)
class LinkState:
    """What is known of the link."""

    node: int | None = None
    """The number under which the coordinator knows this site's key."""
    connected: bool = False
    """Whether the SuperNode was connected when this was written."""
    since: str = ""
    """When that came to be, UTC."""
    trouble: str = ""
    """Why it is not connected, and what helps."""


class Link:
    """Follows the SuperNode's lines and keeps the state of the link in `node.json`.

    `address` is the coordinator's host:port, for messages. `answered` is the kind of the last
    answer that the coordinator has, empty before the first.
    """

    def __init__(self, path: Path, address: str) -> None:
        self._path = path
        self._address = address
        self._reason = ""
        self._leaving = ""
        self.answered = ""
        self._silent = False
        self.state = read_link(path)
        self.closed()  # whatever a killed client has left there

    def heard(self, line: str) -> None:
        """Take note of a line of the SuperNode."""
        if node := NODE.search(line):
            self._connected(int(node[1]))
        elif "Connection successful" in line and self.state.node is not None:
            self._connected(self.state.node)
        elif "Connection attempt failed" in line and not self._silent:
            self._silent = True
            logger.warning("%s: %s", self._address, SILENT)
            self._now(connected=False, trouble=SILENT)
        elif request := REQUEST.search(line):
            logger.info("%s: asks for %s", self._address, request[1])
        elif answer := ANSWER.search(line):
            self._leaving = answer[1]
        elif SENT in line:
            self.answered = self._leaving
        elif f"code: {ACTIVATION_FAILED}" in line:
            self._reason = UNKNOWN_KEY
        elif GRACEFUL in line:
            self._reason = REVOKED

    def explained(self, network: str) -> None:
        """Say of a coordinator that is silent what is wrong on the way to it.

        `network` is that; empty where nothing can be found.
        """
        found = network.removeprefix(f"{self._address}: ") or UNSEEN
        logger.warning("%s: %s", self._address, found)
        self._now(connected=False, trouble=f"{found}; trying on")

    def ended(self, network: str) -> None:
        """Take note that the SuperNode has ended by itself, and say why.

        `network` is what is wrong with the way to the coordinator; empty where all is well.
        """
        trouble = network or self._reason or ENDED
        logger.warning("%s: %s", self._address, trouble.removeprefix(f"{self._address}: "))
        self._reason = ""
        self._now(connected=False, trouble=trouble)

    def closed(self) -> None:
        """Take note that the SuperNode was ended from here."""
        self._reason = ""
        self._now(connected=False, trouble="")

    def _connected(self, node: int) -> None:
        if not self.state.connected or self.state.node != node:
            logger.info("%s: connected as node %d", self._address, node)
            self._now(node=node, connected=True, trouble="")

    def _now(self, *, connected: bool, trouble: str, node: int | None = None) -> None:
        self._silent = self._silent and not connected
        since = datetime.now(UTC).isoformat(timespec="seconds")
        node = self.state.node if node is None else node
        self.state = LinkState(node, connected, since, trouble)
        try:
            write_atomically(self._path, json.dumps(asdict(self.state)).encode())
        except StorageError as error:  # `status` tells less; the connection goes on
            logger.warning("%s", error)


def read_link(path: Path) -> LinkState:
    """The last known state; an empty one where there is none or it cannot be read."""
    try:
        return LinkState(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return LinkState()
