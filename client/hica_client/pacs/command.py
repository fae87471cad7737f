"""One pull from end to end: settings, the PACS, the folder, the record."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hica.errors import ConfigurationError
from hica.progress import say
from hica_client.consent import user_name
from hica_client.pacs.address import Node, Own, Web, is_loopback, parse_own, parse_source
from hica_client.pacs.dicomweb import DicomWeb
from hica_client.pacs.dimse import Dimse
from hica_client.pacs.pulling import count, missing_error, pull
from hica_client.pacs.quiet import quiet
from hica_client.pacs.record import recorded
from hica_client.pacs.selection import Selection
from hica_client.pacs.store import opened
from hica_client.pacs.summary import Summary
from hica_client.site import PacsSection, Site


@dataclass
class Told:
    """What the command reports."""

    source: str
    """The PACS's address."""
    folder: Path | None
    selection: Selection
    dry_run: bool
    found: Summary = field(default_factory=Summary)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON and the record."""
        found = self.found.to_dict()
        return {
            "from": self.source,
            "folder": str(self.folder) if self.folder is not None else None,
            "dry_run": self.dry_run,
            "selection": self.selection.to_dict(),
            **found,
            "notes": self.notes + found["notes"],
        }

    def words(self) -> list[str]:
        """For people, a line each."""
        lines = self.found.words()
        lines += [f"note: {note}" for note in self.notes + self.found.notes()]
        if self.dry_run:
            return [*lines, "nothing was moved; the same command without --dry-run fetches them"]
        return [*lines, f"folder: {self.folder} (patients' names are in its files)"]

    def raise_for_missing(self) -> None:
        """Raise `PacsError` where instances are missing."""
        if self.found.missing:
            raise missing_error(self.found)


def run_pull(
    site: Site,
    source: str | None,
    own: str | None,
    selection: Selection,
    folder: Path | None,
    dry_run: bool,
) -> Told:
    """Pull, or count what would come; `source` and `own` go before `[pacs]` of the site file.

    Raises:
        ConfigurationError: Address, selection or settings cannot be used.
        PacsError: The PACS cannot be reached, refuses, or answers what cannot be used.
        StorageError: The disk is full.
    """
    check_selection(selection)
    if folder is None and not dry_run:
        raise ConfigurationError("--out: name the folder that the files go to, or give --dry-run")
    address = source if source is not None else site.pacs.address
    if address is None:
        raise ConfigurationError(
            f"{site.file}: no PACS is named: give --from, or set address in [pacs]"
        )
    where = parse_source(address, "--from" if source is not None else f"{site.file}: pacs.address")
    if own is not None:
        me = parse_own(own, "--as")
    else:
        me = parse_own(site.pacs.ae_title, f"{site.file}: pacs.ae_title")
    told = Told(str(where), folder, selection, dry_run)
    if not where.encrypted and not is_loopback(where.host):
        told.notes.append(
            "the connection is not encrypted: names and images can be read in the network on the "
            "way; use https: or dicoms: where the PACS has it"
        )
    try:
        with quiet(), archive(where, me, site.pacs) as pacs:
            if dry_run or folder is None:
                count(pacs, selection, told.found)
            else:
                about = {"user": user_name(), "from": told.source, **selection.to_dict()}
                with (
                    opened(folder, site.pacs.max_instance_bytes) as store,
                    recorded(site.data.state / "pulls.jsonl", about, told.to_dict),
                ):
                    pull(pacs, selection, store, told.found)
    except KeyboardInterrupt:
        say(f"{told.found.whole} instances are whole in {folder}; the same command goes on")
        raise
    return told


def check_selection(selection: Selection) -> None:
    """Check that studies are chosen at all.

    Raises:
        ConfigurationError: They are not, or the days are the wrong way round.
    """
    first, last = selection.first, selection.last
    if first and last and first > last:
        raise ConfigurationError("--from-date: after --to-date; give the earlier day first")
    if not (first or last or selection.modalities or selection.cases):
        raise ConfigurationError(
            "no studies are chosen; give --from-date, --to-date, --modality or --cases (a "
            "description alone would have the PACS list all that it holds)"
        )
    if selection.also and not selection.modalities:
        raise ConfigurationError("--also: needs --modality; without it series of all kinds come")


def archive(where: Web | Node, me: Own, settings: PacsSection) -> DicomWeb | Dimse:
    """The PACS at an address, as a context."""
    if isinstance(where, Web):
        return DicomWeb(where, settings)
    return Dimse(where, me, settings)
