"""`hica-client predict`: a finished study's model on a hospital's own images."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.path_arguments import A_PATH
from hica.errors import ConfigurationError, DataError
from hica.printable import plain, printable
from hica.progress import say
from hica_client.service_commands import Json, SiteFile

app = typer.Typer()
SHOWN = 20
"""Images that are listed on the screen; the table has all."""


@app.command(epilog="Example: hica-client predict hospital/site.toml new-images --out predicted")
def predict(
    site_file: SiteFile,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES", click_type=A_PATH, help="An image, a folder, or a manifest (.csv)."
        ),
    ],
    out: Annotated[
        Path, typer.Option(click_type=A_PATH, help="Folder for table, JSON and page.")
    ] = Path("predicted"),
    model: Annotated[
        Literal["personal", "shared"],
        typer.Option(help="With this site's own models, or the shared one alone."),
    ] = "personal",
    coverage: Annotated[
        float,
        typer.Option(min=0.5, max=0.99, help="How often the classes in question hold the right."),
    ] = 0.9,
    of: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Class of an operating point.")
    ] = None,
    sensitivity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of those with it who must be called.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the others who must not be.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            click_type=A_PATH,
            help="Classes that the study was not trained on, by texts alone.",
        ),
    ] = None,
    sr: Annotated[
        bool, typer.Option("--sr", help="Write a DICOM SR of each DICOM image, in OUT/dicom.")
    ] = False,
    secondary_capture: Annotated[
        bool,
        typer.Option("--secondary-capture", help="Write its heat map as a DICOM image, likewise."),
    ] = False,
    json_: Json = False,
) -> None:
    """Say which class each image is of, or that it is not known, once a study is over.

    Probabilities and classes in question are calibrated on this site's held-out patients. Nothing
    leaves. Exit code 3 where an image could not be read; the others are predicted all the same.
    """
    from hica.images.folders import Found
    from hica_client.prediction.dicom_results import Wanted, check_wanted, write_dicom
    from hica_client.prediction.images import images_of
    from hica_client.prediction.models import site_models
    from hica_client.prediction.predict import Predictor
    from hica_client.prediction.written import DONT_KNOW, note_of, write_all

    records, passed_over = images_of(images)
    for note in Found([], passed_over).notes:
        say(plain(note))
    wanted = Wanted(sr, secondary_capture)
    check_wanted(wanted, records, out)
    predictor = Predictor(site_models(site_file, own=model == "personal"), coverage)
    if of is not None:
        predictor.operating_point(of, sensitivity, specificity)
    elif sensitivity is not None or specificity is not None:
        raise ConfigurationError("--sensitivity, --specificity: of which class? Add --of CLASS")
    if classes is not None:
        from hica_client.prediction.unseen import unseen_classes

        predictor.unseen = unseen_classes(classes, predictor.models)
        for note in predictor.unseen.notes:
            say(f"{', '.join(predictor.unseen.new)}: {note}")
    predictions = list(predictor.predictions(records))
    written, problems = write_dicom(out, wanted, predictor, records, predictions)
    found = write_all(out, predictor, records, predictions, written)
    if json_:
        print(json.dumps(found))
    else:
        table = Table(title=f"{len(records)} images: {out / 'page.html'}", title_justify="left")
        for title in ("image", "answer", "probability", "note"):
            table.add_column(title, overflow="fold")
        for each in predictions[:SHOWN]:
            share = f"{100 * max(each.probabilities.values()):.0f} %" if each.probabilities else ""
            words = (each.image, each.answer or DONT_KNOW, share, note_of(each))
            table.add_row(*map(printable, words))
        Console().print(table)
        if len(predictions) > SHOWN:
            print(f"and {len(predictions) - SHOWN} more in {out / 'predictions.csv'}")
    for problem in problems[1:]:
        say(plain(str(problem)))
    unread = [each for each in predictions if not each.probabilities]
    if unread:
        raise DataError(
            f"{len(unread)} of {len(records)} images could not be read: {unread[0].why}"
        )
    if problems:
        raise DataError(f"{len(problems)} images have no result in DICOM: {problems[0]}")
