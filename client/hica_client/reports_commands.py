"""`hica-client reports`: what the site's reports say of a study's findings."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.progress import say
from hica_client.service_commands import SiteFile

app = typer.Typer()


@app.command(epilog="Example: hica-client reports hospital --study study.toml --out reports.html")
def reports(
    site_file: SiteFile,
    study: Annotated[
        Path | None,
        typer.Option(click_type=STUDY_FILE, help="The study (TOML), in place of the start kit's."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=1000, help="Reports that are shown, with what counted marked.")
    ] = 6,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            click_type=A_PATH,
            help="A page with counts and samples. It shows patients' reports: do not send it on.",
        ),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print counts alone as JSON, and no report.")
    ] = False,
) -> None:
    """Show what the reports say of each finding, so that a radiologist can judge it.

    Counts how many reports mention, doubt, deny or pass over each, and prints samples of them with
    the phrases that counted. English only. Nothing leaves, and nothing is kept but the page.
    """
    from hica_client.reports.reading import read_site_reports
    from hica_client.reports.shown import sample, show, write_page
    from hica_client.site import load_site

    found = read_site_reports(load_site(site_file), study)
    if out is not None:
        write_page(out, found, sample(found, samples))
        say(f"{out}: only you can read it")
    if json_:
        print(json.dumps(found.counts()))
    else:
        show(found, 0 if out is not None else samples, Console())
