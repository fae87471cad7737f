"""Draft: findings of a study's classes as a file, with where they come from and who read them.

    reviewed_by = "Dr A. Nowak"

    [source]
    kind = "language-model"
    ...

    [[classes]]
    name = "benign"
    findings = ["oval shape", "circumscribed margin"]

Only a reviewed file is let into a study: what was generated is never used unseen.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w

from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Count, Section, Sha256, Study, read_toml, validated
from hica_server.findings.phrases import problems_of

Findings = Mapping[str, Sequence[str]]
"""Class name → its findings."""

WHAT_TO_CHECK = """\
# Findings, not yet part of any study. Read every phrase, correct, add and delete, then put your
# name into reviewed_by. Of each phrase, ask:
#
# - Can it be seen in ONE region of an image? Not: a diagnosis, a history, a whole examination.
# - Does it name what is there, never what is absent? "no mass" would be pulled to masses.
# - Is it true of this class? One that points either way teaches nothing.
# - Findings of a healthy class are seen in every image: they are positives of every class.
# - A finding may be listed by several classes, in exactly the same words.
"""


class Source(Section):
    """`[source]`: where the phrases come from."""

    kind: Literal["curated", "template", "language-model", "random"]
    model: str | None = None
    """Name in the hub, or of the folder, of a language model."""
    sha256: Sha256 | None = None
    """Hash of the model's folder (`hica_server.findings.model_folder.folder_sha256`)."""
    prompt: str | None = None
    """What it was asked, `{name}` and `{modality}` not yet filled in."""
    seed: Count | None = None
    """Of what was drawn; none where nothing was."""
    date: datetime.date


class ClassFindings(Section):
    """`[[classes]]`: the findings of one class."""

    name: str
    findings: list[str]


class Draft(Section):
    """The whole file."""

    reviewed_by: str = ""
    """Who read every phrase; an empty one keeps the file out of a study."""
    source: Source
    classes: list[ClassFindings]

    @property
    def findings(self) -> Findings:
        """Class name → its findings."""
        return {item.name: item.findings for item in self.classes}

    @classmethod
    def of(cls, source: Source, findings: Findings) -> Self:
        """A draft that nobody has read yet."""
        classes = [ClassFindings(name=name, findings=list(of)) for name, of in findings.items()]
        return cls(source=source, classes=classes)


def write_draft(path: Path, draft: Draft, study: Study) -> None:
    """Write a draft with comments that say what to check; an existing file is left alone.

    Raises:
        ConfigurationError: The file exists, or the draft does not fit the study.
        StorageError: It could not be written.
    """
    refuse_existing(path, "choose another --out")
    check(draft, study, str(path))
    tables = [
        WHAT_TO_CHECK,
        _toml({"reviewed_by": draft.reviewed_by}),
        "[source]\n" + _toml(draft.source.model_dump(exclude_none=True)),
        *("[[classes]]\n" + _toml(item.model_dump()) for item in draft.classes),
    ]
    write_atomically(path, "\n".join(tables).encode())


def refuse_existing(path: Path, remedy: str) -> None:
    """Refuse to write over a file, which may hold what somebody corrected by hand.

    Raises:
        ConfigurationError: It exists.
    """
    if path.exists():
        raise ConfigurationError(f"{path}: exists and is left alone; {remedy}")


def read_reviewed(path: Path, study: Study) -> Draft:
    """Read a draft that somebody has reviewed.

    Raises:
        ConfigurationError: Names the file, every field at fault and the remedy.
    """
    draft = validated(Draft, read_toml(path), str(path))
    check(draft, study, str(path))
    if not draft.reviewed_by.strip():
        raise ConfigurationError(
            f'{path}: reviewed_by is empty: read every phrase, then set reviewed_by = "YOUR NAME" '
            "at the top of the file; findings that nobody has read are not used"
        )
    return draft


def check(draft: Draft, study: Study, source: str) -> None:
    """Refuse a draft that does not give each class of `study` findings that can be used.

    Raises:
        ConfigurationError: Lists every problem as `source: classes.NAME: problem`.
    """
    given, wanted = [item.name for item in draft.classes], study.class_names
    problems = [
        f"{name!r}: is no class of the study, whose classes are {', '.join(wanted)}; "
        "correct the name or remove the table"
        for name in given
        if name not in wanted
    ]
    problems += [
        f"{name!r}: is given twice; make one table of the two"
        for name in dict.fromkeys(given)
        if given.count(name) > 1
    ]
    problems += [
        f"{name!r}: is missing; add a [[classes]] table with this name and its findings"
        for name in wanted
        if name not in given
    ]
    for item in draft.classes:
        problems += [f"{item.name!r}: {found}" for found in problems_of(item.findings)]
    if problems:
        raise ConfigurationError("\n".join(f"{source}: classes: {found}" for found in problems))


def _toml(table: Mapping[str, Any]) -> str:
    return tomli_w.dumps(table, multiline_strings=True, indent=2)
