"""manifest.json and manifest.sig: what a folder holds, file by file, and who says so.

The signature is over the bytes of `manifest.json`, with ECDSA P-384: that of a coordinator by the
key that signs its requests, that of a hospital by its own. Checking needs nothing but the folder,
and the signer's fingerprint from somebody who knows it.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from hica.deployment.keys import fingerprint, parse_public, public_key
from hica.errors import ConfigurationError, DataError
from hica.printable import plain
from hica.progress import track
from hica.storage import read_file

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
PURPOSE = b"hica export\n"
"""Before what is signed: the key's signature of anything else is of no use here."""
ALIKE = "get the folder anew from whoever exported it, and do not use this one"


class _File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    sha256: str
    bytes: NonNegativeInt


class Manifest(BaseModel):
    """`manifest.json`."""

    model_config = ConfigDict(strict=True, frozen=True)

    study: str
    study_sha256: str
    exported_by: str
    """`coordinator`, or the name of a hospital."""
    made: str
    hica: str
    """Version that wrote the folder."""
    key: str | None = None
    """Public key of the signer, one line; None: the folder is not signed."""
    files: dict[str, _File]
    """By path below the folder, `/` between its parts."""


@dataclass(frozen=True)
class Verified:
    """What a folder was found to be: whole, and by whom.

    Attributes:
        manifest: What it says of itself.
        signer: Fingerprint of the key that signed it; None: nobody did.
    """

    manifest: Manifest
    signer: str | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        said = self.manifest.model_dump(exclude={"files", "key"})
        return {"files": len(self.manifest.files), "signer": self.signer, **said}


def write_manifest(folder: Path, key: ec.EllipticCurvePrivateKey | None, **said: str) -> None:
    """List all that is in a folder, and sign the list where there is a key.

    `said` is what `Manifest` has beside the files.
    """
    files = {}
    for path in track(sorted(each for each in folder.rglob("*") if each.is_file()), "hashing"):
        found = _File(sha256=_sha256(path), bytes=path.stat().st_size)
        files[path.relative_to(folder).as_posix()] = found
    signer = None if key is None else public_key(key.public_key()).openssh
    manifest = Manifest(**said, key=signer, files=files)
    text = manifest.model_dump_json(indent=2).encode() + b"\n"
    (folder / MANIFEST).write_bytes(text)
    if key is not None:
        signature = key.sign(PURPOSE + text, ec.ECDSA(hashes.SHA384()))
        (folder / SIGNATURE).write_bytes(base64.b64encode(signature) + b"\n")


def verify(folder: Path, signer: str | None = None, unsigned: bool = False) -> Verified:
    """Check that a folder is, to the byte, what was exported; needs no network.

    `signer` is the fingerprint of the key that must have signed it; `unsigned` lets a folder pass
    that nobody signed.

    Raises:
        ConfigurationError: It is no exported folder.
        DataError: Its signature is another's or of other content, or a file was changed, is missing
            or was added; names the first.
    """
    text, manifest = _read(folder)
    found = _signer(folder, text, manifest)
    if signer is not None and found != signer:
        raise DataError(
            f"{folder / SIGNATURE}: the folder is signed by {found or 'nobody'}, and not by "
            f"{signer}; {ALIKE}"
        )
    _check_files(folder, manifest)
    if found is None and not unsigned:
        raise DataError(
            f"{folder / MANIFEST}: nobody has signed it, so that whoever changed a file can have "
            "changed the list, too. All files are as listed; where that is enough, add --unsigned"
        )
    return Verified(manifest, found)


def _read(folder: Path) -> tuple[bytes, Manifest]:
    path = folder / MANIFEST
    try:
        text = read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; name a folder that `hica-server export` "
            "or `hica-client export` has written"
        ) from None
    try:
        return text, Manifest.model_validate_json(text)
    except (ValidationError, RecursionError):
        raise DataError(f"{path}: is not the list that was exported; {ALIKE}") from None


def _signer(folder: Path, text: bytes, manifest: Manifest) -> str | None:
    """Fingerprint of the key whose signature of the list is there."""
    path = folder / SIGNATURE
    if manifest.key is None:
        if path.exists():
            raise DataError(f"{path}: was added: the list names no signer; {ALIKE}")
        return None
    try:
        public = parse_public(manifest.key.encode(), f"{folder / MANIFEST}: key")
        key = load_pem_public_key(public.pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        signature = base64.b64decode(read_file(path), validate=False)
        key.verify(signature, PURPOSE + text, ec.ECDSA(hashes.SHA384()))
    except OSError:
        raise DataError(f"{path}: is missing; {ALIKE}") from None
    except (InvalidSignature, binascii.Error, ValueError):
        raise DataError(
            f"{path}: is not the signature of {MANIFEST}: one of the two was changed; {ALIKE}"
        ) from None
    except ConfigurationError:
        raise DataError(f"{folder / MANIFEST}: key: no public key; {ALIKE}") from None
    return fingerprint(public)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Name the first file that is not as listed, in the order of their names."""
    there = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_dir():
            there[name] = path
    for name in (MANIFEST, SIGNATURE):
        there.pop(name, None)
    for name in track(sorted(there.keys() | manifest.files.keys()), "checking"):
        listed, found = manifest.files.get(name), there.get(name)
        shown = plain(str(folder / name))
        if listed is None:
            raise DataError(f"{shown}: was added; {ALIKE}")
        if found is None:
            raise DataError(f"{shown}: is missing; {ALIKE}")
        if found.is_symlink() or not found.is_file():
            raise DataError(f"{shown}: is a link, or no file; {ALIKE}")
        if found.stat().st_size != listed.bytes or _sha256(found) != listed.sha256:
            raise DataError(f"{shown}: was changed; {ALIKE}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
