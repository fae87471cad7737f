"""Traffic: how much of the coordinator's disk a site may fill.

What a site sends lies in the SuperLink's database until the coordinator has read it. A site may
send as much as the coordinator reads of the answers that it has asked for (`hica_server.asked`),
and `limits.unasked_bytes` beside. No honest answer is larger, so the rule holds for a model of any
size. What a site has fetched is no measure: it can fetch the same again and again.

The count is in memory. After a restart of the gateway a site counts as having sent all but two of
its largest answers: an honest one owes its last answer, and perhaps a late one.
"""

from pathlib import Path

from hica_server.admission import RefusedError
from hica_server.asked import NOTHING, Asked, read_asked

LATE = 2
"""Answers that may still come when the gateway is started."""


class Traffic:
    """Bytes that each site has sent. `asked` is the file of what it may, `unasked` the rest."""

    def __init__(self, asked: Path, unasked: int) -> None:
        self._file, self._unasked = asked, unasked
        self._asked: dict[str, Asked] = {}
        self._sent: dict[str, int] = {}

    def take(self, site: str, size: int) -> None:
        """Count what a site is about to store.

        Raises:
            RefusedError: 413, it has sent more than it may.
        """
        if site not in self._sent:
            self._asked = read_asked(self._file)
            total, largest = self._asked.get(site, NOTHING)
            self._sent[site] = max(0, total - LATE * largest)
        if self._sent[site] + size > self._allowed(site):
            self._asked = read_asked(self._file)
        if self._sent[site] + size > self._allowed(site):
            raise RefusedError(
                413,
                f"{site}: has sent more than the coordinator has asked for, and "
                f"{self._unasked} bytes (limits.unasked_bytes of its server.toml) beside",
            )
        self._sent[site] += size

    def give_back(self, site: str, size: int) -> None:
        """Uncount what was not stored."""
        self._sent[site] -= size

    def _allowed(self, site: str) -> int:
        return self._asked.get(site, NOTHING).total + self._unasked
