"""The Indiana reports, the findings that are looked for, and where MeSH says they are."""

import csv
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import DataError
from hica.reports.assignment import Finding

FILE = Path("text") / "indiana_reports.csv"
COLUMNS = ("MeSH", "findings", "impression")


@dataclass(frozen=True, eq=False)
class Indiana:
    """n reports and M findings.

    Attributes:
        reports: Findings and impression of each report.
        findings: What is looked for.
        trial: [M] bool: the ten of the first trial.
        truth: [n, M] bool: a MeSH heading of the report says it.
    """

    reports: list[str]
    findings: list[Finding]
    trial: NDArray[np.bool_]
    truth: NDArray[np.bool_]


def load(data: Path) -> Indiana:
    """The collection below the folder of data.

    Raises:
        DataError: It is not there, or is another file.
    """
    path = data / FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; put the Indiana reports there (a CSV with the columns "
            f"{', '.join(COLUMNS)}), or name their folder with --data"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV that can be read ({error}); fetch it anew") from None
    missing = [column for column in COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; fetch the file anew")
    listed = wanted()
    return Indiana(
        reports=[f"{row['findings'] or ''}\n\n{row['impression'] or ''}" for row in rows],
        findings=[Finding(entry["name"], tuple(entry["texts"])) for entry in listed],
        trial=np.array([entry.get("trial", False) for entry in listed]),
        truth=np.array(
            [
                [
                    any(indexed(row["MeSH"] or "", term) for term in entry["mesh"])
                    for entry in listed
                ]
                for row in rows
            ]
        ),
    )


def wanted() -> list[dict[str, Any]]:
    """The findings with their texts and headings."""
    text = resources.files(__package__).joinpath("indiana.toml").read_text()
    found: list[dict[str, Any]] = tomllib.loads(text)["findings"]
    return found


def indexed(mesh: str, term: str) -> bool:
    """Whether MeSH headings have a term: its head, and each qualifier after a slash.

    Headings are as `Opacity/lung/base/left;Cardiomegaly/mild`.
    """
    head, *qualifiers = term.lower().split("/")
    for heading in mesh.lower().split(";"):
        own, *parts = (part.strip() for part in heading.split("/"))
        if own == head and set(qualifiers) <= set(parts):
            return True
    return False
