"""Reading the reports of a site's manifest with a study's text tower; nothing of it leaves."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError, DataError
from hica.images.manifest import Record, read_manifest
from hica.reports.assignment import Finding
from hica.reports.targets import NOT_ENGLISH, State, Targets, read_reports
from hica.study import Study, load_study
from hica.towers.from_study import pinned_text_tower
from hica_client.site import Site

MOST_FOREIGN = 0.5
"""Share of the reports in another language than English above which none is used."""


@dataclass(frozen=True, eq=False)
class SiteReports:
    """The reports of a site, and what they say."""

    site: str
    study: Study
    records: list[Record]
    """Those with a report, in the order of the manifest."""
    images: int
    """All rows of the manifest."""
    targets: Targets

    def counts(self) -> dict[str, Any]:
        """Counts alone: no word of a report, no image."""
        found = self.targets
        return {
            "site": self.site,
            "study": self.study.study.name,
            "study_sha256": self.study.sha256,
            "images": self.images,
            "reports": len(self.records),
            "left_out": dict(Counter(found.unread.values())),
            "cut": len(found.cut),
            "all_normal": int(found.normal.sum()),
            "findings": {
                name: {
                    state.name.lower(): int((found.states[:, column] == state).sum())
                    for state in reversed(State)
                }
                for column, name in enumerate(found.findings)
            },
        }


def read_site_reports(site: Site, study_file: Path | None) -> SiteReports:
    """Read all reports of a site's manifest; the study is the start kit's where none is given.

    Raises:
        ConfigurationError: No study, no findings in it, or a text tower that reads no reports.
        DataError: No image has a report, or most are not in English.
        WeightsError: The text tower is missing, or another than the study pins.
    """
    study = _study(site, study_file)
    findings = [Finding(name, tuple(texts)) for name, texts in study.report_findings.items()]
    if not findings:
        raise ConfigurationError(
            f"{study.study.name}: the study names no finding to look for in reports; ask the "
            "coordinator for [reports.findings], or for findings of the classes"
        )
    everything = read_manifest(site.data.manifest)
    records = [record for record in everything if (record.report or "").strip()]
    if not records:
        raise DataError(
            f"{site.data.manifest}: no image has a report; fill the column report, or let "
            "`hica-client import` fill it"
        )
    tower = pinned_text_tower(study, site.data.weights, site.data.hubs)
    targets = read_reports(tower, [record.report for record in records], findings)
    foreign = sum(why == NOT_ENGLISH for why in targets.unread.values())
    if foreign > MOST_FOREIGN * len(records):
        raise DataError(
            f"{site.data.manifest}: {foreign} of {len(records)} reports are not in English, and "
            "the rules for what is denied know English alone; leave the column report empty, or "
            "put an English translation there"
        )
    return SiteReports(site.site.name, study, records, len(everything), targets)


def _study(site: Site, study_file: Path | None) -> Study:
    if study_file is not None:
        return load_study(study_file)
    from hica.deployment.kit import read_kit

    return read_kit(site.federation.kit)[1]
