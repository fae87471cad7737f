"""`hica-client`: what a hospital runs.

Exit codes are those of `hica.errors`; `check` ends with the code of the first problem it lists.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from hica.deployment.command_line import Version, run_app
from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.errors import EXIT_CODES, ConfigurationError
from hica.printable import plain
from hica.storage import keep_private, write_atomically
from hica_client.backbone_commands import app as backbone_commands
from hica_client.explanation_commands import app as explanation_commands
from hica_client.export_commands import app as export_commands
from hica_client.intake_commands import app as intake_commands
from hica_client.pacs_commands import app as pacs_commands
from hica_client.prediction_commands import app as prediction_commands
from hica_client.preflight_words import fact_table, show
from hica_client.reports_commands import app as reports_commands
from hica_client.review_commands import app as review_commands
from hica_client.service_commands import Json, SiteFile
from hica_client.service_commands import app as service_commands

app = typer.Typer(
    help=f"Prepare a hospital's images for a federated study.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
)

app.add_typer(intake_commands)
app.add_typer(service_commands)
app.add_typer(backbone_commands, name="backbone")
app.add_typer(pacs_commands)
app.add_typer(prediction_commands)
app.add_typer(export_commands)
app.add_typer(review_commands)
app.add_typer(explanation_commands)
app.add_typer(reports_commands)


@app.callback()
def common(version: Version = False) -> None:
    """Options of every command."""


@app.command(epilog="Example: hica-client init hospital --images exported")
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", click_type=A_PATH, help="Made where it is missing.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            click_type=A_PATH,
            help="Folder with one folder of images per class, to fill the manifest from.",
        ),
    ] = None,
) -> None:
    """Write an annotated site.toml and a manifest.csv; existing ones are left alone."""
    from hica.images.folders import Found, records_from_folders
    from hica.images.manifest import write_manifest

    site, manifest = folder / "site.toml", folder / "manifest.csv"
    for path in (site, manifest):
        if path.exists():
            raise ConfigurationError(f"{path}: exists and is left alone; choose another folder")
    found = records_from_folders(images) if images is not None else Found([], {})
    write_manifest(manifest, found.records, groups=False)
    write_atomically(
        site, resources.files("hica_client").joinpath("example_site.toml").read_bytes()
    )
    for note in found.notes:
        print(plain(f"{images}: {note}"))
    print(f"{manifest}: {len(found.records)} images; fill in patient_id where you know it")
    print(f"{site}: edit it, then run: hica-client check {site}")


@app.command(epilog="Example: hica-client check hospital/site.toml --study study.toml")
def check(
    site_file: SiteFile,
    study: Annotated[
        Path | None,
        typer.Option(
            click_type=STUDY_FILE, help="The coordinator's study, to see whether the two fit."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without connecting to the coordinator.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            click_type=A_PATH,
            help="Where the contact sheet goes, in place of the site's state folder.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """List all that would stop a run, each with its remedy: every image, the kit, the network.

    Draws a contact sheet (PNG) of what a model will see, what looks wrong first. It shows patients:
    only you may read the file; do not send it on.

    Where there is a start kit, the coordinator is asked for its health page, and whether it has
    enrolled this site's key. Nothing else is sent.
    """
    from hica_client.contact_sheet import check_place
    from hica_client.preflight import preflight

    if sheet is not None:
        check_place(sheet)
    found = preflight(site_file, study, offline, sheet)
    if json_:
        print(json.dumps(found.to_dict()))
    else:
        show(found, Console())
    raise typer.Exit(found.exit_code)


@app.command(epilog="Example: hica-client keygen hospital/site.toml")
def keygen(site_file: SiteFile, json_: Json = False) -> None:
    """Make the site's key pair; the private key never leaves the hospital."""
    from hica.deployment.keys import fingerprint, generate, public_path
    from hica_client.site import load_site

    key = load_site(site_file).federation.key
    made = fingerprint(generate(key))
    if json_:
        print(json.dumps({"fingerprint": made, "public_key": str(public_path(key))}))
        return
    print(f"fingerprint  {made}")
    print(f"send to the coordinator  {public_path(key)}")


