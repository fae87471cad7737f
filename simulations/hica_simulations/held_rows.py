"""Which rows of the source manifests each site holds, in the study's words."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hica.below import below
from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record, fields_by_image, read_manifest
from hica_simulations.phantoms.sites import VERSION, SiteShift, draw_site
from hica_simulations.scenario import PhantomsSection, Simulation, SiteSource
from hica_simulations.shares import even_part, sized_part, skewed_part


def source_manifests(simulation: Simulation, data: Path, phantoms: Path) -> dict[str, Path]:
    """Each site's source manifest; phantoms are drawn where they are not there yet."""
    if simulation.phantoms is not None:
        return _phantom_manifests(simulation.phantoms, simulation.sites, phantoms)
    if not data.is_dir():
        raise ConfigurationError(f"--data {data}: no such folder; give the folder of the images")
    manifests = {}
    for site in simulation.sites:
        key = f"simulation.sites {site.name}: manifest"
        manifest = below(data.resolve(), str(site.manifest), key, ConfigurationError)
        if not manifest.is_file():
            raise ConfigurationError(
                f"simulation.sites {site.name}: manifest: {site.manifest} does not exist below "
                f"--data {data}; correct either"
            )
        manifests[site.name] = manifest
    return manifests


def _phantom_manifests(
    phantoms: PhantomsSection, sites: Iterable[SiteSource], root: Path
) -> dict[str, Path]:
    """Manifests of phantoms below a folder named by everything they depend on."""
    manifests = {}
    for site in sites:
        settings = f"{VERSION}|{phantoms!r}|{site.shift!r}"
        folder = root / hashlib.sha256(settings.encode()).hexdigest()[:16]
        manifest = folder / site.name / "manifest.csv"
        if not manifest.is_file():  # written last: where it is, the images are
            shift = SiteShift(site.name, **site.shift.model_dump())
            draw_site(folder, site=shift, **phantoms.model_dump())
        manifests[site.name] = manifest.resolve()
    return manifests


def held_rows(site: SiteSource, simulation: Simulation, manifest: Path) -> list[Record]:
    """The rows a site holds, labels and findings in the study's words."""
    rows = read_manifest(manifest)
    fields = fields_by_image(manifest)
    wanted = simulation.labels if site.labels is None else site.labels
    findings = simulation.findings if site.findings is None else site.findings
    for key, columns in (("where", site.where), ("findings", findings)):
        _check_columns(site, key, columns, manifest, fields)
    records = [
        _translated(record, fields[record.name], wanted, findings)
        for record in rows
        if _matches(fields[record.name], site.where)
        and (not wanted or record.label is None or record.label in wanted)
    ]
    records = _part(site, simulation, records)
    if not records:
        raise DataError(
            f"simulation.sites {site.name}: no rows of {manifest} are left by where = "
            f"{site.where}, labels and part; correct these, or where simulation.skew or sizes "
            "share out the rows, change it or simulation.split_seed"
        )
    return records


def matching_names(
    site: SiteSource, key: str, where: Mapping[str, str], manifest: Path
) -> set[str]:
    """Names of the images whose rows hold these values, by column.

    `key` is what `where` is called in the site's table; `read_manifest` has accepted the manifest.

    Raises:
        ConfigurationError: A column does not exist.
    """
    fields = fields_by_image(manifest)
    _check_columns(site, key, where, manifest, fields)
    return {name for name, row in fields.items() if _matches(row, where)}


def _check_columns(
    site: SiteSource,
    key: str,
    columns: Iterable[str],
    manifest: Path,
    fields: Mapping[str, Mapping[str, str]],
) -> None:
    known = list(next(iter(fields.values())))
    for column in columns:
        if column not in known:
            raise ConfigurationError(
                f"simulation.sites {site.name}: {key}: {manifest} has no column {column!r}; "
                f"its columns are {', '.join(known)}"
            )


def _matches(row: Mapping[str, str], where: Mapping[str, str]) -> bool:
    return all(row[column] == value for column, value in where.items())


def _translated(
    record: Record,
    row: Mapping[str, str],
    labels: Mapping[str, str],
    findings: Mapping[str, Mapping[str, str]],
) -> Record:
    """A row with its label and findings in the study's words."""
    found = ((terms, term) for column, terms in findings.items() for term in _terms(row[column]))
    named = [terms[term] for terms, term in found if term in terms]
    return replace(
        record,
        label=labels.get(record.label, record.label) if record.label else None,
        findings=tuple(dict.fromkeys([*record.findings, *named])),
    )


def _terms(field: str) -> list[str]:
    """Terms of a field: `not circumscribed - angular&indistinct` holds three.

    Whole terms are compared, never parts of words: `not circumscribed` is not `circumscribed`.
    """
    return [term.strip() for term in re.split(r"[&,;]|\s-\s", field) if term.strip()]


def _part(site: SiteSource, simulation: Simulation, records: Sequence[Record]) -> list[Record]:
    which, count = site.share
    if site.part is not None and simulation.sizes is not None:
        return sized_part(records, which, simulation.sizes, simulation.split_seed)
    if site.part is not None and simulation.skew is not None:
        # Sites draw the same proportions exactly if they share out the same rows.
        source = f"{site.manifest}|{sorted(site.where.items())}"
        return skewed_part(records, which, count, simulation.skew, simulation.split_seed, source)
    return even_part(records, which, count, simulation.split_seed)


def check_disjoint(held: Mapping[str, Sequence[Record]], sources: Mapping[str, Path]) -> None:
    """No group may lie at two sites: one's training would hold the other's test."""
    owner: dict[tuple[Path, str], str] = {}
    for name, records in held.items():
        for record in records:
            other = owner.setdefault((sources[name], record.group), name)
            if other != name:
                raise ConfigurationError(
                    f"simulation.sites: {other} and {name} share images of {sources[name]} "
                    f'(group {record.group}); give them different part = "k/n" or where'
                )
