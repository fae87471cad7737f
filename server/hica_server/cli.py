"""`hica-server`: what a coordinator runs.

    hica-server init my-study                    an annotated study.toml to start from
    hica-server validate my-study/study.toml     is it right, and what follows from it
    hica-server report runs/demo                 write report.html anew
    hica-server export runs/demo --to m.safetensors

Exit codes: 0 done; 1 fault in the program; 2 command line or study file; 3 data; 4 checkpoint;
5 message; 6 federation (below quorum); 7 storage (disk full); 130 interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hica.command_line import EXIT_CODES, run_app
from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Study, load_study, validated

app = typer.Typer(
    help=f"Prepare a federated study and look after its results.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
)

Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(epilog="Example: hica-server init my-study")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is missing.")],
) -> None:
    """Write an annotated study.toml that runs as it is; an existing one is left alone."""
    path = folder / "study.toml"
    if path.exists():
        raise ConfigurationError(f"{path}: exists and is left alone; choose another folder")
    write_atomically(
        path, resources.files("hica_server").joinpath("example_study.toml").read_bytes()
    )
    print(f"{path}: edit it, then run: hica-server validate {path}")


@app.command(epilog="Example: hica-server validate study.toml --set alignment.shots=10 --data data")
def validate(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example alignment.margin=0.3.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of weights and corpus: also load the image tower and embed the texts."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Check a study and show what follows from it, its hash included."""
    from hica_server.summary import rehearse, summarise

    study = load_study(study_file, set_)
    summary = summarise(study)
    if data is not None:
        summary |= rehearse(study, data)
    if json_:
        print(json.dumps({**summary, "resolved": study.model_dump(mode="json")}))
        return
    print(_lines(summary))


@app.command(epilog="Example: hica-server report runs/demo")
def report(run: Run) -> None:
    """Write report.html anew from result.json and study.json.

    It has no pictures: a coordinator holds no images. Of a simulation, the command that ran it
    writes the report with pictures.
    """
    import tomli_w

    from hica_server.export import read_json
    from hica_server.report import Extras, write_report

    result = read_json(run, "result.json")
    study = validated(Study, read_json(run, "study.json"), str(run / "study.json"))
    resolved = tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))
    write_report(run / "report.html", result, resolved, Extras())
    print(run / "report.html")


@app.command(epilog="Example: hica-server export runs/demo --to breast.safetensors")
def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="A .safetensors file; a .json is written beside it.")],
) -> None:
    """Write the trained weights, text bank and centre of a finished run, with their study."""
    from hica_server.export import export_model

    print(f"{to} and {export_model(run, to)}")


def _lines(summary: dict[str, Any]) -> str:
    """Name and value, one a line, never wrapped, so that a hash can be copied."""
    width = max(map(len, summary))
    values = [", ".join(v) if isinstance(v, list) else v for v in summary.values()]
    names = [name.replace("_", " ") for name in summary]
    return "\n".join(f"{n:<{width}}  {v}" for n, v in zip(names, values, strict=True))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `hica-server`."""
    run_app(app, "hica-server", arguments)
