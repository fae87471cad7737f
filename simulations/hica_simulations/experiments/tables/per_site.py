"""per_site: models compared at each site, of all images together, and on average over the sites."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hica.method.metrics import accuracy, macro_auroc
from hica_simulations.experiments.pages import points
from hica_simulations.experiments.tables.cells import Cell, Row, folder_of
from hica_simulations.experiments.tables.comparison import rows_of
from hica_simulations.experiments.tables.statistics import (
    Pair,
    patients_interval,
    seeds_interval,
)
from hica_simulations.predictions import Predictions

SHOWN = {"accuracy": ("accuracy", accuracy), "auroc": ("AUROC", macro_auroc)}
TOGETHER, MEAN = "all images together", "mean over sites"
AS_IS = "as it is"
COLOURS = ("#b4bdc6", "#0072b2", "#e69f00")
Group = tuple[str, int, str]
"""A study, a number of shots, and what its sites are like or a method."""


def mean_of_known(values: Sequence[float]) -> float:
    """Over what has a value; NaN without any: a class may be missing in a skewed site's test."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def mean_words(values: Sequence[float]) -> str:
    """In per cent."""
    mean = mean_of_known(values)
    return "–" if np.isnan(mean) else f"{100 * mean:.1f}"


def difference_words(
    ours: Sequence[float], theirs: Sequence[float], pairs: Sequence[Pair], site: str, metric: str
) -> str:
    """In points: mean, interval over seeds, and that over patients."""
    known = [number for number, value in enumerate(ours) if not np.isnan(value)]
    words = points(seeds_interval(*([part[n] for n in known] for part in (ours, theirs))))
    if site == MEAN or not known:
        return words
    if site != TOGETHER:
        pairs = [(at(one, site), at(other, site)) for one, other in pairs]
    of_patients = patients_interval([pairs[number] for number in known], metric)
    return f"{words}, {points(of_patients, value=False)}"


def found_of(rows: Sequence[Row], group: Group, model: str, out: Path) -> list[Predictions]:
    """Predictions of a model for every seed; none where one could not be run."""
    found = []
    for row in rows_of(rows, *group):
        labels = {name: row[name] for name in ("study", "shots", "method", "seed")}
        path = folder_of(out, Cell(labels, Path(), {})) / f"{model}.json"
        if row["error"] or not path.exists():
            return []
        found.append(Predictions.load(path))
    return found


def at(found: Predictions, site: str) -> Predictions:
    """Those of one site."""
    rows = [row for row, name in enumerate(found.sites) if name == site]
    return Predictions(
        found.probabilities[rows],
        found.labels[rows],
        [found.groups[row] for row in rows],
        [site] * len(rows),
        found.classes,
    )


def value_at(found: Predictions, site: str, sites: Sequence[str], metric: str) -> float:
    """A metric at one site, of all images, or its mean over the sites that have one."""
    if site == MEAN:
        return mean_of_known([value_at(found, each, sites, metric) for each in sites])
    here = found if site == TOGETHER else at(found, site)
    return float(SHOWN[metric][1](here.probabilities, here.labels))


def title_of(group: Group) -> str:
    """Of a panel of a picture."""
    study, shots, method = group
    what = "" if method == AS_IS else f"\n{method}"
    return f"{study}, {shots} shot{'s' if shots > 1 else ''}{what}"


def sites_plot(panels: Mapping[str, Mapping[str, Sequence[Predictions]]], path: Path) -> None:
    """Mean AUROC over the seeds at each site: a panel a title, a bar a model."""
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.6 * across, 2.9 * down), layout="constrained")
    for axes, title in zip_longest(figure.subplots(down, across, squeeze=False).flat, panels):
        if title is None:
            axes.set_axis_off()
            continue
        axes.set_title(title, fontsize=9)
        _bars(axes, panels[title])
    models = next(iter(panels.values()))
    bars = [
        Patch(color=colour, label=model) for colour, model in zip(COLOURS, models, strict=False)
    ]
    figure.legend(handles=bars, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, found: Mapping[str, Sequence[Predictions]]) -> None:
    """Bars of each site, one a model; none where a class is missing in its test."""
    axes.set_ylabel("AUROC, %")
    axes.grid(color="#edf0f3", axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not all(found.values()):
        return
    sites = list(dict.fromkeys(next(iter(found.values()))[0].sites))
    width = 0.8 / len(found)
    for number, (model, colour) in enumerate(zip(found, COLOURS, strict=False)):
        values = [[value_at(each, site, sites, "auroc") for each in found[model]] for site in sites]
        places = np.arange(len(sites)) + (number - (len(found) - 1) / 2) * width
        axes.bar(places, [100 * mean_of_known(part) for part in values], 0.95 * width, color=colour)
    axes.set_xticks(range(len(sites)), sites, fontsize=8)
    axes.set_ylim(50, 100)
