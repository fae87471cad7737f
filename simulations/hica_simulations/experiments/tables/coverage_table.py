"""Coverage: how often the classes in question hold the right one, at each site.

The sets are those of `hica-client predict`, of each site's personal model, calibrated on four
fifths of its held-out patients and counted on the fifth.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hica.storage import write_atomically
from hica_client.prediction.held_out import Checked, HeldOut, cross_checked
from hica_simulations.experiments.pages import Table, markdown, write_csv, write_page
from hica_simulations.experiments.tables.cells import Row
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.gain_table import PERSONAL, measured
from hica_simulations.experiments.tables.gain_table import variants as harder
from hica_simulations.experiments.tables.per_site import AS_IS, at, found_of
from hica_simulations.predictions import Predictions
from hica_simulations.scenario import Scenario

COVERAGE = 0.9
TOGETHER = "all sites"


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The study as the table of the gain has it."""
    return {AS_IS: harder(scenario)[AS_IS]}


cells = Comparison("", AS_IS, variants, measure=measured).cells


def write(rows: Sequence[Row], out: Path) -> str:
    """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
    write_csv(rows, out / "table.csv")
    groups = dict.fromkeys((row["study"], row["shots"]) for row in rows)
    found = {group: checked_at(found_of(rows, (*group, AS_IS), PERSONAL, out)) for group in groups}
    lines = [line for group, sites in found.items() for line in _lines(*group, sites)]
    header = ["study", "shots", "site", "patients", "covered", "one class", "within 95 %"]
    table, note = Table(header, lines), note_of(rows)
    text = f"{markdown(table)}\n{note}\n"
    write_atomically(out / "table.md", text.encode())
    _plot(found, out / "table.png")
    write_page(out / "report.html", "Coverage of prediction sets", table, out / "table.png", note)
    return text


def note_of(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return (
        f"Seeds {seeds}. Covered: share of the patients' images, in per cent, whose set holds the "
        f"right class, promised {100 * COVERAGE:g}; one class: share whose set is one class. Means "
        "over seeds; within 95 %: in how many of them the share lies in the binomial interval of "
        "the promise for as many patients."
    )


def checked_at(predictions: Sequence[Predictions]) -> dict[str, list[Checked]]:
    """What comes of the sets at each site, seed by seed; sites of too few patients have none."""
    found: dict[str, list[Checked]] = {}
    for each in predictions:
        for site in dict.fromkeys(each.sites):
            here = at(each, site)
            logits = np.log(np.clip(here.probabilities, 1e-12, 1.0))
            checked = cross_checked(
                HeldOut(logits, here.labels, here.groups, np.zeros(len(logits))), COVERAGE
            )
            if checked is not None:
                found.setdefault(site, []).append(checked)
    return found


def _lines(study: str, shots: int, sites: Mapping[str, Sequence[Checked]]) -> list[list[str]]:
    """A line a site, and one of all, in which each patient counts once."""
    lines = [
        [study, str(shots), site, *_numbers(found), _within(found)] for site, found in sites.items()
    ]
    every = [checked for found in sites.values() for checked in found]
    return (
        [*lines, [study, str(shots), TOGETHER, *_numbers(every), _within(every)]] if every else []
    )


def _numbers(found: Sequence[Checked]) -> list[str]:
    patients = [each.patients for each in found]
    shares = ([each.covered for each in found], [each.single for each in found])
    means = [f"{100 * float(np.average(share, weights=patients)):.1f}" for share in shares]
    return [f"{np.mean(patients):.0f}", *means]


def _within(found: Sequence[Checked]) -> str:
    """In how many of them the coverage is one that chance gives."""
    from scipy import stats

    inside = 0
    for each in found:
        low, high = stats.binom.interval(0.95, each.patients, COVERAGE)
        inside += bool(low <= each.covered * each.patients <= high)
    return f"{inside} of {len(found)}"


def _plot(found: Mapping[tuple[str, int], Mapping[str, Sequence[Checked]]], path: Path) -> None:
    """A dot a site and seed, beside the promise."""
    names, values = [], []
    for (study, shots), sites in found.items():
        for site, every in sites.items():
            names.append(f"{study}, {shots} shots: {site}")
            values.append([100 * each.covered for each in every])
    figure = Figure(figsize=(6.4, 0.8 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(values):
        axes.plot(row, [place] * len(row), "o", color="#0072b2", markersize=4, alpha=0.7)
    axes.axvline(100 * COVERAGE, color="#1b2733", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("sets that hold the right class, %", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
