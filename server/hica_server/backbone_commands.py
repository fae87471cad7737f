"""`hica-server backbone`: weights that the coordinator or a hub has, made ready to use."""

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
from hica_server.folder_arguments import Root

app = typer.Typer(
    help="Bring pretrained weights into the coordinator's data folder.", no_args_is_help=True
)


@app.command("import", epilog="Example: hica-server backbone import my-study biomedclip")
def import_(
    folder: Root,
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
    from hica_server.settings import load_settings

    options = said(
        mean=mean,
        std=std,
        size=size,
        interpolation=interpolation,
        resize=resize,
        pad_type=pad_type,
    )
    show(import_any(source, load_settings(folder).data.folder, architecture, options, name), json_)


@app.command(epilog="Example: hica-server backbone fetch my-study OWNER/NAME@COMMIT")
def fetch(folder: Root, model: Pinned, name: Name = None, json_: Json = False) -> None:
    """Fetch a model of the Hugging Face hub, where `data.hubs = true`, and do as `import` does."""
    from hica.towers.backbone import fetch as fetched
    from hica_server.settings import load_settings

    data = load_settings(folder).data
    show(fetched(model, data.folder, data.hubs, {}, name), json_)
