"""Text from elsewhere, made safe to print and to log; names and metrics, made short."""

import logging
import time
from collections.abc import Mapping, Sequence

from rich.markup import escape

LONGEST_LINE = 4000
"""Characters of a line in a log; of a longer one its beginning is kept."""
MOST_LINES = 100
"""Of a traceback in a log: of a longer one the last."""


def listed(names: Sequence[str]) -> str:
    """The first four names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def byte_unit(largest: float) -> tuple[float, str]:
    """Divisor and name of the unit in which `largest` bytes read well."""
    for divisor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= divisor:
            return divisor, unit
    return 1.0, "bytes"


def size_words(size: float) -> str:
    """Bytes with a unit that fits: `1.23 MB`."""
    divisor, unit = byte_unit(size)
    return f"{float(f'{size / divisor:.3g}'):g} {unit}"


def plain(text: str) -> str:
    """`text` without control characters, which steer a terminal; its lines stay lines."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text)


def printable(text: str) -> str:
    """`text` as it stands, for rich: no markup, and no control characters."""
    return escape(plain(text))


def percent(interval: Mapping[str, float] | None) -> str:
    """A metric as `81.2 [78.0, 84.1]`, or a dash where it is not defined."""
    if interval is None:
        return "–"
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['value']:5.1f} [{low:.1f}, {high:.1f}]"


def points(difference: Mapping[str, float]) -> str:
    """A difference of a metric in percentage points, as `+3.1 [-0.2, +6.4]`."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def one_line(text: str) -> str:
    """`text` as one line of a log: a line break is shown as in Python, a long rest cut off."""
    kept = plain(text[:LONGEST_LINE]).replace("\n", "\\n")
    rest = len(text) - LONGEST_LINE
    return f"{kept} … ({rest} characters more)" if rest > 0 else kept


class PlainFormatter(logging.Formatter):
    """Every log of both sides: a record is one line, and a traceback lines that are set in.

    What others have written (names, notes, reasons) can thereby neither look like another record,
    nor steer the terminal that shows the log, nor fill it. Its time is UTC.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%SZ"
    default_msec_format = None

    def format(self, record: logging.LogRecord) -> str:
        """The whole record, made safe last of all, whichever part of it came from outside."""
        parts = [one_line(self._head(record))]
        if record.exc_info:
            parts += _set_in(self.formatException(record.exc_info))
        if record.stack_info:
            parts += _set_in(record.stack_info)
        return "\n".join(parts)

    def _head(self, record: logging.LogRecord) -> str:
        """The record without traceback."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        return self.formatMessage(record)


def _set_in(text: str) -> list[str]:
    """Lines that cannot be taken for records."""
    lines = text.splitlines()
    return [f"    {one_line(line)}" for line in lines[-MOST_LINES:]]


def log_to_stderr(form: str, level: int = logging.WARNING) -> None:
    """Log to standard error through the `PlainFormatter`, unless logging is set up already."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
