"""The study: tables of `study.toml` (`sections`, `schema`) and how they are read (`reading`)."""

from hica.study.reading import (
    NO_CHANGES,
    Changes,
    apply_overrides,
    changed,
    load_study,
    merged,
    read_text,
    read_toml,
    validated,
)
from hica.study.schema import Study
from hica.study.sections import (
    Count,
    Fraction,
    NonNegative,
    Section,
)
from hica.study.written import Name, Sha256, WrittenAs

__all__ = [
    "NO_CHANGES",
    "Changes",
    "Count",
    "Fraction",
    "Name",
    "NonNegative",
    "Section",
    "Sha256",
    "Study",
    "WrittenAs",
    "apply_overrides",
    "changed",
    "load_study",
    "merged",
    "read_text",
    "read_toml",
    "validated",
]
