"""`hica-client review` and `suggest`: people look at what a study makes of their images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.printable import plain, printable
from hica_client.service_commands import Json, SiteFile

if TYPE_CHECKING:
    from hica_client.review.access import Access
    from hica_client.review.desk import Desk

app = typer.Typer()

StudyFile = Annotated[
    Path | None,
    typer.Option(click_type=STUDY_FILE, help="The study (TOML), in place of the start kit's."),
]
SHOWN = 20
"""Suggestions that are listed on the screen; the table has all."""


@app.command(epilog="Example: hica-client review hospital/site.toml")
def review(
    site_file: SiteFile,
    study: StudyFile = None,
    reviewer: Annotated[str, typer.Option(help="Who decides; without it, who is logged in.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    idle: Annotated[
        float, typer.Option(min=0.01, max=1440, help="Minutes without a request, then it ends.")
    ] = 30,
    json_: Json = False,
) -> None:
    """Open a page to review clusters, regions and labels, and to see what the study came to.

    It is for a browser on this machine, by an address that works once. Nothing leaves: what is
    decided lies in the state folder, and the next rounds use it. Ctrl-C ends it.
    """
    from hica_client.review.serving import Idle, open_port, serve

    desk = _desk(site_file, study, reviewer)
    _ = desk.rows  # what is wrong with the manifest is said here

    def opened(access: "Access") -> None:
        if json_:
            print(json.dumps({"address": access.address}), flush=True)
            return
        print(f"open in a browser on this machine, once:\n\n    {access.address}\n")
        print(f"ends by Ctrl-C, and after {idle:g} minutes without a request", flush=True)

    serve(desk, open_port(port), Idle(60 * idle), opened)


@app.command(epilog="Example: hica-client suggest hospital/site.toml --count 20 --out next.csv")
def suggest(
    site_file: SiteFile,
    study: StudyFile = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many images.")] = 20,
    out: Annotated[
        Path, typer.Option(metavar="FILE.csv", click_type=A_PATH, help="Where the table goes.")
    ] = Path("suggestions.csv"),
    json_: Json = False,
) -> None:
    """List which images to label next: typical ones first, of kinds that have no label yet.

    Once the study is over, those of which its model is least sure. Nothing leaves.
    """
    from hica.progress import track
    from hica.storage import write_atomically
    from hica_client.review.suggest import as_csv, suggestions

    desk = _desk(site_file, study, "")
    found = suggestions(desk, count, lambda rows: track(rows, "looking at the images"))
    write_atomically(out, as_csv(found), mode=0o600)
    if json_:
        rows = [{"image": each.row.record.name, **each.why._asdict()} for each in found]
        print(json.dumps({"table": str(out), "suggestions": rows}))
        return
    table = Table("image", title=f"to label next: {out}", title_justify="left")
    for column in ("alike", "typicality", "uncertainty"):
        table.add_column(column, justify="right")
    for each in found[:SHOWN]:
        numbers = (str(each.why.alike), f"{each.why.typicality:.2f}", f"{each.why.uncertainty:.2f}")
        table.add_row(printable(each.row.record.name), *numbers)
    Console().print(table)
    if len(found) > SHOWN:
        print(plain(f"and {len(found) - SHOWN} more in {out}"))


def _desk(site_file: Path, study_file: Path | None, reviewer: str) -> "Desk":
    """The desk of the start kit's study, or of one that is named.

    Raises:
        ConfigurationError: Site file, study or start kit cannot be used.
    """
    from hica.deployment.kit import read_kit
    from hica.study import load_study
    from hica_client.consent import user_name
    from hica_client.review.desk import Desk
    from hica_client.site import load_site

    site = load_site(site_file)
    study = load_study(study_file) if study_file else read_kit(site.federation.kit)[1]
    return Desk(site, study, " ".join(reviewer.split())[:80] or user_name())
