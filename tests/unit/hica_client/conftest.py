"""A site that has its start kit and its key, and one that has its images only."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.coordinator import CA, PUBLIC
from tests.unit.hica_client.hospitals import ROOT, STUDY

from hica.deployment import keys
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.kit import Kit, study_text
from hica.study import Study
from hica_client.cli import main


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


@pytest.fixture
def run_command(capsys):
    """Run `hica-client` and return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def check(run_command):
    """Run `hica-client check --json` and return (exit code, what was found)."""

    def run(*arguments: object) -> tuple[int, dict]:
        code, out, _ = run_command("check", *arguments, "--json")
        return code, json.loads(out)

    return run


@pytest.fixture
def hospital(tmp_path) -> Path:
    """A site of ten images: three patients a class to train on, two to test; one has a mask."""
    folder = tmp_path / "hospital"
    folder.mkdir()
    shutil.copy(ROOT / "client" / "example_site.toml", folder / "site.toml")
    generator = np.random.default_rng(0)
    lines = ["image,label,patient_id,split,mask,findings"]
    for label in ("benign", "malignant"):
        for number in range(5):
            name = f"{label}-{number}"
            pixels = generator.integers(0, 255, (40, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
            split = "train" if number < 3 else "test"
            lines.append(f"{name}.png,{label},{name},{split},,")
    mask = Image.new("L", (48, 40))
    mask.paste(1, (8, 8, 20, 20))
    mask.save(folder / "mask.png")
    lines[1] = "benign-0.png,benign,benign-0,train,mask.png,oval shape"
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "site.toml"


@pytest.fixture
def study(tmp_path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path
