"""`hica-client import`: a folder of an archive's export → pictures and rows of the manifest."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hica.deployment.path_arguments import A_PATH
from hica.printable import plain
from hica.progress import say
from hica_client.intake.meant import Folders
from hica_client.service_commands import Json, SiteFile

app = typer.Typer()


@app.command(
    "import", epilog="Example: hica-client import hospital/site.toml exported --labels labels.csv"
)
def import_(
    site_file: SiteFile,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            click_type=A_PATH,
            help="The export: DICOM, one folder a class, or MedMNIST's .npz. It is only read.",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            click_type=A_PATH,
            help="CSV with `label` and one of file, PatientID, StudyInstanceUID, "
            "SeriesInstanceUID, SOPInstanceUID, AccessionNumber.",
        ),
    ] = None,
    folders: Annotated[
        Folders,
        typer.Option(
            help="What the folders of the export are; auto: classes, if no name may be a person's."
        ),
    ] = Folders.AUTO,
    class_names: Annotated[
        str, typer.Option(help="Names of the classes 0, 1, … of a MedMNIST file, by commas.")
    ] = "",
    skip_burned_in: Annotated[
        bool, typer.Option("--skip-burned-in", help="Leave out pictures that seem to hold text.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Name each file that is not taken, on standard error.")
    ] = False,
    json_: Json = False,
) -> None:
    """Import an export: pictures without names below `images/`, and a row each in the manifest.

    Patients get pseudonyms, the same at every import. Killed, it goes on where it was; the same
    import again adds nothing, and rows that you have changed stay. At the end it says what was
    taken, and why the rest was not.
    """
    from hica_client.intake.intake import Wishes, import_folder
    from hica_client.intake.summary import show
    from hica_client.site import load_site

    names = [name.strip() for name in class_names.split(",")] if class_names else []
    name_it = _name_it if list_ else None
    wishes = Wishes(labels, folders, names, skip_burned_in, name_it)
    found = import_folder(load_site(site_file), source, wishes)
    if json_:
        print(json.dumps(found.to_dict()))
        return
    show(found, Console())
    if found.skipped and not list_:
        print("which files were skipped: the same command with --list")
    print(f"look at the pictures, then run: hica-client check {site_file}")


def _name_it(path: str, reason: str) -> None:
    """Say why a file is not taken."""
    say(plain(f"skipped {path}: {reason}"))
