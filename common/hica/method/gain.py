"""Gain: what joining gave a site, measured on its own held-out patients.

Three models are compared: that of training alone, the shared one, and the site's personal
predictions. Intervals are over draws of patients, the same draws for all three, so that the
difference between joining and staying alone is a paired one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hica.errors import MessageError
from hica.method.bootstrap import Bootstrap
from hica.method.metrics import Floats, Integers
from hica.method.site_metrics import Estimate

METRICS = ("accuracy", "balanced_accuracy", "auroc")

_Signed = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False, strict=True)]
_STRICT = ConfigDict(extra="forbid")  # read by pydantic from __pydantic_config__ below


@dataclass(frozen=True)
class Difference:
    """Of a metric between two models, in −1..1: its value and paired 95 % interval."""

    __pydantic_config__ = _STRICT

    value: _Signed
    low: _Signed
    high: _Signed


@dataclass(frozen=True)
class Compared:
    """The metrics of one model."""

    __pydantic_config__ = _STRICT

    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate | None
    """None where only one class was evaluated."""


@dataclass(frozen=True)
class Differences:
    """How far one model is better than another."""

    __pydantic_config__ = _STRICT

    accuracy: Difference
    balanced_accuracy: Difference
    auroc: Difference | None


@dataclass(frozen=True)
class Gain:
    """What a site has alone, of the shared model, and of its personal predictions.

    `difference` is personal less alone.
    """

    __pydantic_config__ = _STRICT

    alone: Compared
    shared: Compared
    personal: Compared
    difference: Differences

    def to_dict(self) -> dict[str, Any]:
        """As a table of plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: object, site: str) -> "Gain":
        """Check and read what `to_dict` gave at a site, from its parsed JSON.

        Raises:
            MessageError: A key missing or unknown, or a number out of range.
        """
        try:
            gain = _GAIN.validate_python(table)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "table"
            raise MessageError(
                f"metrics of site {site!r}: gain.{field}: {problem['msg']}; the site must run the "
                "same version of hica as the coordinator"
            ) from None
        for model in ("alone", "shared", "personal", "difference"):
            for metric in METRICS:
                each = getattr(getattr(gain, model), metric)
                if each is not None and not each.low <= each.value <= each.high:
                    raise MessageError(
                        f"metrics of site {site!r}: gain.{model}.{metric}: value lies outside "
                        "low..high"
                    )
        return gain


_GAIN = TypeAdapter(Gain)


def gain_of(
    alone: Floats,
    shared: Floats,
    personal: Floats,
    labels: Integers,
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int,
) -> Gain:
    """Compare the probabilities [n, C] of three models on images of true classes [n].

    `groups` [n] names the patient of each image.
    """
    distinct, group_of_image = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    draws = Bootstrap(group_of_image, len(distinct), resamples, seed)

    def compared(each: Floats) -> Compared:
        accuracy, balanced, auroc = (draws.estimate(m, each, labels) for m in METRICS)
        assert accuracy is not None and balanced is not None  # only AUROC can be undefined
        return Compared(accuracy, balanced, auroc)

    def difference(metric: str) -> Difference | None:
        found = draws.difference(metric, personal, alone, labels)
        return None if found is None else Difference(*found)

    accuracy, balanced, auroc = map(difference, METRICS)
    assert accuracy is not None and balanced is not None
    return Gain(
        compared(alone),
        compared(shared),
        compared(personal),
        Differences(accuracy, balanced, auroc),
    )
