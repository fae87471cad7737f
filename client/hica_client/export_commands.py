"""`hica-client export` and `verify`: a finished study's model, to hand on."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from hica.deployment.path_arguments import A_PATH, SITE_FILE
from hica.errors import ConfigurationError
from hica.printable import plain
from hica_client.service_commands import Json, SiteFile

app = typer.Typer()


@app.command(epilog="Example: hica-client export hospital/site.toml --to breast-model")
def export(
    site_file: SiteFile,
    to: Annotated[Path, typer.Option(click_type=A_PATH, help="A new folder.")],
    model: Annotated[
        Literal["shared", "personal"],
        typer.Option(
            help="The study's shared model, or this site's own, which learnt from its patients "
            "alone and has no privacy protection."
        ),
    ] = "shared",
    json_: Json = False,
) -> None:
    """Write the model for open_clip, transformers, ONNX Runtime and MONAI, with its card.

    Every form is loaded by its library and compared with HiCA. A list of all files with their
    hashes is signed with this site's key: see `verify`. Nothing is sent anywhere.
    """
    from hica.export.words import exported_lines
    from hica_client.export_site import export_site

    card = export_site(site_file, to, model == "personal")
    print(json.dumps(card) if json_ else plain("\n".join(exported_lines(to, card))))


@app.command(epilog="Example: hica-client verify breast-model --site hospital/site.toml")
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", click_type=A_PATH, help="What `export` has written.")
    ],
    fingerprint: Annotated[
        str | None, typer.Option(help="Of the key that must have signed it (SHA256:...).")
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            metavar="SITE",
            click_type=SITE_FILE,
            help="Site file or its folder: the coordinator of its start kit must have signed it.",
        ),
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

    if site is not None:
        from hica_client.export_site import known_signer

        if fingerprint is not None:
            raise ConfigurationError("--site, --fingerprint: give one of the two")
        fingerprint = known_signer(site)
    found = verify_folder(folder, fingerprint, unsigned)
    lines = verified_lines(folder, found, fingerprint is not None)
    print(json.dumps(found.to_dict()) if json_ else plain("\n".join(lines)))
