"""`make bench`: speed as ratios measured side by side.

    python -m hica_simulations.experiments.benchmarks                 everything quick, some minutes
    python -m hica_simulations.experiments.benchmarks --only regions  one question
    python -m hica_simulations.experiments.benchmarks --json > bench.json

Each figure is a median of several runs taken by turns; run it on an otherwise idle machine.
Deployments, with real processes over TLS, are measured only where they are asked for by name:

    python -m hica_simulations.experiments.benchmarks --only overhead --repeat 3
    python -m hica_simulations.experiments.benchmarks --only endurance --out runs/bench
    python -m hica_simulations.experiments.benchmarks --only large-updates --out runs/bench

Exit codes: as `hica-sim`; a missed target is shown and is no error.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.command_line import run_app
from hica.progress import track
from hica_simulations.experiments.benchmarks.dp_sgd import compare_dp_sgd
from hica_simulations.experiments.benchmarks.engines import compare_engines
from hica_simulations.experiments.benchmarks.features import compare_features
from hica_simulations.experiments.benchmarks.regions import compare_regions
from hica_simulations.experiments.benchmarks.secure_sum import compare_secure_sum
from hica_simulations.experiments.benchmarks.timing import Figure, machine


class Name(StrEnum):
    """What can be asked for with `--only`."""

    ENGINES = "engines"
    REGIONS = "regions"
    FEATURES = "features"
    DP_SGD = "dp-sgd"
    SECURE_SUM = "secure-sum"
    OVERHEAD = "overhead"
    ENDURANCE = "endurance"
    LARGE_UPDATES = "large-updates"


QUICK = [Name.ENGINES, Name.REGIONS, Name.FEATURES, Name.DP_SGD, Name.SECURE_SUM]
"""What is measured where nothing is asked for."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a benchmark.

    Attributes:
        repeat: Measurements of each way.
        out: Where a deployment that is run once leaves its files, in a folder of its name.
        sites, rounds: Numbers of a deployment; None: the benchmark's own.
    """

    repeat: int
    out: Path = Path("runs/bench")
    sites: int | None = None
    rounds: int | None = None


# Deployments need Linux, the others do not: they are imported only where they are asked for.
def _overhead(asked: Asked) -> list[Figure]:
    from hica_simulations.experiments.benchmarks.overhead import compare_overhead

    return compare_overhead(asked.repeat, asked.sites or 2, asked.rounds or 8)


def _endurance(asked: Asked) -> list[Figure]:
    from hica_simulations.experiments.benchmarks.endurance import endure

    return endure(asked.out / "endurance", asked.sites or 8, asked.rounds or 200)


def _large_updates(asked: Asked) -> list[Figure]:
    from hica_simulations.experiments.benchmarks.large_updates import measure_large_updates

    return measure_large_updates(asked.out / "large-updates", asked.sites or 3, asked.rounds or 2)


BENCHES: dict[Name, list[Callable[[Asked], list[Figure]]]] = {
    Name.ENGINES: [lambda asked: compare_engines(asked.repeat)],
    Name.REGIONS: [
        lambda asked: compare_regions(asked.repeat, "tiny", batch_size=16, steps=4),
        lambda asked: compare_regions(asked.repeat),
    ],
    Name.FEATURES: [
        lambda asked: compare_features(asked.repeat, "tiny"),
        lambda asked: compare_features(asked.repeat),
    ],
    Name.DP_SGD: [
        lambda asked: compare_dp_sgd(asked.repeat, way="adapter", batch_size=32, steps=8),
        lambda asked: compare_dp_sgd(asked.repeat),
    ],
    Name.SECURE_SUM: [lambda asked: compare_secure_sum(asked.repeat)],
    Name.OVERHEAD: [_overhead],
    Name.ENDURANCE: [_endurance],
    Name.LARGE_UPDATES: [_large_updates],
}

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: python -m hica_simulations.experiments.benchmarks --only regions")
def bench(
    only: Annotated[
        list[Name] | None, typer.Option(help="Only this; may be given several times.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Measurements of each way.")] = 5,
    out: Annotated[Path, typer.Option(help="Files of endurance and large-updates.")] = Asked.out,
    sites: Annotated[int | None, typer.Option(min=1, help="Sites of a deployment.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of a deployment.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure overhead per round, cost of regions, gain of cached features, cost of privacy.

    By name also deployments: their overhead beside stock Flower's, long runs, large updates.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)  # a line for every run of every engine
    here = machine()
    asked = Asked(repeat, out, sites, rounds)
    figures = {
        name.value: [figure for part in track(BENCHES[name], name.value) for figure in part(asked)]
        for name in only or QUICK
    }
    if json_:
        rows = {name: [figure.to_dict() for figure in part] for name, part in figures.items()}
        print(json.dumps({"machine": here, "repeat": repeat, "figures": rows}, indent=2))
        return
    Console().print(as_table(figures, repeat))
    print(machine_line(here))


def as_table(figures: dict[str, list[Figure]], repeat: int) -> Table:
    """One row a figure, a rule after each question."""
    once = figures.keys() <= {Name.ENDURANCE, Name.LARGE_UPDATES}
    table = Table(title="one run" if once else f"medians of {repeat}, by turns")
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
    """Entry point of `python -m hica_simulations.experiments.benchmarks`."""
    run_app(app, "python -m hica_simulations.experiments.benchmarks", arguments)


if __name__ == "__main__":
    main()
