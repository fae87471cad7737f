"""import_folder: an export → pictures below `images/` and rows of the manifest, in two passes.

Killed at any moment and begun again, it gives the same files and the same manifest: what was read
is in the register, pictures appear whole, and the manifest is replaced in one step, last of all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hica.deployment.kit import read_kit
from hica.deployment.lockfile import hold
from hica.errors import ConfigurationError, HicaError
from hica_client.intake import reasons
from hica_client.intake.counts import Summary
from hica_client.intake.duplicates import groups_of
from hica_client.intake.labels import LabelFile, prepare, read_labels
from hica_client.intake.layout import classes_of, name_owners
from hica_client.intake.meant import Folders
from hica_client.intake.merge import Manifest, Merged, Row, comparable, filled_in
from hica_client.intake.pseudonyms import Pseudonyms, load_pseudonyms
from hica_client.intake.register import CHOSEN, Register, opened
from hica_client.intake.rows import FOLDER, OURS, RowMaker, image_of
from hica_client.intake.scan import not_taken, scan
from hica_client.intake.selection import select
from hica_client.intake.summary import summary_of
from hica_client.intake.taking import Taker
from hica_client.site import Site
from hica_client.withdrawals import withdrawn


@dataclass(frozen=True)
class Wishes:
    """What a person asks of an import."""

    labels: Path | None = None
    folders: Folders = Folders.AUTO
    class_names: list[str] = field(default_factory=list)
    skip_burned_in: bool = False
    skipped: Callable[[str, str], None] | None = None
    """Is told path and reason of each file that is not taken; neither is kept."""


def import_folder(site: Site, source: Path, wishes: Wishes) -> Summary:
    """Import a folder, or one file of many pictures, into a site.

    Raises:
        ConfigurationError: The secret is lost, or the folder is the site's own.
        DataError: Folder, labels or manifest cannot be read.
        FederationError: Another import of this site is running.
        StorageError: The disk is full, or a folder may not be written. What was done is kept.
    """
    pictures = site.data.manifest.parent / FOLDER
    _check_apart(source, pictures)
    with hold(site.data.state / "import.lock", f"an import into {site.file}"):
        manifest = Manifest(site.data.manifest)
        gone = frozenset().union(*(each.images for each in withdrawn(site)))
        known = any(OURS.fullmatch(row["image"]) for row in manifest.rows)
        pseudonyms = load_pseudonyms(site.pseudonyms, known)
        with opened(site.imports) as register:
            _check_secret(site, register, pseudonyms)
            prepare(register)
            for left in pictures.glob("*/.*.part"):  # of an import that was killed
                left.unlink(missing_ok=True)
            scanned = scan(source, register, pseudonyms)
            labels = LabelFile()
            if wishes.labels is not None:
                labels = read_labels(wishes.labels, register, pseudonyms)
            of_study = _classes_of_study(site)
            classes = classes_of(register, scanned.tops, wishes.folders, of_study)
            name_owners(register, classes, wishes.folders)
            select(register)
            taker = Taker(pictures, register, pseudonyms, gone, wishes.skip_burned_in)
            taker.take(source)
            _leave_out(register, gone, pictures)
            marks = _marks(register, manifest)
            maker = RowMaker(register, pseudonyms, classes, wishes.class_names, labels, marks)
            merged = _merge(register, pseudonyms, manifest, maker)
            if wishes.skipped is not None:
                for path, reason in not_taken(source, register, pseudonyms):
                    wishes.skipped(path, reason)
            return summary_of(register, maker, merged, scanned, taker.failures, wishes.folders)


def _classes_of_study(site: Site) -> list[str] | None:
    """The classes of the study in the start kit; None where there is no kit that can be read.

    What is wrong with a kit is told by `check`.
    """
    try:
        return list(read_kit(site.federation.kit)[1].class_names)
    except HicaError:
        return None


def _check_apart(source: Path, pictures: Path) -> None:
    """Check that what is imported is not what was imported."""
    try:
        full, own = source.resolve(), pictures.resolve()
    except (OSError, RuntimeError):  # a link to itself, which reading it will tell
        return
    if own == full or own in full.parents or full in own.parents:
        raise ConfigurationError(
            f"{source}: lies in or holds {pictures}, into which is imported; name the folder of "
            "the export itself, outside the site's folder"
        )


def _check_secret(site: Site, register: Register, pseudonyms: Pseudonyms) -> None:
    """Check that the secret is the one that the register was made with."""
    now = pseudonyms.handle("secret", "")
    then = register.value("SELECT value FROM facts WHERE name = 'secret'")
    if then not in (None, now):
        raise ConfigurationError(
            f"{site.pseudonyms}: is not the secret of the earlier imports: every patient would "
            "count as another one. Restore it from a backup"
        )
    register.change("INSERT OR REPLACE INTO facts VALUES ('secret', ?)", now)
    register.commit()


def _leave_out(register: Register, gone: frozenset[str], pictures: Path) -> None:
    """Leave out who has withdrawn, with all pictures, and what a patient has twice."""
    owners = {
        owner
        for owner, sha256 in register.rows("SELECT patient, sha256 FROM pictures")
        if sha256 in gone and owner
    }
    images = [
        picture
        for picture, owner, sha256 in register.rows("SELECT picture, patient, sha256 FROM pictures")
        if sha256 in gone or owner in owners
    ]
    for picture in images:
        (pictures / f"{picture}.png").unlink(missing_ok=True)
        register.change(
            "UPDATE sources SET left_out = ? WHERE picture = ?", reasons.WITHDRAWN, picture
        )
        register.change("DELETE FROM words WHERE patient = ?", picture.split("/")[0])
    register.change(
        f"UPDATE sources SET left_out = ? WHERE run = ? AND {CHOSEN} AND key NOT IN "
        f"(SELECT min(key) FROM sources WHERE run = ? AND {CHOSEN} GROUP BY picture)",
        *(reasons.AGAIN, register.run, register.run),
    )
    register.commit()


def _marks(register: Register, manifest: Manifest) -> dict[str, str]:
    """`dup_group` of each picture that is nearly the same as another, of this import or before.

    A group that has a mark keeps it, so that marks mean the same for a study that is running.
    """
    written = {row["image"]: row.get("dup_group", "") for row in manifest.rows}
    pictures, hashes = [], []
    for picture, hashed, chosen in register.rows(
        "SELECT picture, hash, EXISTS (SELECT 1 FROM sources WHERE run = ? AND "
        f"sources.picture = pictures.picture AND {CHOSEN}) FROM pictures ORDER BY picture",
        register.run,
    ):
        if chosen or image_of(picture) in written:
            pictures.append(picture)
            hashes.append(hashed)
    groups: dict[int, list[str]] = {}
    for picture, group in zip(pictures, groups_of(hashes).tolist(), strict=True):
        groups.setdefault(group, []).append(picture)
    marks: dict[str, str] = {}
    for members in groups.values():
        if len(members) > 1:
            had = {written.get(image_of(member), "") for member in members} - {""}
            mark = min(had, default=f"d{members[0].split('/')[1][:16]}")
            marks |= dict.fromkeys(members, mark)
    return marks


def _merge(
    register: Register, pseudonyms: Pseudonyms, manifest: Manifest, maker: RowMaker
) -> Merged:
    """The manifest with the rows of this import, and with marks on rows of earlier ones."""
    rows = {row["image"]: row for row in maker.rows()}
    there = {row["image"]: row for row in manifest.rows}
    for picture, mark in maker.marks.items():
        image = image_of(picture)
        if image in there and image not in rows:
            rows[image] = {**there[image], "dup_group": mark}

    def digest(row: Row) -> str:
        return pseudonyms.handle("row", *comparable(row))

    def is_ours(row: Row) -> bool:
        return bool(register.value("SELECT 1 FROM written WHERE digest = ?", digest(row)))

    for image, row in rows.items():
        rows[image] = filled_in(row, there.get(image, {}))
    digests = ((digest(row),) for row in rows.values())
    # First: a row that is taken for ours and was never written does no harm.
    register.many("INSERT OR IGNORE INTO written VALUES (?)", digests)
    register.commit()
    merged = manifest.merged(rows, is_ours)
    manifest.write(merged)
    replaced = ((digest(row),) for row in merged.replaced)
    register.many("DELETE FROM written WHERE digest = ?", replaced)
    return merged
