"""`hica-server findings`: propose findings as a file, and put a reviewed one into a study."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hica.deployment.path_arguments import A_PATH, STUDY_FILE
from hica.printable import plain
from hica_server.findings.apply import apply_findings, read_study
from hica_server.findings.draft import read_reviewed, refuse_existing, write_draft
from hica_server.findings.propose import Kind, propose

app = typer.Typer(
    help="Propose findings as a file to review, and put a reviewed one into a study.",
    no_args_is_help=True,
)

StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY", click_type=STUDY_FILE, help="The study file (TOML).")
]


@app.command(
    epilog="Example: hica-server findings draft my-study/study.toml --source language-model "
    "--model models/NAME --out findings.toml"
)
def draft(
    study_file: StudyFile,
    out: Annotated[
        Path, typer.Option(click_type=A_PATH, help="The file to review; it must not exist yet.")
    ],
    source: Annotated[
        Kind,
        typer.Option(
            help="A language model; templates of the class names, the weakest; or random words, "
            "the control of a comparison."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER_OR_NAME",
            help="Causal language model: a folder, or OWNER/NAME@COMMIT of a hub.",
        ),
    ] = None,
    hubs: Annotated[
        bool, typer.Option("--hubs", help="Fetch the model from a hub where it is not here.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of random words (default: the study's); a language model samples with one and "
            "takes the likeliest token without.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write proposed findings for every class to a file, for you to read and correct.

    Nothing of it is used before you have set reviewed_by in it and applied it.
    """
    study = read_study(study_file)
    refuse_existing(out, "choose another --out")  # before a model is asked for minutes
    made, left_out = propose(study, source, model, seed, hubs)
    write_draft(out, made, study)
    if json_:
        told = made.source.model_dump(mode="json")
        lists = {name: list(findings) for name, findings in made.findings.items()}
        print(
            json.dumps({"file": str(out), "source": told, "classes": lists, "left_out": left_out})
        )
        return
    for name, findings in made.findings.items():
        print(plain(f"{name}: {len(findings)} proposed: {', '.join(findings)}"))
    for name, lines in left_out.items():
        for line, reason in lines:
            print(plain(f"{name}: left out {line[:80]!r}: {reason}"))
    print(
        f"{out}: read every phrase, set reviewed_by, then: "
        f"hica-server findings apply {study_file} {out}"
    )


@app.command(epilog="Example: hica-server findings apply my-study/study.toml findings.toml")
def apply(
    study_file: StudyFile,
    findings_file: Annotated[
        Path, typer.Argument(metavar="FINDINGS", click_type=A_PATH, help="Reviewed (TOML).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            click_type=A_PATH,
            help="A new study file. Without: STUDY, whose old text is kept as STUDY.bak.",
        ),
    ] = None,
) -> None:
    """Put reviewed findings into the classes of a study, and show its new hash."""
    before = read_study(study_file)
    reviewed = read_reviewed(findings_file, before)
    after = apply_findings(study_file, reviewed.findings, out)
    kept = f" (before: {after.kept})" if after.kept else ""
    print(f"{out or study_file}: findings reviewed by {reviewed.reviewed_by.strip()}{kept}")
    if not after.has_comments:
        print("Its classes were in another form than [[classes]] tables: its comments are lost.")
    print(f"sha256  {after.study.sha256}")
    gone = [name for name in before.finding_names if name not in after.study.finding_names]
    if gone:
        print(f"No longer findings, so passed over in manifests: {', '.join(gone)}")
    if before.sha256 == after.study.sha256:
        print("It is the same study as before; nobody has to approve it anew.")
    else:
        print("It is another study now: hospitals must approve it anew, with new start kits.")
