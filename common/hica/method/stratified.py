"""Metrics of a federation from those of its sites: a stratified estimate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hica.errors import MessageError
from hica.method.intervals import Interval, clipped
from hica.method.site_metrics import Estimate, SiteMetrics


@dataclass(frozen=True)
class Overall:
    """Metrics of a federation: stratified over its sites."""

    n: int
    accuracy: Interval
    balanced_accuracy: Interval
    auroc: Interval | None
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """The metrics as a table of plain numbers, each interval as value, low, high."""
        return {
            name: value._asdict() if isinstance(value, Interval) else value
            for name, value in vars(self).items()
        }


def combine(sites: Sequence[SiteMetrics]) -> Overall:
    """Combine the metrics of sites into those of the federation.

    v = Σ w_s v_s with w_s the site's share of the images, and the interval
    v ± 1.96 √(Σ w_s² se_s²), clipped to 0..1, as the sites' patients are independent. Accuracy is
    thereby the pooled one. Balanced accuracy, AUROC and ECE are means of what holds within a site:
    images are never ranked against those of another site. A site with one class has no AUROC and
    is left out of its weights.

    Raises:
        MessageError: No site reported.
    """
    if not sites:
        raise MessageError(
            "evaluation: no site reported metrics; at least one must hold out labelled images"
        )
    with_auroc = [(site.n, site.auroc) for site in sites if site.auroc is not None]
    total = sum(site.n for site in sites)
    return Overall(
        n=total,
        accuracy=_stratified([(site.n, site.accuracy) for site in sites]),
        balanced_accuracy=_stratified([(site.n, site.balanced_accuracy) for site in sites]),
        auroc=_stratified(with_auroc) if with_auroc else None,
        ece=clipped(sum(site.n / total * site.ece for site in sites)),
    )


def _stratified(strata: Sequence[tuple[int, Estimate]]) -> Interval:
    total = sum(n for n, _ in strata)
    value = sum(n / total * each.value for n, each in strata)
    error = math.sqrt(sum((n / total * each.standard_error) ** 2 for n, each in strata))
    return Interval(clipped(value), clipped(value - 1.96 * error), clipped(value + 1.96 * error))
