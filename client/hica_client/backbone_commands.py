"""`hica-client backbone`: weights that the hospital or a hub has, made ready to use."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.path_arguments import A_PATH
from hica.printable import plain, printable
from hica_client.service_commands import Json, SiteFile

if TYPE_CHECKING:
    from hica.towers.backbone import Backbone

app = typer.Typer(
    help="Bring pretrained weights into the site's folder of weights.", no_args_is_help=True
)

Numbers = tuple[float, float, float]
Mean = Annotated[
    Numbers | None, typer.Option(help="Mean of the colours, in 0..1, that the weights expect.")
]
Std = Annotated[Numbers | None, typer.Option(help="Their standard deviation.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the images, in pixels.")]
Name = Annotated[str | None, typer.Option(help="What it is called there; by default as it is.")]


@app.command("import", epilog="Example: hica-client backbone import hospital biomedclip")
def import_(
    site_file: SiteFile,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            click_type=A_PATH,
            help="A checkpoint, or a model's folder as it is on the hub.",
        ),
    ],
    architecture: Annotated[
        str | None,
        typer.Option(help="Of a file: its model, such as timm/resnet50 or ViT-B-16."),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    interpolation: Annotated[
        str | None, typer.Option(help="Of a file: bilinear or bicubic.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Of a file: squash, shortest or longest.")
    ] = None,
    pad_type: Annotated[
        str | None, typer.Option(help="Of a file: same, for weights from TensorFlow.")
    ] = None,
    name: Name = None,
    json_: Json = False,
) -> None:
    """Copy weights in a safe format, load them, and print what a study writes of them.

    A file that says no colours needs --mean and --std. No code of a model is ever run.
    """
    from hica.study import validated
    from hica.towers.backbone import import_any
    from hica.towers.preprocessing import Options
    from hica_client.site import load_site

    given = {
        "mean": mean,
        "std": std,
        "size": size,
        "interpolation": interpolation,
        "resize": resize,
        "pad_type": pad_type,
    }
    said = {key: value for key, value in given.items() if value is not None}
    options = validated(Options, said, "options").model_dump(exclude_unset=True)
    _show(import_any(source, load_site(site_file).data.weights, architecture, options, name), json_)


@app.command(epilog="Example: hica-client backbone fetch hospital OWNER/NAME@COMMIT")
def fetch(
    site_file: SiteFile,
    model: Annotated[
        str, typer.Argument(metavar="OWNER/NAME@COMMIT", help="With all 40 digits of the commit.")
    ],
    name: Name = None,
    json_: Json = False,
) -> None:
    """Fetch a model of the Hugging Face hub, where `data.hubs = true`, and do as `import` does."""
    from hica.towers.backbone import fetch as fetched
    from hica_client.site import load_site

    data = load_site(site_file).data
    _show(fetched(model, data.weights, data.hubs, {}, name), json_)


def _show(found: "Backbone", json_: bool) -> None:
    """Print what was brought, and the lines for `study.toml`."""
    from hica.towers.backbone import toml_lines

    told: dict[str, Any] = found.to_dict()
    if json_:
        print(json.dumps(told))
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    grid = told["grid"]
    patches = f"{told['width']} wide, {grid} × {grid} patches, {told['blocks']} blocks"
    facts = {"weights": told["path"], "image tower": told["fingerprint"], "embedding": patches}
    for key, words in {**facts, **told["preprocess"]}.items():
        table.add_row(key, printable(words))
    Console().print(table)
    for note in told["notes"]:
        print(plain(f"note: {note}"))
    print(f"\nFor study.toml:\n\n{plain(toml_lines(found.model))}")
