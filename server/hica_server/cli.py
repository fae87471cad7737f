"""`hica-server`: what a coordinator runs. Exit codes are those of `hica.errors`."""

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hica.deployment.command_line import Version, run_app
from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.errors import EXIT_CODES, INTERRUPTED
from hica.printable import plain
from hica.storage import keep_private, write_atomically
from hica.study import load_study
from hica_server.backbone_commands import app as backbone_app
from hica_server.export_commands import app as export_app
from hica_server.findings.commands import app as findings_app
from hica_server.findings.draft import refuse_existing
from hica_server.folder_arguments import RUN_FOLDER, Root
from hica_server.settings import Folder, load_settings

app = typer.Typer(
    help=f"Prepare a federated study and look after its results.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(findings_app, name="findings")
app.add_typer(backbone_app, name="backbone")
app.add_typer(export_app)


@app.callback()
def common(version: Version = False) -> None:
    """Options of every command."""


Run = Annotated[
    Path, typer.Argument(click_type=RUN_FOLDER, help="Folder of a finished run, or a study's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Hubs = Annotated[
    bool, typer.Option("--hubs", help="Fetch weights that are pinned and not here from a hub.")
]


@app.command(epilog="Example: hica-server init my-study")
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", click_type=A_PATH, help="Made where it is missing.")
    ],
) -> None:
    """Write annotated study.toml and server.toml that run as they are; existing ones are kept."""
    study, server = folder / "study.toml", folder / "server.toml"
    for path in (study, server):
        refuse_existing(path, "choose another folder")
    for path in (study, server):
        example = resources.files("hica_server").joinpath(f"example_{path.name}")
        write_atomically(path, example.read_bytes())
    print(f"{study}: edit it, then run: hica-server validate {study}")
    print(f"{server}: say where hospitals connect to, then: hica-server provision {folder} SITE...")


@app.command(epilog="Example: hica-server validate study.toml --set alignment.shots=10 --data data")
def validate(
    study_file: Annotated[
        Path,
        typer.Argument(metavar="STUDY", click_type=STUDY_FILE, help="The study file (TOML)."),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example alignment.margin=0.3.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            click_type=A_PATH,
            help="Folder of weights and corpus: also load the image tower and embed the texts.",
        ),
    ] = None,
    hubs: Hubs = False,
    json_: Json = False,
) -> None:
    """Check a study and show what follows from it, its hash included."""
    from hica_server.summary import rehearse, summarise

    study = load_study(study_file, set_)
    summary = summarise(study)
    if data is not None:
        summary |= rehearse(study, data, hubs)
    if json_:
        print(json.dumps({**summary, "resolved": study.model_dump(mode="json")}))
        return
    print(plain(_lines(summary)))


@app.command(epilog="Example: hica-server provision my-study H1 H2")
def provision(
    folder: Root,
    sites: Annotated[
        list[str] | None, typer.Argument(metavar="[SITE]...", help="Who gets a start kit.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new certificate.")] = False,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days a new certificate is good for.")
    ] = 365,
    json_: Json = False,
) -> None:
    """Make the certificates that are missing, and the start kits anew; keys are kept.

    Again whenever the study or [server] has changed.
    """
    from hica_server import provision

    study, settings = load_study(folder / "study.toml"), load_settings(folder)
    made = provision.provision(Folder(folder), study, settings, sites or [], renew, days)
    print(json.dumps(asdict(made), default=str) if json_ else "\n".join(made.lines()))


@app.command(epilog="Example: hica-server enroll my-study H1.pub --name H1")
def enroll(
    folder: Root,
    public_key: Annotated[
        Path,
        typer.Argument(
            metavar="SITE.pub", click_type=A_PATH, help="The public key that the hospital sent."
        ),
    ],
    name: Annotated[str, typer.Option(help="site.name of the hospital's site.toml.")],
    json_: Json = False,
) -> None:
    """Let a hospital in, at once; a running server takes notice."""
    from hica_server import enrolment

    site = enrolment.enroll(Folder(folder), name, public_key)
    if json_:
        print(json.dumps({"site": name, **site.model_dump()}))
        return
    print(f"{name}: enrolled with the key {site.fingerprint}")
    print("Compare this fingerprint with the hospital by telephone; if it differs, revoke at once.")


