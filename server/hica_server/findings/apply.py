"""Reviewed findings put into a study file."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from hica.storage import write_atomically
from hica.study import Study, read_text, read_toml, validated
from hica_server.findings.draft import Findings, refuse_existing
from hica_server.findings.study_text import with_findings


class Applied(NamedTuple):
    """What became of a study file."""

    study: Study
    """The new one."""
    kept: Path | None
    """Where the old text is, if it was written over."""
    has_comments: bool
    """Whether the comments of the old text are in the new one."""


def read_study(path: Path) -> Study:
    """The study of a file that may also hold a `[simulation]` table, which only `hica-sim` reads.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    return _study(read_toml(path), path)


def apply_findings(path: Path, findings: Findings, out: Path | None) -> Applied:
    """Write the study of `path` with other findings, those of every class.

    Without `out`, `path` is written over and the old text kept as `study.toml.bak`.

    Raises:
        ConfigurationError: The new file, or the one for the old text, exists; or `path` is no
            study.
        StorageError: A file could not be written.
    """
    kept = None
    if out is None:
        kept = path.with_name(f"{path.name}.bak")
        refuse_existing(kept, "move it away, or write the new study elsewhere with --out")
    else:
        refuse_existing(out, "choose another --out, or leave it out to write over the study")
    read_study(path)  # first: only the text of a valid study is edited
    old = read_text(path)
    text, has_comments = with_findings(old, findings)
    study = _study(tomllib.loads(text), path)
    if kept is not None:
        write_atomically(kept, old.encode())
    write_atomically(out or path, text.encode())
    return Applied(study, kept, has_comments)


def _study(table: dict[str, Any], path: Path) -> Study:
    return validated(Study, {key: table[key] for key in table if key != "simulation"}, str(path))
