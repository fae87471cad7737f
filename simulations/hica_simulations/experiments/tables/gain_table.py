"""Gain: what joining gives each site, alone → shared → personal, on its own test patients.

A hospital joins if it gains. So no mean over sites hides one that loses: every site has a line.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hica.method.metrics import accuracy, macro_auroc
from hica.steps.evaluation import FINAL
from hica.steps.personal import kept_logits
from hica.steps.predictions import probabilities_of
from hica.storage import write_atomically
from hica.study import Changes, merged
from hica.study.sections import PersonalSection
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.experiments.pages import Table, markdown, points, write_csv, write_page
from hica_simulations.experiments.tables.cells import Cell, Row, folder_of
from hica_simulations.experiments.tables.comparison import Comparison, Variant, rows_of
from hica_simulations.experiments.tables.statistics import (
    Pair,
    patients_interval,
    seeds_interval,
)
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions, joined, of_site
from hica_simulations.run import sources_of
from hica_simulations.scenario import Scenario

ALONE, SHARED, PERSONAL = MODELS = ("alone", "shared", "personal")
SHOWN = {"accuracy": ("accuracy", accuracy), "auroc": ("AUROC", macro_auroc)}
TOGETHER, MEAN = "all images together", "mean over sites"
BLUE, GREY = "#0072b2", "#b4bdc6"
Group = tuple[str, int, str]
"""A study, a number of shots, and what its sites are like."""
AS_IS = "as it is"
SKEWS = (1.0, 0.3, 0.1)
"""α of the Dirichlet distribution that labels are shared out by."""
WRONG = {"of 1st site at random": 0.5, "of 1st site wrong": 1.0}
"""Share of one site's labels of two classes that are made wrong."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """A study as it is, and made harder; one run gives all three models."""
    sites, classes = scenario.simulation.sites, len(scenario.study.classes)
    found: dict[str, Changes] = {AS_IS: {}}
    if all(site.part for site in sites):
        sizes = [2**place for place in reversed(range(len(sites)))]
        found |= {f"label skew, α = {alpha:g}": {"simulation": {"skew": alpha}} for alpha in SKEWS}
        found["sizes " + ":".join(map(str, sizes))] = {"simulation": {"sizes": sizes}}
    if classes == 2:  # with more, that share of wrong labels would not be chance
        for name, share in WRONG.items():
            spoilt = [site.model_dump(mode="json", exclude_defaults=True) for site in sites]
            spoilt[0]["label_noise"] = share
            found[f"labels {name}"] = {"simulation": {"sites": spoilt}}
    own = {"personal": {"epochs": PersonalSection().epochs}}
    return {name: Variant(merged(own, changes)) for name, changes in found.items()}


def measured(scenario: Scenario, place: Place, _: Mapping[str, Any]) -> dict[str, Any]:
    """Leave what each model says of the test images beside the cell's run."""
    parts: dict[str, list[Predictions]] = {model: [] for model in MODELS}
    for path in sorted((place.out / "sites").glob("*/site.toml")):
        session = Session(load_site(path), scenario.study)
        own = kept_logits(session) if session.roles.test else None
        if own is None:
            continue
        final = session.kept(FINAL)
        found = (probabilities_of(own["alone"]), final["shared"], final["probabilities"])
        for model, rows in zip(MODELS, found, strict=True):
            parts[model].append(of_site(session, rows, final["labels"], sources_of(scenario)))
    for model, every in parts.items():
        joined(every).save(place.out.parent / f"{model}.json")
    return {}


cells = Comparison("", AS_IS, variants, measure=measured).cells


