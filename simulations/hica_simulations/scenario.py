"""Scenario: a study with a `[simulation]` table that says which data stands for which site.

[simulation]
test_fraction = 0.3
labels = { bacterial = "abnormal", viral = "abnormal", normal = "normal" }

[[simulation.sites]]
name = "kermany"
manifest = "cxr_kermany/manifest.csv"
test_where = { split = "test" }
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from hica.errors import ConfigurationError
from hica.study import (
    NO_CHANGES,
    Changes,
    Count,
    Fraction,
    NonNegative,
    Section,
    Study,
    WrittenAs,
    apply_overrides,
    merged,
    read_toml,
    validated,
)
from hica_simulations.masks import MaskDamage
from hica_simulations.phantoms.sites import Modality

SiteName = Annotated[
    str,
    WrittenAs(
        "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        "up to 64 letters, digits, _ and -, the first a letter or digit",
    ),
]
"""A name that a folder can have, too."""
POOLED = "pooled"
"""Name of the site that the pooled baseline trains at."""


Labelling = Literal["all", "random", "suggested"]
Translation = dict[str, dict[str, str]]
"""Column to {term: finding}."""


class PhantomsSection(Section):
    """`[simulation.phantoms]`: the sites' images are drawn instead of read."""

    modality: Modality
    """What is drawn."""
    per_class: PositiveInt = 60
    """Images of each class at each site, the test's included."""
    size: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side in pixels."""
    seed: Count = 0
    """Other phantoms; independent of `study.seed`, so that seeds share their images."""


class ShiftSection(Section):
    """`shift` of a site with phantoms: how its machine departs from the average one."""

    gain: PositiveFloat = 1.0
    """Factor on all grey levels."""
    contrast: PositiveFloat = 1.0
    """Factor on their distance from the mean."""
    blur: NonNegative = 0.0
    """Pixels."""
    speckle: NonNegative = 1.0
    """Factor on the speckle of ultrasound, or the quantum noise of X-ray."""


class SiteSource(Section):
    """`[[simulation.sites]]`: the rows of a manifest that one site holds."""

    name: SiteName
    """What the site is called; its folder, too."""
    manifest: str | None = None
    """CSV below `--data`; none where the study has `[simulation.phantoms]`."""
    where: dict[str, str] = Field(default_factory=dict)
    """Rows whose columns hold these values; all without it."""
    part: (
        Annotated[
            str, WrittenAs("[1-9][0-9]{0,3}/[1-9][0-9]{0,3}", '"k/n", two numbers from 1 to 9999')
        ]
        | None
    ) = None
    """`k/n`: the k-th of n shares of the groups, each label shared out evenly, or as
    `simulation.skew` or `simulation.sizes` say."""
    test_where: dict[str, str] = Field(default_factory=dict)
    """The official test rows; without it a share of the groups is held out."""
    labels: dict[str, str] | None = None
    """Used in place of `simulation.labels`."""
    findings: Translation | None = None
    """Used in place of `simulation.findings`."""
    labelled: bool = True
    """False: the training labels are taken away; the site learns in stage 1 only."""
    label_noise: Fraction = 0.0
    """Share of its labelled training rows that get another class; its test rows keep theirs."""
    shift: ShiftSection = ShiftSection()
    """How its machine departs from the average one, where its images are phantoms."""

    @property
    def share(self) -> tuple[int, int]:
        """`part` as (k, n)."""
        which, _, count = (self.part or "1/1").partition("/")
        return int(which), int(count)

    @model_validator(mode="after")
    def _part_exists(self) -> Self:
        which, count = self.share
        if which > count:
            raise ValueError(
                f"part = {self.part!r} of site {self.name!r}: there are {count} parts; "
                f'write "1/{count}" to "{count}/{count}"'
            )
        return self


class Simulation(Section):
    """`[simulation]`: the sites, and what is held out for the test."""

    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of each site's groups (patients, near-duplicates) held out."""
    split_seed: Count = 0
    """Draws parts and test groups. Not `study.seed`: all seeds of a study share their tests."""
    unlabelled: bool = True
    """Whether sites keep their training images beyond the shots, for stage 1."""
    prevalence: Literal["unknown", "known"] = "unknown"
    """Known: every site gives the shares of the classes among its training images, as a hospital
    may know them without knowing which image is which."""
    labelling: Labelling = "all"
    """Which training images have a label: all; or as many at each site as `alignment.shots`, which
    are all shots then, drawn at random or those that `hica-client suggest` names."""
    unseen: list[str] = Field(default_factory=list)
    """Classes whose training rows are left out: named at the test from their texts alone."""
    skew: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """α of the Dirichlet distribution by which each label is shared out over the parts."""
    sizes: list[PositiveInt] | None = Field(default=None, min_length=1)
    """Shares of the parts `1/n` to `n/n`, in place of equal ones."""
    masks: MaskDamage = "as drawn"
    """How the masks of training and test rows are damaged."""
    mask_damage: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """How far masks are dilated or shifted, as a share of the image's shorter side."""
    phantoms: PhantomsSection | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    """Manifest label to class; rows of other labels are left out. Without it labels are classes."""
    findings: Translation = Field(default_factory=dict)
    """Column to {term: finding}; a field may hold several terms, apart by `&`, `,`, `;`, ` - `."""
    sites: list[SiteSource] = Field(min_length=1)

    @model_validator(mode="after")
    def _sites_can_be_told_apart(self) -> Self:
        names = [site.name.lower() for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sites need different names; given twice: {', '.join(twice)}")
        if POOLED in names:
            raise ValueError(f"no site may be called {POOLED!r}: the pooled baseline is")
        return self

    @model_validator(mode="after")
    def _parts_are_shared_out_one_way(self) -> Self:
        if self.skew is not None and self.sizes is not None:
            raise ValueError("skew and sizes both say how large parts are; keep one of the two")
        parted = [site for site in self.sites if site.part is not None]
        if (self.skew is not None or self.sizes is not None) and not parted:
            key = "sizes" if self.skew is None else "skew"
            raise ValueError(
                f"{key} is of sites that share a manifest, but no site has a part; give the sites "
                f'part = "k/n", or take {key} out'
            )
        for site in parted:
            if self.sizes is not None and site.share[1] != len(self.sizes):
                raise ValueError(
                    f"sizes = {self.sizes} are of {len(self.sizes)} parts, but site {site.name!r} "
                    f"has part = {site.part!r}; give a size for each part, or write "
                    f'part = "k/{len(self.sizes)}"'
                )
        return self

    @model_validator(mode="after")
    def _every_site_has_images(self) -> Self:
        for site in self.sites:
            if self.phantoms is None and site.manifest is None:
                raise ValueError(
                    f"site {site.name!r} has no manifest; name one below --data, or add "
                    "[simulation.phantoms] to draw its images"
                )
            if self.phantoms is not None and site.manifest is not None:
                raise ValueError(
                    f"site {site.name!r} names a manifest, but [simulation.phantoms] draws the "
                    "images; keep one of the two"
                )
        return self


class _SimulationTable(Section):
    """The file's other half; its one field gives errors the place `simulation.…`."""

    simulation: Simulation


@dataclass(frozen=True)
class Scenario:
    """A study and where its sites come from."""

    study: Study
    simulation: Simulation

    def as_table(self) -> dict[str, Any]:
        """Study and sites, every default written out; without keys of None, as TOML has no null."""
        study = self.study.model_dump(mode="json", exclude_none=True)
        simulation = self.simulation.model_dump(mode="json", exclude_none=True)
        return {**study, "simulation": simulation}

    def as_toml(self) -> str:
        """The file that this scenario could have come from, every default written out."""
        return tomli_w.dumps(self.as_table())


def load_scenario(
    path: Path, overrides: Sequence[str] = (), changes: Changes = NO_CHANGES
) -> Scenario:
    """Read, change and check a study file with a `[simulation]` table.

    `overrides` are `section.key=value` of the command line; `changes` go before them.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    table = merged(apply_overrides(read_toml(path), list(overrides)), changes)
    if "simulation" not in table:
        raise ConfigurationError(
            f"{path}: no [simulation] table; add one with a [[simulation.sites]] for each site, "
            "or run this study over real sites with hica-server"
        )
    simulation_table = {"simulation": table.pop("simulation")}
    study = validated(Study, table, str(path))
    simulation = validated(_SimulationTable, simulation_table, str(path)).simulation
    _check_names(study, simulation, str(path))
    return Scenario(study, simulation)


def _check_names(study: Study, simulation: Simulation, source: str) -> None:
    """Labels, findings and unseen classes must be what the study knows."""
    for name in simulation.unseen:
        if name not in study.class_names:
            raise ConfigurationError(
                f"{source}: simulation: unseen: {name!r} is not a class; "
                f"the classes are {', '.join(study.class_names)}"
            )
    seen = [name for name in study.class_names if name not in simulation.unseen]
    if len(seen) < 2:
        raise ConfigurationError(
            f"{source}: simulation: unseen: of {len(study.class_names)} classes {len(seen)} would "
            "be left to train on; at least 2 are needed: take classes out of it"
        )
    tables: dict[str, Simulation | SiteSource] = {"simulation": simulation}
    tables |= {f"simulation.sites {site.name}": site for site in simulation.sites}
    for place, table in tables.items():
        labels, findings = table.labels or {}, table.findings or {}
        for label, name in labels.items():
            if name not in study.class_names:
                raise ConfigurationError(
                    f"{source}: {place}: labels: {label} = {name!r} is not a class; "
                    f"the classes are {', '.join(study.class_names)}"
                )
        for column, terms in findings.items():
            for term, finding in terms.items():
                if finding not in study.finding_names:
                    raise ConfigurationError(
                        f"{source}: {place}: findings: {column}: {term!r} = {finding!r} is not a "
                        "finding of any class; add it to the findings of a [[classes]] table or "
                        f"use one of {', '.join(study.finding_names)}"
                    )
