"""The text of a study file with other findings, all else as it is, comments included."""

import re
import tomllib

import tomli_w

from hica_server.findings.draft import Findings

CLASS_TABLE = re.compile(r"\s*\[\[\s*classes\s*\]\]")
ANY_TABLE = re.compile(r"\s*\[")
KEY = re.compile(r"\s*findings\s*=")
COMMENT_OR_BLANK = re.compile(r"\s*(#|$)")


def with_findings(text: str, findings: Findings) -> tuple[str, bool]:
    """Write other findings, those of every class, into the `[[classes]]` tables of a valid study.

    Returns the new text, and whether comments were kept. Lists that do not change are left as they
    are. What comes out is read again and compared: where it is not exactly the study that is
    wanted, because its classes are written in another form, the whole file is written anew.
    """
    wanted = tomllib.loads(text)
    for item in wanted["classes"]:
        item["findings"] = list(findings[item["name"]])
    lines = text.split("\n")
    try:
        for start in reversed(range(len(lines))):  # from the end: what is before keeps its number
            if CLASS_TABLE.match(lines[start]):
                end = _first(lines, ANY_TABLE, start + 1)
                lines[start:end] = _changed(lines[start:end], findings)
        if tomllib.loads("\n".join(lines)) == wanted:
            return "\n".join(lines), True
    except tomllib.TOMLDecodeError:
        pass
    return tomli_w.dumps(wanted, multiline_strings=True, indent=2), False


def _changed(block: list[str], findings: Findings) -> list[str]:
    (item,) = tomllib.loads("\n".join(block))["classes"]
    new = findings[item["name"]]
    if item.get("findings", []) == new:
        return block
    written = tomli_w.dumps({"findings": list(new)}, indent=2).splitlines()
    start = _first(block, KEY)
    if start < len(block):
        return [*block[:start], *written, *block[_end_of_value(block, start) :]]
    last = max(n for n, line in enumerate(block) if not COMMENT_OR_BLANK.match(line))
    return [*block[: last + 1], *written, *block[last + 1 :]]


def _first(lines: list[str], pattern: re.Pattern[str], start: int = 0) -> int:
    """Number of the first line from `start` on that `pattern` matches; else how many there are."""
    found = (n for n in range(start, len(lines)) if pattern.match(lines[n]))
    return next(found, len(lines))


def _end_of_value(lines: list[str], start: int) -> int:
    """Number of the line after the key and value that begin at `start`: the first whole TOML."""
    for end in range(start + 1, len(lines)):
        try:
            tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        return end
    return len(lines)
