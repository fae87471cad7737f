"""Gain: what joining gives each site, alone → shared → personal, on its own test patients.

A hospital joins if it gains. So no mean over sites hides one that loses: every site has a line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hica.method.metrics import accuracy, balanced_accuracy, macro_auroc
from hica.steps.evaluation import FINAL
from hica.steps.personal import kept_logits
from hica.steps.predictions import probabilities_of
from hica.storage import write_atomically
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
SHOWN = {
    "accuracy": ("accuracy", accuracy),
    "balanced_accuracy": ("balanced", balanced_accuracy),
    "auroc": ("AUROC", macro_auroc),
}
MEAN = "mean over sites"
BLUE, GREY = "#0072b2", "#b4bdc6"


def variants(_: Scenario) -> Mapping[str, Variant]:
    """One run gives all three models."""
    return {PERSONAL: Variant({"personal": {"epochs": PersonalSection().epochs}})}


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


cells = Comparison("", PERSONAL, variants, measure=measured).cells


def write(rows: Sequence[Row], out: Path) -> str:
    """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
    write_csv(rows, out / "table.csv")
    groups = dict.fromkeys((row["study"], row["shots"]) for row in rows)
    lines = [line for study, shots in groups for line in _lines(rows, study, shots, out)]
    header = ["study", "shots", "site"]
    for title, _ in SHOWN.values():
        header += [f"{title}: {' → '.join(MODELS)}", "personal - alone"]
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


def _lines(rows: Sequence[Row], study: str, shots: int, out: Path) -> list[list[str]]:
    """A line a site, and their mean."""
    found = {model: found_of(rows, study, shots, model, out) for model in MODELS}
    if not found[ALONE]:
        return [[study, str(shots), "–", *["–"] * (2 * len(SHOWN))]]
    sites = list(dict.fromkeys(found[ALONE][0].sites))
    lines = []
    for site in [*sites, MEAN]:
        line = [study, str(shots), site]
        for metric in SHOWN:
            values = {
                model: [_value(each, site, sites, metric) for each in every]
                for model, every in found.items()
            }
            line.append(" → ".join(f"{100 * np.mean(values[model]):.1f}" for model in MODELS))
            spread = points(seeds_interval(values[PERSONAL], values[ALONE]))
            if site != MEAN:
                pairs: list[Pair] = [
                    (at(one, site), at(other, site))
                    for one, other in zip(found[PERSONAL], found[ALONE], strict=True)
                ]
                spread += f", {points(patients_interval(pairs, metric), value=False)}"
            line.append(spread)
        lines.append(line)
    return lines


def found_of(
    rows: Sequence[Row], study: str, shots: int, model: str, out: Path
) -> list[Predictions]:
    """Predictions of a model for every seed; none where one could not be run."""
    found = []
    for row in rows_of(rows, study, shots, PERSONAL):
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
    """A metric at one site, or its mean over the sites."""
    if site == MEAN:
        return float(np.nanmean([_value(found, each, sites, metric) for each in sites]))
    here = at(found, site)
    return float(SHOWN[metric][1](here.probabilities, here.labels))


def plot(rows: Sequence[Row], out: Path) -> None:
    """A panel a study and number of shots: AUROC of each site, alone and personal."""
    groups = list(dict.fromkeys((row["study"], row["shots"]) for row in rows))
    figure = Figure(figsize=(4.2 * len(groups), 3.2), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (study, shots) in zip(panels, groups, strict=True):
        found = {model: found_of(rows, study, shots, model, out) for model in (ALONE, PERSONAL)}
        axes.set_title(f"{study}, {shots} shot{'s' if shots > 1 else ''}", fontsize=9)
        axes.set_ylabel("AUROC, %")
        axes.grid(color="#edf0f3", axis="y")
        axes.spines[["top", "right"]].set_visible(False)
        if not found[ALONE]:
            continue
        sites = list(dict.fromkeys(found[ALONE][0].sites))
        for model, shift, colour in ((ALONE, -0.2, GREY), (PERSONAL, 0.2, BLUE)):
            heights = [
                100 * np.mean([_value(each, site, sites, "auroc") for each in found[model]])
                for site in sites
            ]
            axes.bar(np.arange(len(sites)) + shift, heights, 0.38, color=colour, label=model)
        axes.set_xticks(range(len(sites)), sites, fontsize=8)
        axes.set_ylim(50, 100)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(out / "table.png", dpi=110)
