"""`make bench`: speed as ratios measured side by side.

    python -m hica_simulations.bench                    everything, a few minutes
    python -m hica_simulations.bench --only regions     one question
    python -m hica_simulations.bench --json > bench.json

Each figure is a median of several runs taken by turns; run it on an otherwise idle machine.
Exit codes: as `hica-sim`; a missed target is shown and is no error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from hica.command_line import run_app
from hica.progress import track
from hica_simulations.benchmarks.engines import compare_engines
from hica_simulations.benchmarks.features import compare_features
from hica_simulations.benchmarks.regions import compare_regions
from hica_simulations.benchmarks.timing import Figure, machine


class Name(StrEnum):
    """What can be asked for with `--only`."""

    ENGINES = "engines"
    REGIONS = "regions"
    FEATURES = "features"


BENCHES: dict[Name, list[Callable[[int], list[Figure]]]] = {
    Name.ENGINES: [compare_engines],
    Name.REGIONS: [
        lambda repeat: compare_regions(repeat, "tiny", batch_size=16, steps=4),
        compare_regions,
    ],
    Name.FEATURES: [lambda repeat: compare_features(repeat, "tiny"), compare_features],
}

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: python -m hica_simulations.bench --only regions --repeat 3")
def bench(
    only: Annotated[
        list[Name] | None, typer.Option(help="Only this; may be given several times.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Measurements of each way.")] = 5,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure overhead per round, cost of regions and gain of cached features."""
    logging.getLogger("flwr").setLevel(logging.ERROR)  # a line for every run of every engine
    here = machine()
    figures = {
        name.value: [figure for part in track(BENCHES[name], name.value) for figure in part(repeat)]
        for name in only or list(Name)
    }
    if json_:
        rows = {name: [figure.to_dict() for figure in part] for name, part in figures.items()}
        print(json.dumps({"machine": here, "repeat": repeat, "figures": rows}, indent=2))
        return
    Console().print(as_table(figures, repeat))
    print(machine_line(here))


def as_table(figures: dict[str, list[Figure]], repeat: int) -> Table:
    """One row a figure, a rule after each question."""
    table = Table(title=f"medians of {repeat}, by turns")
    for column in ("", "measured", "target", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for part in figures.values():
        for figure in part:
            verdict = {None: "", True: "[green]met", False: "[red]missed"}[figure.met]
            digits = ".0f" if figure.value >= 1000 else ".3g"
            measured = f"{figure.value:{digits}} {figure.unit}"
            table.add_row(figure.name, measured, figure.target, verdict)
        table.add_section()
    return table


def machine_line(here: dict[str, Any]) -> str:
    """`2 cores, torch threads 2, load 0.1, python 3.11.9, …`."""
    rest = {name: value for name, value in here.items() if name != "cores"}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in rest.items()]
    return ", ".join([f"{here['cores']} cores", *words])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `python -m hica_simulations.bench`."""
    run_app(app, "python -m hica_simulations.bench", arguments)


if __name__ == "__main__":
    main()