@app.command(epilog="Example: hica-client approve hospital/site.toml 3f2a9c81d0e4")
def approve(
    site_file: SiteFile,
    study_hash: Annotated[
        str, typer.Argument(metavar="HASH", help="The study's hash, at least 12 digits of it.")
    ],
    study: Annotated[
        Path | None,
        typer.Option(click_type=STUDY_FILE, help="The study (TOML), in place of the start kit's."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without asking.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the approval back.")] = False,
    json_: Json = False,
) -> None:
    """Show a study and all that will leave the site, ask, and record the approval.

    With --json all of that goes to standard error, and the decision to standard output.
    """
    from hica_client.consent import decide, take_back
    from hica_client.site import load_site

    site = load_site(site_file)
    console = Console(stderr=json_)
    if revoke:
        decided = take_back(site, study_hash, console)
    else:
        decided = [decide(site, study_hash, study, yes, console)]
    if json_:
        print(json.dumps([asdict(decision) for decision in decided]))


@app.command(epilog="Example: hica-client withdraw hospital/site.toml P0042")
def withdraw(
    site_file: SiteFile,
    patient: Annotated[
        str,
        typer.Argument(
            help="patient_id of the manifest; of an image without one, its column image."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Withdraw without asking.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Take a patient out of manifest, cache, kept labels and all future rounds; for good.

    What left the site before, and what a model has learnt, cannot be taken back.
    """
    from hica_client.consent import confirmed, user_name
    from hica_client.patient import images_of
    from hica_client.site import load_site
    from hica_client.withdrawal import REMAINS, withdraw

    site = load_site(site_file)
    if not yes:
        question = f"{patient}: {images_of(site, patient).words}. Take them out for good?"
        if not confirmed(plain(question), err=True):
            raise typer.Abort
    found = withdraw(site, patient, user_name())
    if json_:
        told = {"images": len(found.images), "rows": sorted(found.rows), "left": found.others}
        print(json.dumps({**told, "log": str(site.withdrawals), "remains": REMAINS}))
    else:
        print(plain(f"{patient}: taken out: {found.words}. Logged in {site.withdrawals}"))
        print(REMAINS)


@app.command(epilog="Example: hica-client audit hospital/site.toml")
def audit(
    site_file: SiteFile,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Verify the audit log and sum up everything that left the site.

    Keep the last hash elsewhere: a log that does not contain it later was written anew.
    """
    from hica_client.audit_summary import show_summary, summarise
    from hica_client.site import load_site

    found = summarise(load_site(site_file).audit_log)
    if json_:
        print(json.dumps(found))
    else:
        show_summary(found, Console())


@app.command(epilog="Example: hica-client ledger hospital/site.toml --json")
def ledger(
    site_file: SiteFile,
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Begin a damaged ledger anew with all that was spent; the damaged files are kept.",
        ),
    ] = False,
) -> None:
    """Verify the privacy ledger and tell what studies have spent on these patients.

    Ends with code 3 where the ledger was changed or cut short: nothing private leaves until it is
    repaired.
    """
    from hica_client.consent import user_name
    from hica_client.ledger_repair import repair as repair_ledger
    from hica_client.site import load_site
    from hica_client.spending import show_spending, spending

    site = load_site(site_file)
    kept = repair_ledger(site.ledger, site.audit_log, user_name()) if repair else []
    found = spending(site.ledger, site.policy.max_epsilon, site.policy.delta)
    if json_:
        print(json.dumps({**found, "kept": [str(each) for each in kept]}))
    else:
        for each in kept:
            print(f"damaged file kept as {each}")
        show_spending(found, Console())


@app.command(epilog="Example: hica-client run hospital/site.toml")
def run(site_file: SiteFile) -> None:
    """Take part in the approved study until it is over: connect, answer, restart what dies."""
    from hica_client import operation

    raise typer.Exit(operation.run(site_file))


@app.command(epilog="Example: hica-client status hospital/site.toml --json")
def status(
    site_file: SiteFile,
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell whether the client runs and is connected, and what it last answered."""
    from hica_client import status as state

    found = state.status(site_file)
    if json_:
        print(json.dumps(found))
    else:
        Console().print(fact_table(state.describe(found)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `hica-client`."""
    keep_private()
    run_app(app, "hica-client", arguments)
