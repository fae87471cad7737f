"""The study: the tables of `study.toml` (`schema`) and how they are read (`reading`)."""

from hica.study.reading import apply_overrides, load_study, read_toml, validated
from hica.study.schema import (
    Count,
    Fraction,
    Name,
    NonNegative,
    Section,
    Study,
)

__all__ = [
    "Count",
    "Fraction",
    "Name",
    "NonNegative",
    "Section",
    "Study",
    "apply_overrides",
    "load_study",
    "read_toml",
    "validated",
]
