"""Site: everything the hospital decides, as read from `site.toml`. It never leaves the site."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hica.study import Name, Section, read_toml, validated


class SiteSection(Section):
    """`[site]`: what the site is called in every report."""

    name: Name


class DataSection(Section):
    """`[data]`: where images, weights and the site's own files lie; relative to `site.toml`."""

    manifest: Path
    """CSV with the columns image,label,patient_id,split,mask,findings (only image required)."""
    weights: Path = Path("weights")
    """Folder below which checkpoints named by the study are looked up."""
    cache: Path = Path("cache")
    """Decoded images and features: everything in it can be deleted at any time."""
    state: Path = Path("state")
    """Episode, centre and pseudo-labels of each study: needed until the study has ended."""
    test_fraction: float = Field(default=0.3, gt=0.0, lt=1.0)
    """Share of the patients held out, where the manifest has no `split` column."""


class DeviceSection(Section):
    """`[device]`: where the site computes."""

    use: str = "auto"


class Site(Section):
    """The whole of `site.toml`, paths made absolute."""

    site: SiteSection
    data: DataSection
    device: DeviceSection = DeviceSection()


def load_site(path: Path) -> Site:
    """Read and check a site file.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    site = validated(Site, read_toml(path), str(path))
    folder = path.resolve().parent
    data = site.data.model_copy(
        update={
            name: folder / getattr(site.data, name)
            for name in ("manifest", "weights", "cache", "state")
        }
    )
    return site.model_copy(update={"data": data})
