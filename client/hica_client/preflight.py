"""preflight: everything that would stop a site in the middle of a run, looked at before it.

Every check is made even where an earlier one failed, and every failure says how to mend it.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from hica.cohort.region_method import region_method
from hica.device import precision, select_device
from hica.errors import DataError, StorageError
from hica.images.decode import read_mask, read_picture
from hica.images.manifest import Record, check_labels, check_split, examine_manifest
from hica.printable import size_words
from hica.progress import track
from hica.regions import extract
from hica.storage import open_to_others, write_atomically
from hica.study import Study, load_study
from hica.towers.adaptation import AdaptedTower
from hica.towers.from_study import adapted_tower
from hica.towers.preprocessing import told
from hica_client.draws import site_roles
from hica_client.one_study import check_one_study
from hica_client.preflight_report import Preflight
from hica_client.site import Site, load_site

NO_SPLIT = "to be drawn"
NO_LABEL = "unlabelled"


def preflight(site_file: Path, study_file: Path | None = None, offline: bool = False) -> Preflight:
    """Check a site, its start kit where it has one, and whether it fits the study.

    Reads every image and mask, and keeps nothing of a study: in the site's folders only `cache` and
    `state` are made. The study is by default that of the start kit, if there is one; `offline` does
    not connect to the kit's coordinator.
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
    check_images(found, records)
    if study is not None:
        check_study(found, site, study, records)
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


def check_images(found: Preflight, records: Sequence[Record]) -> None:
    """Decode every image and its mask, and count by which way they come to 8-bit RGB."""
    decoded: Counter[str] = Counter()
    oblong = 0
    for record in track(records, "decoding images and masks", len(records)):
        with found.gathering():
            image, way, _ = read_picture(record.image)
            decoded[way] += 1
            oblong += image.width != image.height
            if record.mask is not None:
                read_mask(record.mask, image.size)
    found.facts |= {"decoded": dict(decoded), "not_square": oblong}


def check_study(found: Preflight, site: Site, study: Study, records: Sequence[Record]) -> None:
    """Labels, shots, weights, regions and disk, against what the study asks for."""
    found.facts |= {"study": study.study.name, "study_sha256": study.sha256}
    with found.gathering():
        check_labels(records, study.class_names, str(site.data.manifest))
    named = {finding for record in records for finding in record.findings}
    unknown = sorted(named - set(study.finding_names))
    if unknown:
        found.notes.append(f"findings the study does not name are passed over: {unknown}")
    with found.gathering():
        check_shots(found, site, study)
    with found.gathering():
        tower = adapted_tower(study, site.data.weights, torch.device("cpu"), site.data.hubs)
        found.facts |= {"image_tower": tower.tower.fingerprint, "preprocess": told(tower.tower)}
        check_regions(site, study, tower)
        if "train" in found.facts:
            rows = (found.facts[role] for role in ("train", "test", "rest"))
            check_space(found, site.data.cache, cache_bytes(study, tower, *rows))


def check_shots(found: Preflight, site: Site, study: Study) -> None:
    """Say what the images are for, as drawn or as a run would draw them, and what is lacking.

    Raises:
        DataError: Patients on both sides of the manifest's split.
    """
    assigned = site_roles(site, study, keep=False)
    drawn = Counter(record.label for record in assigned.shots)
    found.facts["shots"] = {name: drawn[name] for name in study.class_names}
    roles = {"train": assigned.train, "test": assigned.test, "rest": assigned.rest}
    found.facts |= {role: len(rows) for role, rows in roles.items()}
    found.notes += [note.here for note in assigned.notes]
    if assigned.withdrawn:
        found.notes.append(
            f"{assigned.withdrawn} patients have withdrawn since the study was drawn here"
        )
    if not assigned.shots:
        found.notes.append("has no labelled training image: takes part in stage 1 only")


def check_regions(site: Site, study: Study, tower: AdaptedTower) -> None:
    """Run the region method once, on an empty image.

    Raises:
        CheckpointError: Weights of the method that are missing or of another model.
    """
    regions, size = study.regions, tower.tower.preprocess.size
    data, cpu = site.data, torch.device("cpu")
    method = region_method(study, data.weights, tower.tower, cpu, data.hubs)
    empty = torch.zeros(3, size, size, dtype=torch.uint8)
    for image in track([empty], f"trying regions.method = {regions.method}"):
        extract(method, image, None, regions.count)


def cache_bytes(study: Study, tower: AdaptedTower, train: int, test: int, rest: int = 0) -> int:
    """What a run puts into the cache at most: pixels, and the frozen part's output in every view.

    The site has `train` rows to learn from, `test` held-out ones, and `rest` rows beyond the shots
    that a known prevalence is used with.
    """
    size, grid, count = tower.tower.preprocess.size, tower.tower.grid, study.regions.count
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    hidden = tower.frozen(pixels, torch.zeros(1, count, grid, grid))
    view = hidden.numel() * (1 if hidden.dtype == torch.uint8 else 2)  # else float16
    regions = 2 * count * grid**2
    pool = min(train, study.pretraining.max_images)
    shots = min(train, study.alignment.shots * len(study.classes))
    alignment = study.alignment
    tested = 1 + alignment.flip_at_test + alignment.region_view
    shown = max(alignment.views, tested) if alignment.region_view else alignment.views
    views = pool + (test + rest) * tested + shots * shown
    return (min(train, pool + shots + rest) + test) * pixels.numel() + views * (view + regions)


def check_space(found: Preflight, cache: Path, needed: int) -> None:
    """Compare what the cache may need with what its disk has.

    Raises:
        StorageError: There is less, and the cache does not hold part of it already.
    """
    present = sum(file.stat().st_size for file in cache.rglob("*.safetensors"))
    free = shutil.disk_usage(cache).free if cache.is_dir() else 0
    found.facts["cache"] = {"needed": needed, "present": present, "free": free}
    if needed > present + free:
        raise StorageError(
            f"{cache}: a run may need {size_words(needed)} there, {size_words(free)} are free: "
            "free space, or name a folder on another disk in data.cache"
        )
