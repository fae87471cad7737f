"""Joined: each site's personal model beside models of all sites' shots in one place.

Images would have to be sent for the latter. What is lost by not sending them stands here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hica.storage import write_atomically
from hica_simulations.experiments.pages import Table, markdown, write_csv, write_page
from hica_simulations.experiments.tables.cells import Row
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.gain_table import PERSONAL, measured
from hica_simulations.experiments.tables.gain_table import variants as harder
from hica_simulations.experiments.tables.per_site import (
    AS_IS,
    MEAN,
    SHOWN,
    TOGETHER,
    difference_words,
    found_of,
    mean_words,
    sites_plot,
    title_of,
    value_at,
)
from hica_simulations.experiments.titles import TITLES
from hica_simulations.predictions import Predictions
from hica_simulations.scenario import Scenario

POOLED = ("linear_probe", "cnn")
"""The strongest of the baselines that see the shots of all sites."""
Models = Mapping[str, Sequence[Predictions]]
"""Predictions for every seed, by model."""


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The study as the table of the gain has it, and the baselines on pooled shots."""
    return {AS_IS: harder(scenario)[AS_IS], **{name: Variant(method=name) for name in POOLED}}


cells = Comparison("", AS_IS, variants, measure=measured).cells


def write(rows: Sequence[Row], out: Path) -> str:
    """Write `table.csv`, `.md` and `.png`, and all in `report.html`; returns the Markdown."""
    write_csv(rows, out / "table.csv")
    groups = dict.fromkeys((row["study"], row["shots"]) for row in rows)
    found = {group: _found(rows, *group, out) for group in groups}
    header = ["study", "shots", "site"]
    for title, _ in SHOWN.values():
        header += [f"{title}, {PERSONAL}"]
        header += [words for name in POOLED for words in (TITLES[name], f"{PERSONAL} less it")]
    lines = [line for group, models in found.items() for line in _lines(*group, models)]
    table, note = Table(header, lines), note_of(rows)
    text = f"{markdown(table)}\n{note}\n"
    write_atomically(out / "table.md", text.encode())
    panels = {title_of((*group, AS_IS)): models for group, models in found.items()}
    sites_plot(panels, out / "table.png")
    write_page(out / "report.html", "Joined or in one place", table, out / "table.png", note)
    return text


def note_of(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return (
        f"Seeds {seeds}: means over them, in per cent, on each site's own test images. Differences "
        "in points, paired: first over seeds (95 % t-interval), then over patients (95 % "
        "bootstrap)."
    )


def _found(rows: Sequence[Row], study: str, shots: int, out: Path) -> Models:
    """Predictions for every seed by model; none of a model that could not be run."""
    ours = {PERSONAL: found_of(rows, (study, shots, AS_IS), PERSONAL, out)}
    theirs = {name: found_of(rows, (study, shots, name), "predictions", out) for name in POOLED}
    return {**ours, **{TITLES[name]: found for name, found in theirs.items()}}


def _lines(study: str, shots: int, models: Models) -> list[list[str]]:
    """A line a site, one of all images together, and the mean over sites."""
    ours, *others = models.values()
    if not all(models.values()):
        return [[study, str(shots), "–", *["–"] * (len(SHOWN) * (1 + 2 * len(POOLED)))]]
    sites = list(dict.fromkeys(ours[0].sites))
    lines = []
    for site in [*sites, TOGETHER, MEAN]:
        line = [study, str(shots), site]
        for metric in SHOWN:
            mine, *theirs = (
                [value_at(each, site, sites, metric) for each in found] for found in models.values()
            )
            line.append(mean_words(mine))
            for found, values in zip(others, theirs, strict=True):
                pairs = list(zip(ours, found, strict=True))
                line.append(mean_words(values))
                line.append(difference_words(mine, values, pairs, site, metric))
        lines.append(line)
    return lines