def write(rows: Sequence[Row], out: Path) -> str:
    """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
    write_csv(rows, out / "table.csv")
    groups = dict.fromkeys((row["study"], row["shots"], row["method"]) for row in rows)
    lines = [line for group in groups for line in _lines(rows, group, out)]
    header = ["study", "shots", "sites", "site"]
    for title, _ in SHOWN.values():
        header += [f"{title}: {' → '.join(MODELS)}"]
        header += [f"{PERSONAL} - {other}" for other in (ALONE, SHARED)]
    table, note = Table(header, lines), note_of(rows)
    failed = dict.fromkeys(
        f"- {row['study']}, {row['shots']} shots: {row['error']}\n" for row in rows if row["error"]
    )
    reasons = f"\nCould not be run:\n\n{''.join(failed)}" if failed else ""
    text = f"{markdown(table)}\n{note}\n{reasons}"
    write_atomically(out / "table.md", text.encode())
    plot(rows, out)
    write_page(out / "report.html", "What joining gives", table, out / "table.png", note)
    return text


def note_of(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return (
        f"Seeds {seeds}: means over them, in per cent, on each site's own test images. Differences "
        "in points, paired: first over seeds (95 % t-interval), then over patients (95 % "
        "bootstrap). The mean over sites is of their differences, and has no interval over "
        "patients."
    )


def _lines(rows: Sequence[Row], group: Group, out: Path) -> list[list[str]]:
    """A line a site, one of all images together, and the mean over sites."""
    found = {model: found_of(rows, group, model, out) for model in MODELS}
    study, shots, method = group
    if not found[ALONE]:
        return [[study, str(shots), method, "–", *["–"] * (3 * len(SHOWN))]]
    sites = list(dict.fromkeys(found[ALONE][0].sites))
    lines = []
    for site in [*sites, TOGETHER, MEAN]:
        line = [study, str(shots), method, site]
        for metric in SHOWN:
            values = {
                model: [_value(each, site, sites, metric) for each in every]
                for model, every in found.items()
            }
            line.append(" → ".join(_mean(values[model]) for model in MODELS))
            for other in (ALONE, SHARED):
                pairs = list(zip(found[PERSONAL], found[other], strict=True))
                line.append(_difference(values[PERSONAL], values[other], pairs, site, metric))
        lines.append(line)
    return lines


def _mean_of_known(values: Sequence[float]) -> float:
    """Over what has a value; NaN without any: a class may be missing in a skewed site's test."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _mean(values: Sequence[float]) -> str:
    mean = _mean_of_known(values)
    return "–" if np.isnan(mean) else f"{100 * mean:.1f}"


def _difference(
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


def _value(found: Predictions, site: str, sites: Sequence[str], metric: str) -> float:
    """A metric at one site, of all images, or its mean over the sites that have one."""
    if site == MEAN:
        return _mean_of_known([_value(found, each, sites, metric) for each in sites])
    here = found if site == TOGETHER else at(found, site)
    return float(SHOWN[metric][1](here.probabilities, here.labels))


def plot(rows: Sequence[Row], out: Path) -> None:
    """A panel a study, number of shots and variant: AUROC of each site, alone and personal."""
    groups = list(dict.fromkeys((row["study"], row["shots"], row["method"]) for row in rows))
    across = min(len(groups), 4)
    down = -(-len(groups) // across)
    figure = Figure(figsize=(3.6 * across, 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for axes, group in zip_longest(panels, groups):
        if group is None:
            axes.set_axis_off()
            continue
        _panel(axes, group, {m: found_of(rows, group, m, out) for m in (ALONE, PERSONAL)})
    bars = [Patch(color=GREY, label=ALONE), Patch(color=BLUE, label=PERSONAL)]
    figure.legend(handles=bars, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(out / "table.png", dpi=110)


def _panel(axes: Axes, group: Group, found: Mapping[str, Sequence[Predictions]]) -> None:
    """Two bars a site."""
    study, shots, method = group
    what = "" if method == AS_IS else f"\n{method}"
    axes.set_title(f"{study}, {shots} shot{'s' if shots > 1 else ''}{what}", fontsize=9)
    axes.set_ylabel("AUROC, %")
    axes.grid(color="#edf0f3", axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not found[ALONE]:
        return
    sites = list(dict.fromkeys(found[ALONE][0].sites))
    for model, shift, colour in ((ALONE, -0.2, GREY), (PERSONAL, 0.2, BLUE)):
        values = [[_value(each, site, sites, "auroc") for each in found[model]] for site in sites]
        heights = [100 * _mean_of_known(part) for part in values]  # no bar where there is none
        axes.bar(np.arange(len(sites)) + shift, heights, 0.38, color=colour)
    axes.set_xticks(range(len(sites)), sites, fontsize=8)
    axes.set_ylim(50, 100)
