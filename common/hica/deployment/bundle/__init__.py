"""The Flower App Bundle: it only names our installed apps and holds no code.

A SuperNode that meets any other bundle does not run it: the runner compares `APP_ID` and
`BUNDLE_SHA256` with what arrives. The same `build()` therefore has to give the same bytes on every
machine, which Flower's own builder does not: its compression depends on the zlib that Python was
linked with. Here the files are stored as they are.
"""

import hashlib
import io
import zipfile
from pathlib import Path

BUNDLE_FOLDER = Path(__file__).parent / "app"
"""What the bundle is made of: one `pyproject.toml`."""

APP_ID = "hica/hica-bundle"
"""Publisher and name, as `Run.fab_id` gives them."""

BUNDLE_SHA256 = "29a2284ab875089e06e8657ce2b569af782593cdcb0dd3602e2057b5c58d2491"
"""Hash of `build()`, which a hospital's runner pins. Changes with `app/pyproject.toml` only."""

_MANIFEST = ".info/CONTENT"
_DATE = (2024, 10, 1, 0, 0, 0)
_UNIX = 3


def build() -> bytes:
    """The bundle as the SuperLink takes it when a run is started."""
    name = "pyproject.toml"
    content = (BUNDLE_FOLDER / name).read_bytes()
    manifest = f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(name), content)
        archive.writestr(_entry(_MANIFEST), manifest)
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    """A zip entry whose header says nothing about machine or time."""
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system = _UNIX
    entry.external_attr = 0o644 << 16
    return entry
