"""Text from elsewhere, made safe to print; lists of names, made short."""

from collections.abc import Sequence

from rich.markup import escape


def listed(names: Sequence[str]) -> str:
    """The first four names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def printable(text: str) -> str:
    """`text` as it stands, for rich: no markup, and no control characters that steer a terminal."""
    return escape("".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text))
