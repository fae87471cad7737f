"""A site that has its start kit and its key."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from hica.deployment import keys
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.kit import Kit
from hica.study import Study


@pytest.fixture
def unpack_kit() -> Callable[..., Kit]:
    """Lays an unpacked start kit into the folder of a site; keywords change `kit.json`."""

    def unpack(site_file: Path, study: Study, ca: bytes = b"", **fields: str) -> Kit:
        kit = Kit(
            **{
                "site": site_file.parent.name,
                "address": "coordinator.example:8443",
                "study_sha256": study.sha256,
                "bundle_sha256": BUNDLE_SHA256,
                "hica": version("hica"),
                "flwr": version("flwr"),
                **fields,
            }
        )
        folder = site_file.parent / "kit"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(ca)
        (folder / "kit.json").write_text(kit.model_dump_json())
        (folder / "study.json").write_text(study.canonical_json())
        return kit

    return unpack


@pytest.fixture
def enrolled_site(draw_site, toy_study, unpack_kit) -> Path:
    """`site.toml` of a site with images, key and kit; its policy fits the toy study."""
    site_file = draw_site("north")
    with site_file.open("a") as file:
        file.write("[policy]\nmin_count = 3\n")
    keys.generate(site_file.parent / "keys" / "site")
    unpack_kit(site_file, toy_study())
    return site_file