@app.command(epilog="Example: hica-server revoke my-study H1")
def revoke(
    folder: Root,
    name: Annotated[str, typer.Argument(metavar="SITE", help="As it was enrolled.")],
    json_: Json = False,
) -> None:
    """Let a hospital in no longer, at once; to return it needs a new key."""
    from hica_server import enrolment

    site = enrolment.revoke(Folder(folder), name)
    if json_:
        print(json.dumps({"site": name, **site.model_dump()}))
        return
    print(f"{name}: revoked with the key {site.fingerprint}")


@app.command(epilog="Example: hica-server sites my-study --json")
def sites(folder: Root, json_: Json = False) -> None:
    """List everybody who was ever enrolled."""
    from hica_server import enrolment

    enrolled = enrolment.read_sites(Folder(folder))
    if json_:
        print(json.dumps({name: site.model_dump() for name, site in enrolled.items()}))
        return
    print(plain("\n".join(enrolment.lines(enrolled))))


@app.command(epilog="Example: hica-server run my-study")
def run(
    folder: Root,
    tell: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds to wait at the end for sites that are away, to tell them; of a study "
            "that was over before, too.",
            show_default="30; of a study that was over before 0",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Start the study, or go on with it after its last completed step, and see it to its end.

    Then every site is told, and its client ends.

    Ctrl-C, SIGTERM and `stop` end it early; so does an error that somebody has to mend. The same
    command then goes on.
    """
    from rich.console import Console

    from hica_server import operation
    from hica_server.console import final_table, gain_table
    from hica_server.report.run_file import read_result

    stopped = operation.run(folder, tell)
    if stopped is not None:
        raise typer.Exit(INTERRUPTED if stopped == signal.SIGINT else 0)
    result = read_result(Folder(folder).run)
    if json_:
        print(json.dumps(result))
        return
    Console().print(final_table(result))
    if (gained := gain_table(result)) is not None:
        Console().print(gained)
    print(f"report: {Folder(folder).run / 'report.html'}")


@app.command(epilog="Example: hica-server status my-study --json")
def status(folder: Root, json_: Json = False) -> None:
    """Say what the server is doing, where the run stands and which sites are connected."""
    from hica_server.status import lines
    from hica_server.status import status as status_of

    told = status_of(folder)
    print(json.dumps(told) if json_ else plain("\n".join(lines(told))))


@app.command(epilog="Example: hica-server logs my-study --service superlink --follow")
def logs(
    folder: Root,
    service: Annotated[
        str | None, typer.Option(help="Only this: superlink, superexec, gateway or serverapp.")
    ] = None,
    lines: Annotated[int, typer.Option(min=0, help="The last of each log.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what the server's processes have logged."""
    from hica.deployment.service_logs import show_logs

    show_logs(Folder(folder.resolve()).logs, service, lines, follow, f"hica-server run {folder}")


@app.command(epilog="Example: hica-server stop my-study")
def stop(folder: Root, json_: Json = False) -> None:
    """End a running server and wait until it has; the study can go on later."""
    from hica.deployment.lockfile import end_holder

    stopped = end_holder(Folder(folder.resolve()).lock)
    said = "stopped" if stopped else "not running"
    print(json.dumps({"stopped": stopped}) if json_ else said)


@app.command(epilog="Example: hica-server report runs/demo")
def report(run: Run, json_: Json = False) -> None:
    """Write report.html anew from result.json and study.json.

    It has no pictures: a coordinator holds no images. Of a simulation, the command that ran it
    writes the report with pictures.
    """
    from hica_server.report.run_report import write_run_report

    written = str(write_run_report(run))
    print(json.dumps({"report": written}) if json_ else written)


def _lines(summary: dict[str, Any]) -> str:
    """Name and value, one a line, never wrapped, so that a hash can be copied."""
    width = max(map(len, summary))
    values = [", ".join(v) if isinstance(v, list) else v for v in summary.values()]
    names = [name.replace("_", " ") for name in summary]
    return "\n".join(f"{n:<{width}}  {v}" for n, v in zip(names, values, strict=True))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `hica-server`."""
    keep_private()
    run_app(app, "hica-server", arguments)
