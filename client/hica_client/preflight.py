"""preflight: everything that would stop a site in the middle of a run, looked at before it.

Every check is made even where an earlier one failed, and every failure says how to mend it.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hica.device import precision, select_device
from hica.errors import DataError
from hica.images.manifest import Record, examine_manifest
from hica.images.manifest_checks import check_split
from hica.storage import open_to_others, write_atomically
from hica.study import load_study
from hica_client.contact_sheet import write_sheet
from hica_client.one_study import check_one_study
from hica_client.preflight_images import check_images
from hica_client.preflight_report import Preflight
from hica_client.preflight_set import check_set
from hica_client.preflight_study import check_study
from hica_client.site import Site, load_site

NO_SPLIT = "to be drawn"
NO_LABEL = "unlabelled"


def preflight(
    site_file: Path,
    study_file: Path | None = None,
    offline: bool = False,
    sheet: Path | None = None,
) -> Preflight:
    """Check a site, its start kit where it has one, and whether it fits the study.

    Reads every image and mask, and keeps nothing of a study: in the site's folders only `cache` and
    `state` are made, and the contact sheet. The study is by default that of the start kit, if there
    is one; `offline` does not connect to the kit's coordinator. `sheet` is where the contact sheet
    is written, by default into the site's state.
    """
    found = Preflight()
    site, study = None, None
    with found.gathering():
        site = load_site(site_file)
    if study_file is not None:
        with found.gathering():
            study = load_study(study_file)
    if site is None:
        return found
    found.facts["site"] = site.site.name
    with found.gathering():
        device = select_device(site.device.use)
        found.facts |= {
            "device": str(device),
            "precision": str(precision(device)).removeprefix("torch."),
        }
    for name in ("cache", "state"):
        with found.gathering():
            check_writable(getattr(site.data, name))
    check_private(found, site)
    if site.federation.kit.is_dir():
        # Here, as it needs Linux; preparing a site's images does not.
        from hica_client.federation_checks import check_federation

        study_of_kit = check_federation(found, site, offline)
        if study is not None and study_file is not None and study_of_kit is not None:
            with found.gathering():
                check_one_study(study, study_file, study_of_kit, site.federation.kit)
        study = study if study_file is not None else study_of_kit
    records = check_manifest(found, site.data.manifest)
    seen = check_images(found, records, site.data.manifest)
    marks = check_set(found, records, seen, site.data.manifest)
    shown = check_study(found, site, study, records) if study is not None else None
    if seen and (sheet is not None or site.data.state.is_dir()):
        with found.gathering():
            found.facts["contact_sheet"] = str(
                write_sheet(sheet or site.contact_sheet, site, seen, marks, shown)
            )
    return found


def check_writable(folder: Path) -> None:
    """Write a file into `folder` and take it out again.

    Raises:
        StorageError: The disk is full or the folder may not be written.
    """
    probe = folder / ".writable"
    write_atomically(probe, b"")
    probe.unlink(missing_ok=True)


def check_private(found: Preflight, site: Site) -> None:
    """Note folders that others of this machine can read, and a kit that they can change."""
    for folder in (site.data.state, site.data.cache, site.federation.key.parent):
        found.notes += filter(None, [open_to_others(folder)])
    found.notes += filter(None, [open_to_others(site.federation.kit, 0o022, "change")])


def check_manifest(found: Preflight, manifest: Path) -> list[Record]:
    """Read the rows that can be used and count them."""
    records: list[Record] = []
    with found.gathering():
        records, problems, notes = examine_manifest(manifest)
        found.problems += problems
        found.notes += notes
    found.facts |= {
        "images": len(records),
        "masks": sum(record.mask is not None for record in records),
        "patients": len({record.patient_id for record in records} - {None}),
        "groups": len({record.group for record in records}),
        "labels": count_labels(records),
    }
    with found.gathering():
        check_split(records, str(manifest))
    with found.gathering():
        check_held_out(records, manifest)
    nameless = sum(record.patient_id is None for record in records)
    if nameless:
        found.notes.append(
            f"{nameless} images have no patient_id and count as patients of their own, unless "
            "dup_group links them: two of one patient may come to lie on both sides of the test"
        )
    return records


def check_held_out(records: Sequence[Record], manifest: Path) -> None:
    """Check that a split that is given holds out somebody.

    Raises:
        DataError: All labelled rows are for training.
    """
    sides = {record.split for record in records if record.label}
    if "train" in sides and "test" not in sides:
        raise DataError(
            f"{manifest}: column split: no labelled row is of the test, so that nobody could say "
            "how good the model is here: write test in the rows to be held out, whole patients at "
            "a time, or leave the column empty to have the split drawn"
        )


def count_labels(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Images by label and split."""
    table: dict[str, Counter[str]] = {}
    for record in records:
        row = table.setdefault(record.label or NO_LABEL, Counter())
        row[record.split or NO_SPLIT] += 1
    return {label: dict(sorted(row.items())) for label, row in sorted(table.items())}
