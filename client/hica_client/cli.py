"""`hica-client`: what a hospital runs.

    hica-client init hospital                          an annotated site.toml and an empty manifest
    hica-client init hospital --images exported        ... the manifest filled from folders by class
    hica-client check hospital/site.toml               is everything here, and can it be read
    hica-client check hospital/site.toml --study study.toml    and does it fit the study

Exit codes: 0 done; 1 fault in the program; 2 command line, study or site file; 3 data;
4 checkpoint; 5 message; 6 federation; 7 storage (disk full); 130 interrupted. `check` ends with
the code of the first problem it lists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hica.command_line import EXIT_CODES, run_app
from hica.errors import ConfigurationError
from hica.storage import write_atomically

if TYPE_CHECKING:
    from hica_client.preflight import Preflight

app = typer.Typer(
    help=f"Prepare a hospital's images for a federated study.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
)


@app.command(epilog="Example: hica-client init hospital --images exported")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is missing.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with one folder of images per class, to fill the manifest from."),
    ] = None,
) -> None:
    """Write an annotated site.toml and a manifest.csv; existing ones are left alone."""
    from hica.images.manifest import records_from_folders, write_manifest

    site, manifest = folder / "site.toml", folder / "manifest.csv"
    for path in (site, manifest):
        if path.exists():
            raise ConfigurationError(f"{path}: exists and is left alone; choose another folder")
    records = records_from_folders(images) if images is not None else []
    write_manifest(manifest, records)
    write_atomically(
        site, resources.files("hica_client").joinpath("example_site.toml").read_bytes()
    )
    print(f"{manifest}: {len(records)} images; fill in patient_id where you know it")
    print(f"{site}: edit it, then run: hica-client check {site}")


@app.command(epilog="Example: hica-client check hospital/site.toml --study study.toml")
def check(
    site_file: Annotated[Path, typer.Argument(metavar="SITE", help="The site file (TOML).")],
    study: Annotated[
        Path | None, typer.Option(help="The coordinator's study, to see whether the two fit.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Read every image and mask and list all that would stop a run, each with its remedy.

    Nothing leaves the machine.
    """
    from hica_client.preflight import preflight

    found = preflight(site_file, study)
    if json_:
        print(json.dumps(found.to_dict()))
    else:
        show(found, Console())
    raise typer.Exit(found.exit_code)


def show(found: Preflight, console: Console) -> None:
    """Facts, notes, problems, and in the last line whether the site is ready."""
    facts = Table(show_header=False, box=None)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in found.facts.items():
        if name != "labels":
            facts.add_row(name.replace("_", " "), escape(_in_words(name, value)))
    console.print(facts)
    if found.facts.get("labels"):
        console.print(_label_table(found.facts["labels"]))
    for note in found.notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    for problem in found.problems:
        console.print(f"[red]problem[/] {escape(str(problem))}", soft_wrap=True)
    count = len(found.problems)
    console.print(f"[red]{count} to mend" if count else "[green]ready", highlight=False)


def _in_words(name: str, value: Any) -> str:
    """A fact in one cell."""
    if name == "cache":
        needed, present, free = (value[key] / 1e9 for key in ("needed", "present", "free"))
        return f"up to {needed:.2f} GB, {present:.2f} GB there already, {free:.1f} GB free"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    return str(value)


def _label_table(labels: dict[str, dict[str, int]]) -> Table:
    """Images by label and split."""
    splits = sorted({split for row in labels.values() for split in row})
    table = Table(title="images", title_justify="left")
    table.add_column("label")
    for split in splits:
        table.add_column(split, justify="right")
    for label, row in labels.items():
        table.add_row(escape(label), *(str(row.get(split, 0)) for split in splits))
    return table


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `hica-client`."""
    run_app(app, "hica-client", arguments)
