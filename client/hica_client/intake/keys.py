"""Handles of the keys of pictures, the same for a table and for what is in the export."""

import unicodedata

from hica_client.intake.pseudonyms import Pseudonyms, same_writing
from hica_client.intake.register import Register


def handle_of(pseudonyms: Pseudonyms, kind: str, value: str) -> str:
    """The handle of a key, the same for a table and for a header; empty where there is none."""
    if kind == "path":
        path = value.strip().replace("\\", "/").removeprefix("./")
        value = unicodedata.normalize("NFC", path)
    else:
        value = same_writing(value)
    return pseudonyms.handle(kind, value) if value else ""


def see_spelling(register: Register, pseudonyms: Pseudonyms, path: str, name: str) -> None:
    """Note how a file of this import is spelt, for a table that spells it in other capitals."""
    for kind, value in (("path", path), ("name", name)):
        handle = handle_of(pseudonyms, "path", value)
        loose = loose_handle(pseudonyms, value)
        register.change("INSERT OR IGNORE INTO spelt VALUES (?, ?, ?)", kind, loose, handle)


def loose_handle(pseudonyms: Pseudonyms, path: str) -> str:
    """The handle of a path in whichever capitals."""
    return handle_of(pseudonyms, "path", unicodedata.normalize("NFC", path).casefold())


def as_spelt(register: Register, kind: str, handle: str, loose: str) -> str:
    """The handle of the file that is meant: spelt just so, else the only one in other capitals."""
    handles = register.rows("SELECT handle FROM spelt WHERE kind = ? AND loose = ?", kind, loose)
    files = [file for (file,) in handles]
    return files[0] if len(files) == 1 else handle
