"""`hica-client explain`: what stands behind a prediction, and all held-out images of a study."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.path_arguments import A_PATH
from hica.errors import ConfigurationError
from hica.printable import printable
from hica_client.service_commands import Json, SiteFile

app = typer.Typer()


@app.command(epilog="Example: hica-client explain hospital/site.toml new/17.png --out explained")
def explain(
    site_file: SiteFile,
    image: Annotated[
        Path | None, typer.Argument(metavar="IMAGE", click_type=A_PATH, help="An image file.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="All held-out images of the study, in place of IMAGE.")
    ] = False,
    out: Annotated[
        Path, typer.Option(click_type=A_PATH, help="Folder for page, pictures and JSON: empty.")
    ] = Path("explained"),
    model: Annotated[
        Literal["personal", "shared"],
        typer.Option(help="With this site's own models, or the shared one alone."),
    ] = "personal",
    by: Annotated[
        Literal["shared", "personal", "alone"] | None,
        typer.Option(help="The model that regions, maps and shots are by: else the weightiest."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A class or finding to map; may be given often."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(click_type=A_PATH, help="Outline of the lesion in IMAGE.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show what stands behind the prediction of an image, once a study is over.

    Which finding matches which region, where it is like a class, the nearest labelled images of
    this site, and which model says what. With --test a page with a row for every held-out image,
    the wrong ones first. Nothing leaves.
    """
    from hica_client.prediction.explanation_written import check_empty
    from hica_client.prediction.models import site_models
    from hica_client.prediction.predict import Predictor

    _check_asked(image, test, {"--by": by, "--text": text, "--mask": mask})
    check_empty(out)
    predictor = Predictor(site_models(site_file, own=model == "personal"), coverage=0.9)
    if test:
        from hica_client.prediction.held_out_page import show_held_out, write_held_out

        found = write_held_out(out, predictor)
        if not json_:
            show_held_out(found, out, Console())
    else:
        from hica.images.manifest import Record
        from hica_client.prediction.explanation import explained
        from hica_client.prediction.explanation_written import write_explanation

        pictured = explained(predictor, Record(image=Path(image or ""), mask=mask), text or [], by)
        found = write_explanation(out, predictor, pictured)
        if not json_:
            _show(found, out, Console())
    if json_:
        print(json.dumps(found))


def _check_asked(image: Path | None, test: bool, of_an_image: dict[str, object]) -> None:
    """Check that it is clear what is to be explained."""
    if (image is None) != test:
        raise ConfigurationError("explain: name an image, or give --test; just one of the two")
    if test:
        for option, value in of_an_image.items():
            if value:
                raise ConfigurationError(f"{option}: is for one IMAGE; leave it out with --test")
    elif image is not None and (image.is_dir() or image.suffix.lower() == ".csv"):
        raise ConfigurationError(
            f"{image}: explain takes one image file; for many use hica-client predict"
        )


def _show(found: dict[str, Any], out: Path, console: Console) -> None:
    """What is said of one image, for people."""
    said, shots = found["prediction"], found["shots"]
    table = Table(title=str(out / "page.html"), title_justify="left", show_header=False)
    lines = [("image", said["image"]), ("answer", said["answer"] or "don't know")]
    lines += [("note", said["why"])] if said["why"] else []
    for voice in found["voices"]:
        likely = max(voice["probabilities"], key=voice["probabilities"].__getitem__)
        share = f"{likely} {100 * voice['probabilities'][likely]:.0f} %"
        lines.append((f"{voice['model']}, weight {100 * voice['weight']:.0f} %", share))
    for region in found["regions"]:
        if region["finding"] is not None:
            words = f"{region['finding']} ({region['similarities'][region['finding']]:.2f})"
            lines.append((f"region {region['region']}", words))
    for shot in shots[:3]:
        words = f"{shot['label']} ({shot['similarity']:.2f}): {shot['image']}"
        lines.append(("like the shot", words + (", this very image" if shot["same"] else "")))
    for title, words in lines:
        table.add_row(title, printable(words))
    console.print(table)
