"""Text from elsewhere, made safe to print."""

from rich.markup import escape


def printable(text: str) -> str:
    """`text` as it stands, for rich: no markup, and no control characters that steer a terminal."""
    return escape("".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text))
