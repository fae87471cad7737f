"""A site that an export is imported into."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from hica_client.intake.counts import Summary
from hica_client.intake.intake import Wishes, import_folder
from hica_client.site import Site, load_site

SECRET = "5" * 64


class Hospital:
    """A site, and what lies in it."""

    def __init__(self, folder: Path) -> None:
        (folder / "keys").mkdir(parents=True, exist_ok=True)
        # The same at every site of a test: what is imported can be compared.
        (folder / "keys" / "pseudonyms").write_text(SECRET)
        (folder / "keys" / "pseudonyms").chmod(0o600)
        (folder / "site.toml").write_text(
            '[site]\nname = "H1"\n[data]\nmanifest = "manifest.csv"\n[device]\nuse = "cpu"\n'
        )
        self.folder, self.file = folder, folder / "site.toml"

    @property
    def site(self) -> Site:
        return load_site(self.file)

    def take(self, source: Path, **wishes: object) -> Summary:
        return import_folder(self.site, source, Wishes(**wishes))

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    @property
    def rows(self) -> list[dict[str, str]]:
        with self.manifest.open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def pictures(self) -> list[Path]:
        return sorted(self.folder.glob("images/*/*"))

    def content(self) -> dict[str, bytes]:
        """All files but the register, whose pages may lie otherwise."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in files
            if "state" not in path.parts
        }


@pytest.fixture
def make_hospital(tmp_path: Path) -> Callable[[str], Hospital]:
    return lambda name="hospital": Hospital(tmp_path / name)


@pytest.fixture
def hospital(make_hospital) -> Hospital:
    return make_hospital()
