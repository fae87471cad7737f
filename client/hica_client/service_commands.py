"""`hica-client result`, `stop` and `logs`: of a client that runs or has run."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hica.deployment.path_arguments import SITE_FILE

app = typer.Typer()

SiteFile = Annotated[
    Path,
    typer.Argument(
        metavar="SITE", click_type=SITE_FILE, help="The site file (TOML), or its folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command(epilog="Example: hica-client result hospital/site.toml --json")
def result(site_file: SiteFile, json_: Json = False) -> None:
    """Show what a finished study came to at this site: own test results, model, rounds.

    They were computed here, on the site's own held-out images, and have not left.
    """
    from hica_client.result import read_result, show_result

    found = read_result(site_file)
    if json_:
        print(json.dumps(found))
    else:
        show_result(found, Console())


@app.command(epilog="Example: hica-client stop hospital/site.toml")
def stop(site_file: SiteFile, json_: Json = False) -> None:
    """End a running client and wait until it has; `run` goes on later."""
    from hica.deployment.lockfile import end_holder
    from hica_client.operation import lock_file
    from hica_client.site import load_site

    stopped = end_holder(lock_file(load_site(site_file)))
    said = "stopped" if stopped else "not running"
    print(json.dumps({"stopped": stopped}) if json_ else said)


@app.command(epilog="Example: hica-client logs hospital/site.toml --service supernode --follow")
def logs(
    site_file: SiteFile,
    service: Annotated[str | None, typer.Option(help="Only this: supernode or runner.")] = None,
    lines: Annotated[int, typer.Option(min=0, help="The last of each log.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what the client's processes have logged."""
    from hica.deployment.service_logs import show_logs
    from hica_client.site import load_site

    folder = load_site(site_file).service / "logs"
    show_logs(folder, service, lines, follow, f"hica-client run {site_file}")
