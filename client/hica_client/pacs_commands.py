"""`hica-client pull`: studies from the hospital's PACS into a folder of DICOM files."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from hica.deployment.path_arguments import A_PATH
from hica_client.service_commands import Json, SiteFile

app = typer.Typer()


@app.command(
    epilog="Example: hica-client pull hospital/site.toml --from https://pacs.hospital/dicom-web "
    "--modality US --from-date 2024-01-01 --out received --dry-run"
)
def pull(
    site_file: SiteFile,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", click_type=A_PATH, help="The folder of files; made private."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="https://… (DICOMweb) or dicom://AETITLE@host:port; else address in [pacs].",
        ),
    ] = None,
    own: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="AETITLE",
            help="This site at a dicom: PACS. With @ADDRESS:PORT it sends there (C-MOVE), without "
            "a port on the same connection (C-GET). Else ae_title in [pacs].",
        ),
    ] = None,
    from_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Studies of this day on."),
    ] = None,
    to_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Studies to this day."),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Studies with such series (US, MG, …), and of them only those; may be repeated.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Series of this modality, too, for example SR."),
    ] = None,
    study_description: Annotated[
        str, typer.Option(metavar="TEXT", help="With * and ?, for example *breast*.")
    ] = "",
    series_description: Annotated[
        str, typer.Option(metavar="TEXT", help="Only such series, likewise.")
    ] = "",
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            click_type=A_PATH,
            help="List with a column patient_id or accession_number.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many studies at most.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would come, and move nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Fetch studies from the hospital's PACS into a folder; the same command goes on.

    The files have patients' names in them and are for this user alone. Nothing leaves the
    hospital: only that PACS is asked. docs/pacs.md says what to set up there.
    """
    from hica_client.pacs.cases import read_cases
    from hica_client.pacs.command import run_pull
    from hica_client.pacs.selection import Selection
    from hica_client.site import load_site

    selection = Selection(
        first=_day(from_date),
        last=_day(to_date),
        modalities=_codes(modality),
        also=_codes(also),
        study_description=study_description.strip(),
        series_description=series_description.strip(),
        cases=read_cases(cases) if cases is not None else (),
        limit=limit,
    )
    told = run_pull(load_site(site_file), source, own, selection, out, dry_run)
    if json_:
        print(json.dumps(told.to_dict()))
    else:
        print("\n".join(told.words()))
    told.raise_for_missing()


def _day(at: datetime | None) -> date | None:
    return at.date() if at is not None else None


def _codes(given: list[str] | None) -> tuple[str, ...]:
    """Modalities in capitals; several may stand in one, with commas between."""
    codes = (code.strip().upper() for each in given or () for code in each.split(","))
    return tuple(dict.fromkeys(code for code in codes if code))
