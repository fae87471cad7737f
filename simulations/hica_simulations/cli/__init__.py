"""`hica-sim`: run studies of many sites on one machine.

    hica-sim run STUDY --out DIR           a simulation, with its baselines
    hica-sim compare STUDY --out DIR       the same over several seeds
    hica-sim table NAME STUDY... --out DIR  a grid of runs: CSV, Markdown and a plot
    hica-sim results --page FILE --out DIR  every table of a page of results
    hica-sim federation STUDY --out DIR    hica-server and hica-client as real processes
    hica-sim audit STUDY --out DIR         what attackers learn of a patient from what leaves
    hica-sim reports --out DIR             what is read in reports, against what people indexed

Exit codes are those of `hica.errors`, and 9 where `federation` or `audit` has found something;
after an interruption the same command resumes.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from hica.deployment.command_line import Version, run_app
from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.errors import EXIT_CODES, FOUND, ConfigurationError
from hica.progress import console

app = typer.Typer(
    help="Simulate a federation of hospitals on this machine.\n\n"
    f"{EXIT_CODES} {FOUND}: `federation` has found a difference, or `audit` a leak.",
    no_args_is_help=True,
    add_completion=False,
)

StudyFile = Annotated[
    Path,
    typer.Argument(click_type=STUDY_FILE, help="A study with a [simulation] table (TOML)."),
]
Data = Annotated[Path, typer.Option(click_type=A_PATH, help="Folder of images, texts and weights.")]
Out = Annotated[
    Path,
    typer.Option(click_type=A_PATH, help="Run directory; an unfinished run there is resumed."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override, for example alignment.margin=0.3.")
]
Cache = Annotated[
    Path,
    typer.Option(
        click_type=A_PATH,
        envvar="HICA_CACHE",
        help="Decoded images and features, for all runs.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
Engine = Annotated[
    str, typer.Option(help="grid (in this process) or flower (Flower's Ray engine, extra `ray`).")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def common(version: Version = False) -> None:
    """Options of every command."""


DEFAULT_CACHE = Path.home() / ".cache" / "hica"
CORES = os.cpu_count() or 1
STUDIES = Path("simulations") / "studies"


@app.command(epilog="Example: hica-sim run simulations/studies/phantoms.toml --out runs/demo")
def run(
    study: StudyFile,
    out: Out,
    data: Data = Path(),
    set_: Set = None,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    engine: Engine = "grid",
    baselines: Annotated[bool, typer.Option(help="Also train local-only and pooled.")] = True,
    json_: Json = False,
) -> None:
    """Run or resume a simulated study and write its report."""
    from hica_server.console import final_table, gain_table
    from hica_simulations.console import watching_on
    from hica_simulations.experiments.baselines.every_run import simulate_with_baselines
    from hica_simulations.experiments.titles import TITLES
    from hica_simulations.report import write_simulation_report
    from hica_simulations.run import simulate
    from hica_simulations.scenario import load_scenario

    place = _place(data, out, cache, device, engine)
    scenario = load_scenario(study, set_ or [])
    run_study = simulate_with_baselines if baselines else simulate
    result = run_study(scenario, place, watching_on(console))
    report = write_simulation_report(scenario, place, result)
    if json_:
        print(json.dumps(result))
        return
    Console().print(final_table(result, TITLES))
    if (gained := gain_table(result)) is not None:
        Console().print(gained)
    Console().print(f"report: {report}")


@app.command(
    epilog="Example: hica-sim compare simulations/studies/breast_ultrasound.toml "
    "--data ../shared/data --out runs/bus-compare --seeds 5"
)
def compare(
    study: StudyFile,
    out: Out,
    data: Data = Path(),
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    set_: Set = None,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    engine: Engine = "grid",
    json_: Json = False,
) -> None:
    """Run a study over several seeds, with and without stage 1, and compare with the baselines."""
    from hica_simulations.console import watching_on
    from hica_simulations.experiments.baselines.compare import as_markdown
    from hica_simulations.experiments.baselines.compare import compare as compare_runs

    place = _place(data, out, cache, device, engine)
    chosen = range(first_seed, first_seed + seeds)
    result = compare_runs(study, set_ or [], place, chosen, watching_on(console))
    print(json.dumps(result) if json_ else as_markdown(result))


@app.command(
    epilog="Example: hica-sim federation simulations/studies/federation.toml --out runs/federation"
)
def federation(
    study: StudyFile,
    out: Out,
    data: Data = Path(),
    set_: Set = None,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Run a study over real processes on this machine, and again as a simulation, and compare.

    Ends with exit code 9 where the two differ by more than 1e-6 in any metric.
    """
    from hica_simulations.console import comparison_table, watching_on
    from hica_simulations.deployment import TOLERANCE, federate
    from hica_simulations.scenario import load_scenario

    place = _place(data, out, cache, device, "grid")
    compared = federate(load_scenario(study, set_ or []), place, watching_on(console))
    if json_:
        print(json.dumps(asdict(compared), default=str))
    else:
        Console().print(comparison_table(compared))
        Console().print(f"report: {compared.report}")
    raise typer.Exit(FOUND if compared.difference > TOLERANCE else 0)


