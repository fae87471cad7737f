"""preflight_study: whether a site's images, weights and disk fit the study."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hica.cohort.region_method import region_method
from hica.errors import StorageError
from hica.images.manifest import Record
from hica.images.manifest_checks import check_labels
from hica.printable import size_words
from hica.progress import track
from hica.regions import extract
from hica.study import Study
from hica.towers.adaptation import AdaptedTower
from hica.towers.from_study import adapted_tower
from hica.towers.preprocessing import told
from hica_client.contact_sheet import Shown
from hica_client.draws import site_roles
from hica_client.preflight_report import Preflight
from hica_client.site import Site


def check_study(
    found: Preflight, site: Site, study: Study, records: Sequence[Record]
) -> Shown | None:
    """Labels, shots, weights, regions and disk, against what the study asks for.

    Gives how the model is shown an image; None where that cannot be said.
    """
    found.facts |= {"study": study.study.name, "study_sha256": study.sha256}
    with found.gathering():
        check_labels(records, study.class_names, str(site.data.manifest))
    named = {finding for record in records for finding in record.findings}
    unknown = sorted(named - set(study.finding_names))
    if unknown:
        found.notes.append(f"findings the study does not name are passed over: {unknown}")
    with found.gathering():
        check_shots(found, site, study)
    shown: Shown | None = None
    with found.gathering():
        tower = adapted_tower(study, site.data.weights, torch.device("cpu"), site.data.hubs)
        found.facts |= {"image_tower": tower.tower.fingerprint, "preprocess": told(tower.tower)}
        shown = check_regions(site, study, tower)
        if "train" in found.facts:
            rows = (found.facts[role] for role in ("train", "test", "rest"))
            check_space(found, site.data.cache, cache_bytes(study, tower, *rows))
    return shown


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
    found.notes += absent_classes(study.class_names, roles)
    if not assigned.shots:
        found.notes.append("has no labelled training image: takes part in stage 1 only")


def absent_classes(classes: Sequence[str], roles: Mapping[str, Sequence[Record]]) -> list[str]:
    """Note classes that no image is of: none at all, or none of those that are held out."""
    here, held = ({row.label for row in roles[side]} - {None} for side in ("train", "test"))
    nowhere = [name for name in classes if name not in here | held]
    notes = []
    if nowhere and here | held:
        notes.append(
            f"no image here is of {', '.join(nowhere)}: this site can neither teach nor test that"
        )
    untested = [name for name in classes if held and name in here - held]
    if untested:
        alone = " and holds out one class only" if len(held) == 1 else ""
        notes.append(
            f"holds out no image of {', '.join(untested)}{alone}: how well the model "
            "tells these here, nobody will know"
        )
    return notes


def check_regions(site: Site, study: Study, tower: AdaptedTower) -> Shown:
    """Run the region method once, on an empty image; gives how the model is shown an image.

    Raises:
        CheckpointError: Weights of the method that are missing or of another model.
    """
    regions, size = study.regions, tower.tower.preprocess.size
    data, cpu = site.data, torch.device("cpu")
    method = region_method(study, data.weights, tower.tower, cpu, data.hubs)
    empty = torch.zeros(3, size, size, dtype=torch.uint8)
    for image in track([empty], f"trying regions.method = {regions.method}"):
        extract(method, image, None, regions.count)
    return Shown(study.study.name, tower.tower.preprocess, method, regions.count, regions.method)


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
