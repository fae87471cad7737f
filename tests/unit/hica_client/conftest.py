"""A site that has its start kit and its key."""

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.coordinator import CA, PUBLIC

from hica.deployment import keys
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.kit import Kit, study_text
from hica.study import Study


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Files are for their owner alone, as all processes of the client make them."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def unpack_kit() -> Callable[..., Kit]:
    """Lays an unpacked start kit into the folder of a site; keywords change `kit.json`."""

    def unpack(site_file: Path, study: Study, ca: bytes = CA, **fields: str) -> Kit:
        kit = Kit(
            **{
                "site": site_file.parent.name,
                "address": "coordinator.example:8443",
                "study_sha256": study.sha256,
                "bundle_sha256": BUNDLE_SHA256,
                "hica": version("hica"),
                "flwr": version("flwr"),
                "coordinator_key": PUBLIC,
                **fields,
            }
        )
        folder = site_file.parent / "kit"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(ca)
        (folder / "kit.json").write_text(kit.model_dump_json())
        (folder / "study.json").write_text(study.canonical_json())
        (folder / "study.toml").write_text(study_text(study))
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