@app.command(
    epilog="Example: hica-sim table main simulations/studies/breast_lesions.toml "
    "--data ../shared/data --shots 1,20 --seeds 2 --out runs/main"
)
def table(
    name: Annotated[
        str,
        typer.Argument(
            help="Which table: main, ablation, unseen, text-noise, efficiency, regions, "
            "sensitivity, descriptors, sites, prevalence, training, suggest or privacy."
        ),
    ],
    studies: Annotated[
        list[Path],
        typer.Argument(click_type=STUDY_FILE, help="Studies with a [simulation] table."),
    ],
    out: Out,
    data: Data = Path(),
    shots: Annotated[str, typer.Option(help="Shots of each class and site, as 1,5,20.")] = "20",
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    methods: Annotated[
        str, typer.Option(help="Lines of the table, as federated,linear_probe; all without it.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Processes, one core each.")] = CORES,
    set_: Set = None,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Run every cell of a table that has not been run yet; write it as CSV, Markdown and a plot."""
    from hica_simulations.console import counting
    from hica_simulations.experiments.tables import table_named
    from hica_simulations.experiments.tables.run_cells import run_cells

    module, place = table_named(name), _place(data, out, cache, device, "grid")
    chosen = range(first_seed, first_seed + seeds)
    wanted = [part.strip() for part in methods.split(",") if part.strip()]
    cells = [
        replace(cell, overrides=tuple(set_ or ()))
        for cell in module.cells(studies, _numbers(shots), chosen, wanted)
    ]
    with counting(console, name, len(cells)) as told:
        rows = run_cells(cells, place, told, jobs)
    text = module.write(rows, out)
    print(json.dumps(rows) if json_ else text)


@app.command(
    epilog="Example: hica-sim results --data ../shared/data --out runs/results "
    "--page docs/results.md"
)
def results(
    out: Out,
    page: Annotated[
        Path,
        typer.Option(click_type=A_PATH, help="Markdown whose tables and pictures are replaced."),
    ],
    data: Data = Path(),
    studies: Annotated[
        Path, typer.Option(click_type=A_PATH, help="Folder of the studies.")
    ] = STUDIES,
    parts: Annotated[
        str, typer.Option(help="Tables of the page, as main,ablation; all without.")
    ] = "",
    quick: Annotated[
        bool,
        typer.Option(help="Two seeds, shots and rounds, one study a table: a check, no result."),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, one core each.")] = CORES,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Run all tables of a page of results that have not been run yet, and put them into it."""
    from hica_simulations.console import counting
    from hica_simulations.experiments.tables import results as page_of

    chosen = page_of.parts_named([part for part in parts.split(",") if part])
    chosen = [page_of.quick(part) for part in chosen] if quick else chosen
    place = _place(data, out, cache, device, "grid")
    total = sum(len(page_of.cells_of(part, studies)) for part in chosen)
    with counting(console, "results", total) as told:
        page_of.rebuild(chosen, studies, place, page, told, jobs)
    done = {"page": str(page), "tables": len(chosen)}
    print(json.dumps(done) if json_ else f"{page}: {len(chosen)} tables")


def _numbers(text: str) -> list[int]:
    """`1,5,20` as numbers."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise ConfigurationError(
            f"--shots {text!r}: expected numbers from 1 on, for example 1,5,20"
        )
    return numbers


@app.command(epilog="Example: hica-sim audit simulations/studies/audit.toml --out runs/audit")
def audit(
    study: StudyFile,
    out: Out,
    data: Data = Path(),
    trials: Annotated[
        int, typer.Option(min=40, help="Trainings for each setting and attacker.")
    ] = 300,
    set_: Set = None,
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Attack what leaves a site: no privacy, secure aggregation, DP at ε = 1, 3 and 8.

    Ends with exit code 9 where an attack refutes the ε that is claimed.
    """
    from hica_simulations.experiments.audit.report import remarks, tables
    from hica_simulations.experiments.audit.run import audit as attack
    from hica_simulations.scenario import load_scenario

    place = _place(data, out, cache, device, "grid")
    result = attack(load_scenario(study, set_ or []), place, trials)
    if json_:
        print(json.dumps(result))
    else:
        for part in [*tables(result), *remarks(result)]:
            Console().print(part)
        Console().print(f"tables and picture: {out / 'audit.md'}, {out / 'audit.png'}")
    raise typer.Exit(FOUND if result["refuted"] else 0)


@app.command(epilog="Example: hica-sim reports --data ../shared/data --out runs/reports")
def reports(
    out: Annotated[Path, typer.Option(click_type=A_PATH, help="Folder for CSV and Markdown.")],
    data: Data = Path(),
    text: Annotated[
        str, typer.Option(help="The text tower, as model.text; a folder lies below DATA/weights.")
    ] = "hf:minilm-l6",
    json_: Json = False,
) -> None:
    """Read the Indiana reports and hold what is found against their MeSH headings.

    Five ways: cosines, cosines that mind negation, rules alone, and rules with soft assignment.
    """
    from hica.towers import load_text_tower
    from hica_simulations.experiments.reports.indiana import load
    from hica_simulations.experiments.reports.measure import measure, write

    indiana = load(data)
    tower = load_text_tower(text, vocabulary=indiana.reports, weights=data / "weights")
    rows = measure(tower, indiana)
    written = write(rows, out)
    print(json.dumps(rows) if json_ else written)


def _place(data: Path, out: Path, cache: Path, device: str, engine: str) -> Any:
    """Checked places of a run."""
    from hica.device import select_device
    from hica_simulations.place import Place

    select_device(device)
    if engine not in ("grid", "flower"):
        raise ConfigurationError(f"--engine {engine!r}: expected grid or flower")
    return Place(data, out, cache, device, engine)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `hica-sim`."""
    run_app(app, "hica-sim", arguments, "interrupted: run the same command again to resume")
