"""Keyed pseudonyms: the same for a patient at every import, of no use without the site's secret.

The secret is made at the first import and lies beside the site's key. Whoever has it can tell
whether a given patient was imported; nobody can get from a pseudonym to a patient.
"""

import hashlib
import hmac
import json
import os
import secrets
import unicodedata
from pathlib import Path

from hica.errors import ConfigurationError
from hica.storage import cannot_be_written, read_file, replacing

NAMELESS = {
    *("", "0", "anon", "anonym", "anonymous", "anonymised", "anonymized", "unknown", "none"),
    *("n/a", "na", "null", "patient", "test", "x", "xxx", "deidentified", "removed"),
}
"""What stands in PatientID of everybody's files where it was taken out; no patient is meant."""


class Pseudonyms:
    """Handles in place of identifiers."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def handle(self, kind: str, *parts: str) -> str:
        """24 hexadecimal digits for an identifier of a kind; other kinds have other handles."""
        text = json.dumps([kind, *parts]).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:24]

    def patient(self, basis: str, *parts: str) -> str:
        """The pseudonym of a patient who is known by `basis`: `p` and 16 hexadecimal digits."""
        return f"p{self.handle('patient', basis, *parts)[:16]}"

    def picture(self, shape: tuple[int, ...], pixels: bytes) -> str:
        """The name of a picture, after what it shows."""
        inner = hmac.new(self._secret, repr(shape).encode(), hashlib.sha256)
        inner.update(pixels)
        return inner.hexdigest()[:24]


def same_writing(identifier: str) -> str:
    """The one writing of an identifier that is written in several ways.

    Spaces and null characters around it mean nothing in DICOM (PS3.5, 6.2), and neither do the
    empty components at the end of a person's name. Upper and lower case are taken for the same: two
    patients taken for one lose nothing, one taken for two may stand on both sides of a test.
    """
    text = unicodedata.normalize("NFKC", identifier).replace("\0", " ")
    return " ".join(text.split()).rstrip("^ =").casefold()


def load_pseudonyms(path: Path, known: bool) -> Pseudonyms:
    """The site's secret; made where there is none, unless pseudonyms of an earlier one are `known`.

    Raises:
        ConfigurationError: It is lost, open to others, or not what was written there.
        StorageError: It cannot be written.
    """
    if not path.exists():
        if known:
            raise ConfigurationError(
                f"{path}: missing, and pictures were imported with it. Restore it from a backup: "
                "with a new one every patient would count as another one. To begin anew, take all "
                "rows of images/ out of the manifest"
            )
        try:  # by one name, so that an import that is killed here leaves nothing for good
            with replacing(path, part=path.with_name(f".{path.name}.part"), mode=0o600) as file:
                file.write_text(f"{secrets.token_hex(32)}\n")
        except OSError as error:
            raise cannot_be_written(path, error) from error
    try:
        mode, text = path.stat().st_mode, read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; give this user the right to read it"
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"{path}: can be read by others. Run: chmod 600 {path}")
    try:
        secret = bytes.fromhex(text.decode())
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise ConfigurationError(
            f"{path}: is not the secret that was written there; restore it from a backup"
        )
    return Pseudonyms(secret)
