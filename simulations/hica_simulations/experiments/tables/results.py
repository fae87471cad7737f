"""docs/results.md: every table of it, rebuilt from nothing by one command.

The page's words are written by people, who have to read the new numbers; its tables lie between two
comments that name them, and are put there by `rebuild`:

    <!-- table: NAME -->
    <!-- end -->
"""

import re
import shutil
from collections.abc import Callable, Hashable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Changes, merged
from hica_simulations.experiments.baselines.registry import NAMES
from hica_simulations.experiments.tables import table_named
from hica_simulations.experiments.tables.cells import (
    LOCAL,
    OURS,
    POOLED,
    Cell,
    copy_cell,
    folder_of,
    is_finished,
)
from hica_simulations.experiments.tables.per_site import AS_IS
from hica_simulations.experiments.tables.run_cells import run_cells
from hica_simulations.place import Place

LESIONS, BREAST = "breast_lesions", "breast_ultrasound"
PNEUMONIA, KINDS, TUBERCULOSIS = "pneumonia", "pneumonia_kinds", "tuberculosis"
PHANTOMS, CHEST = "phantoms", "chest_xray"
EVERY = (LESIONS, BREAST, PNEUMONIA, KINDS, TUBERCULOSIS)

LORA = "clip_lora"
FAST = (OURS, LOCAL, POOLED, *(name for name in NAMES if name not in ("pixels", LORA)))

TIMED = "efficiency"
FIRST_SEED = 40
"""Settings were chosen on other seeds: 0 to 2, 7, 8, 20 to 24 and 100 to 104."""
SEEDS = 5


@dataclass(frozen=True)
class Part:
    """One table of the page.

    Attributes:
        name: Between which comments it goes, and what its folder and picture are called.
        table: One of `hica_simulations.experiments.tables.TABLES`.
        studies: Files of `simulations/studies`, without suffix.
        shots: Labelled images of each class and site.
        seeds: Number of seeds.
        methods: Lines of it; all without.
        changes: Settings of all, which a line's own go before.
    """

    name: str
    table: str
    studies: tuple[str, ...]
    shots: tuple[int, ...] = (20,)
    seeds: int = SEEDS
    methods: tuple[str, ...] = ()
    changes: Changes = field(default_factory=dict)


TERMS = ("without the local term", "without the cross-class term")
"""The terms that the paper's Table II leaves out; stage 1 is the third part of that table."""

ALL = 1000
"""Shots: more than any class has, so a site learns from all its images."""

PARTS = (
    Part("main", "main", EVERY, (1, 2, 4, 8, 16, 20), methods=FAST),
    Part(
        "gain", "gain", (CHEST, BREAST, TUBERCULOSIS, PNEUMONIA, LESIONS), (4, 20), methods=(AS_IS,)
    ),
    Part("joined", "joined", (CHEST,), (4, 20)),
    Part("coverage", "coverage", (CHEST, LESIONS), (4, 20)),
    Part("unlike", "gain", (LESIONS,), (4,)),
    Part("spoilt", "gain", (CHEST,)),
    Part("prevalence", "prevalence", (LESIONS,)),
    Part("suggest", "suggest", (LESIONS, PNEUMONIA, TUBERCULOSIS), (4,)),
    Part("terms", "ablation", EVERY, (4,), methods=(*TERMS, "with stage 1")),
    Part("all-labels", "main", (LESIONS,), (ALL,), 3, (OURS, "linear_probe", "cnn")),
    Part("ablation", "ablation", (LESIONS,), (4,), 3),
    Part("regions", "regions", (LESIONS,), (4,), 3),
    Part("text-noise", "text-noise", (LESIONS,), (4,), 3),
    Part("sensitivity", "sensitivity", (LESIONS,), (4,), 3),
    Part("descriptors", "descriptors", (LESIONS,), (4,), 3),
    Part("sites", "sites", (LESIONS,), (4,), 3),
    Part("unseen", "unseen", (BREAST,), (4,), 3),
    Part("terms-phantoms", "ablation", (PHANTOMS,), (15,), 3, (*TERMS, "without stage 1")),
    Part("clip-lora", "main", (LESIONS,), (20,), 3, (OURS, "linear_probe", LORA)),
    Part("efficiency", "efficiency", (LESIONS,), (4,), 1),
)


