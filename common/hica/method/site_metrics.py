"""What a site reports of its held-out images, as it travels to the coordinator.

Predictions never leave a site. A site turns them into `SiteMetrics`, in which classes of few
patients do not stand; the coordinator reads those, and refuses numbers that cannot be.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hica.errors import MessageError

Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]

MOST_BINS = 1000
"""Of calibration."""

_STRICT = ConfigDict(extra="forbid")  # read by pydantic from __pydantic_config__ below


@dataclass(frozen=True)
class Estimate:
    """A metric of one site in 0..1: its value, 95 % interval and standard error."""

    __pydantic_config__ = _STRICT

    value: Unit
    low: Unit
    high: Unit
    standard_error: Unit


@dataclass(frozen=True)
class CalibrationBin:
    """Images of similar confidence: how many, how sure on average, how often right."""

    __pydantic_config__ = _STRICT

    count: Count
    confidence: Unit
    accuracy: Unit


@dataclass(frozen=True)
class SiteMetrics:
    """What a site tells about its held-out images, those of classes of few patients left out."""

    __pydantic_config__ = _STRICT

    n: Annotated[int, Field(ge=1, strict=True)]
    """Held-out images that were evaluated."""
    counts: tuple[Count | None, ...]
    """Images of each class [C]; None where it has few patients, whose images are not in `n`."""
    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate | None
    """None where only one class was evaluated."""
    ece: Unit
    confusion: tuple[tuple[Count, ...], ...] | None
    """Images by true class (row) and predicted one (column) [C, C]; None where one is hidden."""
    calibration: Annotated[tuple[CalibrationBin, ...], Field(max_length=MOST_BINS)]
    """Bins by rising confidence, each large enough to be shown."""

    def to_dict(self) -> dict[str, Any]:
        """The metrics as a table of plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: object, class_count: int, site: str) -> "SiteMetrics":
        """Check and read what `to_dict` gave at a site, from its parsed JSON; `site` is the sender.

        Raises:
            MessageError: A key missing or unknown, a number out of range or NaN, shapes or totals
                that contradict each other.
        """
        try:
            metrics = _SITE_METRICS.validate_python(table)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "table"
            raise _refusal(site, field, problem["msg"]) from None
        _check_consistency(metrics, class_count, site)
        return metrics


def _check_consistency(metrics: SiteMetrics, class_count: int, site: str) -> None:
    if len(metrics.counts) != class_count:
        raise _refusal(
            site, "counts", f"{len(metrics.counts)} classes where the study has {class_count}"
        )
    known = [count for count in metrics.counts if count is not None]
    if sum(known) > metrics.n or (len(known) == class_count and sum(known) != metrics.n):
        raise _refusal(site, "counts", f"they sum to {sum(known)}, but n is {metrics.n}")
    if metrics.confusion is not None:
        if any(len(row) != class_count for row in (metrics.confusion, *metrics.confusion)):
            raise _refusal(site, "confusion", f"not a {class_count} x {class_count} matrix")
        if [sum(row) for row in metrics.confusion] != list(metrics.counts):
            raise _refusal(site, "confusion", "its rows do not sum to counts")
    if sum(each.count for each in metrics.calibration) != metrics.n:
        raise _refusal(site, "calibration", f"its bins do not sum to n = {metrics.n}")
    for field in ("accuracy", "balanced_accuracy", "auroc"):
        each = getattr(metrics, field)
        if each is not None and not each.low <= each.value <= each.high:
            raise _refusal(site, field, "value lies outside low..high")


def _refusal(site: str, field: str, problem: str) -> MessageError:
    return MessageError(
        f"metrics of site {site!r}: {field}: {problem}; "
        "the site must run the same version of hica as the coordinator"
    )


_SITE_METRICS = TypeAdapter(SiteMetrics)
