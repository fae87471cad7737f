"""Gain: what joining gives each site, alone → shared → personal, on its own test patients.

A hospital joins if it gains. So no mean over sites hides one that loses: every site has a line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hica.steps.evaluation import FINAL
from hica.steps.personal import kept_logits
from hica.steps.predictions import probabilities_of
from hica.storage import write_atomically
from hica.study import Changes, merged
from hica.study.sections import PersonalSection
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.experiments.pages import Table, markdown, write_csv, write_page
from hica_simulations.experiments.tables.cells import Row
from hica_simulations.experiments.tables.comparison import Comparison, Variant
from hica_simulations.experiments.tables.per_site import (
    AS_IS,
    MEAN,
    SHOWN,
    TOGETHER,
    Group,
    difference_words,
    found_of,
    mean_words,
    sites_plot,
    title_of,
    value_at,
)
from hica_simulations.place import Place
from hica_simulations.predictions import Predictions, joined, of_site
from hica_simulations.run import sources_of
from hica_simulations.scenario import Scenario

ALONE, SHARED, PERSONAL = MODELS = ("alone", "shared", "personal")
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
    for site in scenario.simulation.sites:  # in this order other methods have their predictions
        path = place.out / "sites" / site.name / "site.toml"
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
                model: [value_at(each, site, sites, metric) for each in every]
                for model, every in found.items()
            }
            line.append(" → ".join(mean_words(values[model]) for model in MODELS))
            for other in (ALONE, SHARED):
                pairs = list(zip(found[PERSONAL], found[other], strict=True))
                line.append(difference_words(values[PERSONAL], values[other], pairs, site, metric))
        lines.append(line)
    return lines


def plot(rows: Sequence[Row], out: Path) -> None:
    """A panel a study, number of shots and variant: AUROC of each site, alone and personal."""
    groups = dict.fromkeys((row["study"], row["shots"], row["method"]) for row in rows)
    panels = {
        title_of(group): {m: found_of(rows, group, m, out) for m in (ALONE, PERSONAL)}
        for group in groups
    }
    sites_plot(panels, out / "table.png")
