"""Partitions: each site's own folder and manifest, cut from public data or drawn phantoms.

    out/sites/NAME/manifest.csv   image,label,patient_id,split,mask,findings,report,dup_group
    out/sites/NAME/source         link to the folder the images lie in
    out/sites/NAME/masks/         masks that `simulation.masks` damaged

Images are named through the link, so that manifests, and the episodes drawn from them by name,
are the same on any machine. Parts and tests are drawn from `simulation.split_seed` alone: runs of
other study seeds draw other episodes and share their test images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hica.errors import DataError, StorageError
from hica.images.episodes import draw_episode, split_by_group
from hica.images.manifest import Record, read_manifest, write_manifest
from hica.seeds import derived_seed
from hica.study import Study
from hica_simulations.held_rows import check_disjoint, held_rows, matching_names, source_manifests
from hica_simulations.labelling import with_labels
from hica_simulations.masks import with_damaged_masks
from hica_simulations.scenario import POOLED, Scenario, Simulation, SiteSource


@dataclass(frozen=True)
class SiteFolder:
    """A site's place on disk.

    Attributes:
        name: The site's name.
        manifest: File of its rows, each of split `train` or `test`.
        labelled: Training rows with a label, from which episodes are drawn.
        test: Test rows.
        prevalence: Share of each class among the training rows; empty where it is not known.
    """

    name: str
    manifest: Path
    labelled: int
    test: int
    prevalence: Mapping[str, float] = field(default_factory=dict)


def build_sites(
    scenario: Scenario, data: Path, out: Path, cache: Path | None = None
) -> list[SiteFolder]:
    """Write `out/sites/NAME/manifest.csv` for every site of a scenario.

    The sites' manifests lie below `data`; phantoms are kept between runs in `cache`, without it in
    `out`.

    Raises:
        ConfigurationError: `data` or a manifest is missing, a column does not exist, or two sites
            share images.
        DataError: A site is left without rows; whatever is wrong with a manifest, or with an image
            or mask where masks are damaged.
    """
    study, simulation = scenario.study, scenario.simulation
    sources = source_manifests(simulation, data, (cache or out) / "phantoms")
    held = {site.name: held_rows(site, simulation, sources[site.name]) for site in simulation.sites}
    check_disjoint(held, sources)
    seen = [name for name in study.class_names if name not in simulation.unseen]
    folders = []
    for site in simulation.sites:
        records = _with_split(site, simulation, held[site.name], sources[site.name])
        records = _without_unseen(site, simulation, records)
        prevalence = _prevalence(simulation, records, study.class_names)
        records = _with_noise(records, site.label_noise, seen, simulation.split_seed)
        if not site.labelled:
            records = [r if r.split == "test" else replace(r, label=None) for r in records]
        folder = out / "sites" / site.name
        records = _seen_through(folder / "source", sources[site.name].parent, records)
        places = data, cache or out / "cache"
        records = with_labels(site.name, records, study, simulation.labelling, places)
        kept = records if simulation.unlabelled else _shots_and_test(records, study)
        damage = (simulation.masks, simulation.mask_damage, simulation.split_seed)
        kept = with_damaged_masks(kept, records, *damage, folder / "masks")
        written = _written(site.name, folder / "manifest.csv", kept)
        folders.append(replace(written, prevalence=prevalence))
    return folders


def pooled_folders(folders: Sequence[SiteFolder], study: Study, out: Path) -> list[SiteFolder]:
    """The pooled baseline's site, with all training images, then the sites that have test rows.

    The site `pooled` holds every site's training rows; labelled are exactly the shots of the
    sites' own episodes, so run it with `alignment.shots` of at least `study.alignment.shots` times
    the number of sites. The sites themselves keep their test rows only. Groups carry their site's
    name, so that patients of different sites stay different.

    The folders are those of `build_sites`, the study is that of the federated run, whose classes,
    shots and seed draw the episodes, and `out` is the baseline's run directory.
    """
    together: list[Record] = []
    tested: list[SiteFolder] = []
    for folder in folders:
        records = read_manifest(folder.manifest)
        link = out / "sites" / POOLED / folder.name
        shots = set(_episode_names(records, study))
        train = [
            replace(
                record,
                label=record.label if record.name in shots else None,
                group=f"{folder.name}/{record.group}",
                patient_id=f"{folder.name}/{record.patient_id}" if record.patient_id else None,
            )
            for record in records
            if record.split == "train"
        ]
        together += _seen_through(link, folder.manifest.parent, train)
        if folder.test:
            home = out / "sites" / folder.name
            rows = [record for record in records if record.split == "test"]
            linked = _seen_through(home / "site", folder.manifest.parent, rows)
            tested.append(_written(folder.name, home / "manifest.csv", linked))
    return [_written(POOLED, out / "sites" / POOLED / "manifest.csv", together), *tested]


# --- Training and test ---------------------------------------------------------------------------


def _with_split(
    site: SiteSource, simulation: Simulation, records: Sequence[Record], manifest: Path
) -> list[Record]:
    """Rows marked `train` or `test`; what is not tested but of a tested group is left out."""
    labelled = [record for record in records if record.label]
    if site.test_where:
        official = matching_names(site, "test_where", site.test_where, manifest)
        test = {record.name for record in labelled} & official
        if not test:
            raise DataError(
                f"simulation.sites {site.name}: test_where = {site.test_where} leaves no test row "
                f"of {manifest}; correct it, or take it out to hold out a share of the groups"
            )
    else:
        _, held_out = split_by_group(labelled, simulation.test_fraction, simulation.split_seed)
        test = {labelled[index].name for index in held_out}
    groups = {record.group for record in records if record.name in test}
    return [
        replace(record, split="test" if record.name in test else "train")
        for record in records
        if record.name in test or record.group not in groups
    ]


def _without_unseen(
    site: SiteSource, simulation: Simulation, records: Sequence[Record]
) -> list[Record]:
    """Rows without training images of unseen classes, which would teach as unlabelled ones, too."""
    left = [r for r in records if r.split == "test" or r.label not in simulation.unseen]
    if not left:
        raise DataError(
            f"simulation.sites {site.name}: all its rows are for training and of classes that "
            f"simulation.unseen = {simulation.unseen} leaves out; raise simulation.test_fraction, "
            "give the site other rows, or take it out"
        )
    return left


def _prevalence(
    simulation: Simulation, records: Sequence[Record], classes: Sequence[str]
) -> dict[str, float]:
    """Shares of the classes among the labelled training rows, where sites know them."""
    counts = Counter(record.label for record in records if record.split == "train" and record.label)
    if simulation.prevalence == "unknown" or not counts:
        return {}
    return {name: counts[name] / counts.total() for name in classes}


def _with_noise(
    records: Sequence[Record], share: float, classes: Sequence[str], seed: int
) -> list[Record]:
    """Rows of which a share of the labelled training ones has another of `classes`.

    What is wrong with a smaller share is wrong with a larger one, too, and in the same way.
    """
    labelled = [r.name for r in records if r.split == "train" and r.label in classes]
    labelled.sort(key=lambda name: (derived_seed(seed, "noisy row", name), name))
    noisy = set(labelled[: round(share * len(labelled))])

    def another(record: Record) -> str:
        others = [name for name in classes if name != record.label]
        return others[derived_seed(seed, "noisy label", record.name) % len(others)]

    return [replace(r, label=another(r)) if r.name in noisy else r for r in records]


def _shots_and_test(records: Sequence[Record], study: Study) -> list[Record]:
    """Rows without the training images beyond the episode."""
    shots = set(_episode_names(records, study))
    return [record for record in records if record.split == "test" or record.name in shots]


def _episode_names(records: Sequence[Record], study: Study) -> list[str]:
    """Images of the episode a site draws from its manifest."""
    train = [record for record in records if record.split != "test"]
    episode = draw_episode(train, study.class_names, study.alignment.shots, study.study.seed)
    return [train[index].name for index in episode.indices]


# --- On disk -------------------------------------------------------------------------------------


def _seen_through(link: Path, folder: Path, records: Sequence[Record]) -> list[Record]:
    """Records with files and names through `link`, made beside their manifest, to `folder`."""
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except OSError as error:
        raise StorageError(
            f"{link}: cannot be made: {error.strerror or error}; choose an --out that may be "
            "written and where links can be made"
        ) from error

    home = link.parent

    def through(file: Path) -> Path:
        return link / file.relative_to(folder) if file.is_relative_to(folder) else file

    def as_written(file: Path) -> str:  # in the manifest; what episodes are drawn by
        return (file.relative_to(home) if file.is_relative_to(home) else file).as_posix()

    return [
        replace(
            record,
            image=through(record.image),
            name=as_written(through(record.image)),
            mask=through(record.mask) if record.mask else None,
        )
        for record in records
    ]


def _written(name: str, manifest: Path, records: Sequence[Record]) -> SiteFolder:
    write_manifest(manifest, records)
    labelled = sum(record.split == "train" and record.label is not None for record in records)
    test = sum(record.split == "test" for record in records)
    return SiteFolder(name, manifest, labelled, test)
