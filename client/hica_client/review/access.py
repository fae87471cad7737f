"""Access: who may see the page. One browser, by a token that is used up when it is first shown.

The page is on loopback, where other users of the machine, and pages of other sites in the same
browser, can reach it. The token is exchanged for a cookie that no script reads and that is never
sent from another site; the Host header must name this machine, so that a name of the network that
was made to point here opens nothing; what changes something must come from the page itself.
"""

import secrets
from collections.abc import Mapping

COOKIE = "hica_review"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer: nothing from elsewhere, nothing kept on the browser's disk."""
NOT_HERE = "this address is not the one that hica-client has printed; open that one"
USED = (
    "this address was opened before and opens the page once only. If it was not you, somebody else "
    "has it: end the command with Ctrl-C and start it again"
)
NO_COOKIE = "open the address that hica-client has printed, in the same browser"
ELSEWHERE = "this does not come from the page"


class Access:
    """The token, and after its exchange the cookie."""

    def __init__(self, port: int) -> None:
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.token = secrets.token_urlsafe(32)
        self._unused = True
        self._cookie = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """What is opened, once."""
        return f"http://{self.hosts[0]}/enter?token={self.token}"

    def exchange(self, token: str) -> str | None:
        """The cookie for the token, the first time; else None."""
        if not self._unused or not _same(token, self.token):
            return None
        self._unused = False
        return self._cookie

    def refusal(
        self, method: str, path: str, headers: Mapping[str, str], cookie: str
    ) -> str | None:
        """Why a request is not answered; None where it is."""
        if headers.get("host") not in self.hosts:
            return NOT_HERE
        if path == "/enter":
            return None
        if self._unused or not _same(cookie, self._cookie):
            return NO_COOKIE
        if method not in ("GET", "HEAD") and headers.get("origin") != f"http://{headers['host']}":
            return ELSEWHERE
        return None


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())