SLOW = {LOCAL, POOLED, *NAMES} - {"zero_shot", "nearest_mean", "linear_probe", "clap"}
"""Lines of the main table that need more than seconds."""


def quick(part: Part) -> Part:
    """`part` with two seeds, two numbers of shots, two rounds and one study: a check, no result."""
    methods = tuple(name for name in part.methods if name not in SLOW)
    less = {"alignment": {"rounds": 2}, "pretraining": {"max_images": 30}}
    return replace(
        part, studies=part.studies[:1], shots=(1, 2), seeds=2, methods=methods, changes=less
    )


def rebuild(
    parts: Iterable[Part],
    studies: Path,
    place: Place,
    page: Path,
    told: Callable[[int, str], None] = lambda *_: None,
    jobs: int = 1,
) -> None:
    """Run what is left of every table and put each into the page as soon as it is done.

    `place.out` gets a folder a table. The page is Markdown with the comments named above; pictures
    go beside it. `told` is called with the number of finished cells of all tables, and the last
    one; `jobs` are processes, one core each.

    Raises:
        ConfigurationError: The page has no place for a table.
        StorageError: The disk is full or a folder may not be written.
    """
    before = 0
    shared: dict[Hashable, Path] = {}
    for part in parts:
        module, out = table_named(part.table), place.out / part.name
        cells = cells_of(part, studies)
        copy_shared(cells, out, shared)

        def more(number: int, what: str, start: int = before, name: str = part.name) -> None:
            told(start + number, f"{name}: {what}")

        # Nothing else may compute where it is time that is measured.
        rows = run_cells(cells, replace(place, out=out), more, 1 if part.table == TIMED else jobs)
        before += len(cells)
        text = module.write(rows, out)
        picture = page.with_name(f"results-{part.name}.png")
        shutil.copyfile(out / "table.png", picture)
        put_into(page, part.name, f"{text}\n![{part.name}]({picture.name})\n")


def cells_of(part: Part, studies: Path) -> list[Cell]:
    """All runs of a table of the page."""
    files = [studies / f"{name}.toml" for name in part.studies]
    seeds = range(FIRST_SEED, FIRST_SEED + part.seeds)
    cells = table_named(part.table).cells(files, part.shots, seeds, part.methods)
    return [replace(cell, changes=merged(part.changes, cell.changes)) for cell in cells]


def copy_shared(cells: Iterable[Cell], out: Path, shared: MutableMapping[Hashable, Path]) -> None:
    """Copy runs that an earlier table has made: most tables have the study's own recipe as a line.

    The folders of the runs of the tables before are `shared`, to which this table's are added.
    """
    for cell in cells:
        folder = folder_of(out, cell)
        # What measures further columns leaves more than other runs of the same settings.
        what = (cell.study, cell.method, cell.settings, cell.measure)
        earlier = shared.setdefault(what, folder)
        if is_finished(earlier) and not is_finished(folder):
            copy_cell(earlier, folder)


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what lies between the comments of a table.

    Raises:
        ConfigurationError: The page does not exist or has no such comments.
    """
    begin, end = f"<!-- table: {name} -->", "<!-- end -->"
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", old, re.DOTALL)
    if found is None:
        raise ConfigurationError(
            f"{page}: has no place for the table {name!r}; write a line {begin} and below it a "
            f"line {end} where it shall be"
        )
    new = f"{old[: found.start()]}{begin}\n\n{text}\n{end}{old[found.end() :]}"
    write_atomically(page, new.encode())


def parts_named(names: Sequence[str]) -> list[Part]:
    """Parts of the page; all without names.

    Raises:
        ConfigurationError: There is no such part.
    """
    known = {part.name: part for part in PARTS}
    for name in names:
        if name not in known:
            raise ConfigurationError(f"--parts {name}: the page's tables are {', '.join(known)}")
    return [known[name] for name in names or known]
