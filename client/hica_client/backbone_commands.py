"""`hica-client backbone`: weights that the hospital or a hub has, made ready to use."""

import typer

from hica.backbone_options import (
    Architecture,
    Interpolation,
    Json,
    Mean,
    Name,
    PadType,
    Pinned,
    Resize,
    Size,
    Source,
    Std,
    said,
    show,
)
from hica_client.service_commands import SiteFile

app = typer.Typer(
    help="Bring pretrained weights into the site's folder of weights.", no_args_is_help=True
)


@app.command("import", epilog="Example: hica-client backbone import hospital biomedclip")
def import_(
    site_file: SiteFile,
    source: Source,
    architecture: Architecture = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    interpolation: Interpolation = None,
    resize: Resize = None,
    pad_type: PadType = None,
    name: Name = None,
    json_: Json = False,
) -> None:
    """Copy weights in a safe format, load them, and print what a study writes of them.

    A file that says no colours needs --mean and --std. No code of a model is ever run.
    """
    from hica.towers.backbone import import_any
    from hica_client.site import load_site

    options = said(
        mean=mean,
        std=std,
        size=size,
        interpolation=interpolation,
        resize=resize,
        pad_type=pad_type,
    )
    show(import_any(source, load_site(site_file).data.weights, architecture, options, name), json_)


@app.command(epilog="Example: hica-client backbone fetch hospital OWNER/NAME@COMMIT")
def fetch(site_file: SiteFile, model: Pinned, name: Name = None, json_: Json = False) -> None:
    """Fetch a model of the Hugging Face hub, where `data.hubs = true`, and do as `import` does."""
    from hica.towers.backbone import fetch as fetched
    from hica_client.site import load_site

    data = load_site(site_file).data
    show(fetched(model, data.weights, data.hubs, {}, name), json_)
