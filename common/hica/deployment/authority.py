"""The certificate that a site trusts alone: that of its coordinator's own authority."""

import hashlib
from pathlib import Path

from cryptography import x509

from hica.errors import ConfigurationError


def check_authority(path: Path, pem: bytes, sha256: str | None) -> None:
    """Check the `ca.crt` of a start kit, of which `pem` is the content.

    `sha256` is what `kit.json` says its hash is; None in kits of earlier versions.

    Raises:
        ConfigurationError: It is no certificate of an authority, or another one than the kit's.
    """
    if not _is_authority(pem):
        raise ConfigurationError(
            f"{path}: is no certificate of an authority, so the coordinator could not be told from "
            "others; unpack the start kit anew, all files of it into one folder"
        )
    if sha256 is not None and hashlib.sha256(pem).hexdigest() != sha256:
        raise ConfigurationError(
            f"{path}: is another authority's certificate than kit.json names ({sha256[:12]}); "
            "unpack the start kit anew, all files of it into one folder"
        )


def _is_authority(pem: bytes) -> bool:
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
