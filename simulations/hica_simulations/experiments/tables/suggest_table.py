"""Suggested labels: as many labels at each site, of images at random or of those suggested.

Nobody knows the class of an image before it is labelled, so both may find many of one class and few
of another. The line beside them, with as many labels of each class, takes what only who has
labelled all can give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hica.study import merged
from hica_simulations.experiments.tables.cells import Cell
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.scenario import Scenario

RANDOM, SUGGESTED, EACH_CLASS = "random labels", "suggested labels", "as many of each class"


def variants(_: Scenario) -> Mapping[str, Variant]:
    """Which images a site labels."""
    return {
        RANDOM: Variant({"simulation": {"labelling": "random"}}),
        SUGGESTED: Variant({"simulation": {"labelling": "suggested"}}),
        EACH_CLASS: Variant(),
    }


TABLE = Comparison(
    title="Suggested labels",
    reference=RANDOM,
    variants=variants,
    compared=("accuracy", "balanced_accuracy", "auroc"),
    remark=(
        "Shots: labels a class that each site gives on average, whatever classes they turn out to "
        "be of; suggestions are those of `hica-client suggest` before any training."
    ),
)


def cells(
    studies: Sequence[Path],
    shots: Sequence[int],
    seeds: Sequence[int],
    methods: Sequence[str] = (),
) -> list[Cell]:
    """All runs; see `Comparison.cells`. All labels that a site has given are its shots."""
    return [_with_all_labels(cell) for cell in TABLE.cells(studies, shots, seeds, methods)]


def _with_all_labels(cell: Cell) -> Cell:
    if cell.labels["method"] == EACH_CLASS:
        return cell
    labels = cell.labels["shots"] * len(cell.scenario().study.classes)
    return replace(cell, changes=merged(cell.changes, {"alignment": {"shots": labels}}))


write = TABLE.write
