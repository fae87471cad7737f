"""backbone_options: what `backbone import` and `fetch` take and print, on both sides."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.path_arguments import A_PATH
from hica.printable import plain, printable

if TYPE_CHECKING:
    from hica.towers.backbone import Backbone

Numbers = tuple[float, float, float]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE|FOLDER",
        click_type=A_PATH,
        help="A checkpoint, or a model's folder as it is on the hub.",
    ),
]
Pinned = Annotated[
    str, typer.Argument(metavar="OWNER/NAME@COMMIT", help="The commit with all 40 digits.")
]
Architecture = Annotated[
    str | None, typer.Option(help="Of a file: its model, such as timm/resnet50 or ViT-B-16.")
]
Mean = Annotated[
    Numbers | None, typer.Option(help="Mean of the colours, in 0..1, that the weights expect.")
]
Std = Annotated[Numbers | None, typer.Option(help="Their standard deviation.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the images, in pixels.")]
Interpolation = Annotated[str | None, typer.Option(help="Of a file: bilinear or bicubic.")]
Resize = Annotated[str | None, typer.Option(help="Of a file: squash, shortest or longest.")]
PadType = Annotated[str | None, typer.Option(help="Of a file: same, for weights from TensorFlow.")]
Name = Annotated[str | None, typer.Option(help="What it is called there; by default as it is.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def said(**options: object) -> dict[str, Any]:
    """What the options say of how images are prepared; those left out are None.

    Raises:
        ConfigurationError: A value that there is not.
    """
    from hica.study import validated
    from hica.towers.preprocessing import Options

    given = {key: value for key, value in options.items() if value is not None}
    return validated(Options, given, "options").model_dump(exclude_unset=True)


def show(found: "Backbone", json_: bool) -> None:
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
