"""`hica-server export` and `verify`: a finished study's model, to hand on."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hica.deployment.path_arguments import A_PATH
from hica.printable import plain
from hica_server.folder_arguments import RUN_FOLDER

app = typer.Typer()

FILES = (".safetensors", ".pt", ".pth", ".bin", ".onnx", ".json", ".zip")
"""Endings of files: a folder is called otherwise."""
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(epilog="Example: hica-server export my-study --to breast-model")
def export(
    run: Annotated[
        Path,
        typer.Argument(click_type=RUN_FOLDER, help="Folder of a finished run, or a study's."),
    ],
    to: Annotated[
        Path,
        typer.Option(
            click_type=A_PATH,
            help="A new folder; or a .safetensors file, for the trained part alone.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            click_type=A_PATH,
            help="Folder of weights that the study pins; by default that of server.toml.",
        ),
    ] = None,
    hubs: Annotated[
        bool, typer.Option("--hubs", help="Fetch weights that are pinned and not here from a hub.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over existing files (of a .safetensors file).")
    ] = False,
    json_: Json = False,
) -> None:
    """Write the model for open_clip, transformers, ONNX Runtime and MONAI, with its card.

    Every form is loaded by its library and compared with HiCA. A list of all files with their
    hashes is signed with the key that signs the study's requests: see `verify`.
    """
    if to.suffix in FILES:
        from hica_server.export_trained import export_model

        described = export_model(run, to, force)
        both = {"model": str(to), "description": str(described)}
        print(json.dumps(both) if json_ else f"{to} and {described}")
        return
    from hica.export.words import exported_lines
    from hica_server.export_run import export_run

    card = export_run(run, to, data, hubs)
    print(json.dumps(card) if json_ else plain("\n".join(exported_lines(to, card))))


@app.command(epilog="Example: hica-server verify breast-model --fingerprint SHA256:kX3...")
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", click_type=A_PATH, help="What `export` has written.")
    ],
    fingerprint: Annotated[
        str | None, typer.Option(help="Of the key that must have signed it (SHA256:...).")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Let a folder pass that nobody has signed.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check, without a network, that an exported folder is as it was exported, and who signed it.

    Ends with code 3 and the first file that was changed, is missing or was added.
    """
    from hica.export.manifest import verify as verify_folder
    from hica.export.words import verified_lines

    found = verify_folder(folder, fingerprint, unsigned)
    lines = verified_lines(folder, found, fingerprint is not None)
    print(json.dumps(found.to_dict()) if json_ else plain("\n".join(lines)))
