"""Bootstrap: percentile intervals of a metric over draws of patients."""

import math
from dataclasses import dataclass

import numpy as np

from hica.method.intervals import Interval, clipped
from hica.method.metrics import Floats, Integers, weighted_metric
from hica.method.site_metrics import Estimate

_CELLS_AT_ONCE = 4_000_000  # weights held in memory: 32 MB


@dataclass(frozen=True)
class Bootstrap:
    """Draws of patients with replacement, as weights on their images.

    `group_of_image` [n] is the index of each image's patient. The draws of a `seed` are the same
    for every metric.
    """

    group_of_image: Integers
    group_count: int
    resamples: int
    seed: int

    def estimate(self, metric: str, probabilities: Floats, labels: Integers) -> Estimate | None:
        """Value, percentile interval and standard error; None where the metric is undefined.

        `metric` is a name that `weighted_metric` takes, of probabilities [n, C] and true classes
        [n].
        """
        value = self._value(metric, probabilities, labels)
        if math.isnan(value):
            return None
        if self.group_count == 1:
            return Estimate(value, 0.0, 1.0, 0.5)
        drawn = self._drawn(metric, probabilities, labels)
        drawn = drawn[np.isfinite(drawn)]  # a draw of one class only has no AUROC
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (0.0, 1.0)
        error = drawn.std(ddof=1) if len(drawn) > 1 else 0.5
        return Estimate(
            clipped(value), clipped(min(low, value)), clipped(max(high, value)), clipped(error)
        )

    def difference(
        self, metric: str, one: Floats, other: Floats, labels: Integers
    ) -> Interval | None:
        """How much better the probabilities `one` [n, C] are than the `other`, on the same draws.

        Value and percentile interval, in −1..1; None where the metric is undefined.
        """
        value = self._value(metric, one, labels) - self._value(metric, other, labels)
        if math.isnan(value):
            return None
        if self.group_count == 1:
            return Interval(value, -1.0, 1.0)
        drawn = self._drawn(metric, one, labels) - self._drawn(metric, other, labels)
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (-1.0, 1.0)
        return Interval(value, float(min(low, value)), float(max(high, value)))

    def _value(self, metric: str, probabilities: Floats, labels: Integers) -> float:
        ones = np.ones((1, len(labels)))
        return float(weighted_metric(metric, probabilities, labels, ones)[0])

    def _drawn(self, metric: str, probabilities: Floats, labels: Integers) -> Floats:
        """The metric of every draw."""
        rng = np.random.default_rng(self.seed)
        even = np.full(self.group_count, 1 / self.group_count)
        block = max(1, _CELLS_AT_ONCE // len(labels))
        values = []
        for start in range(0, self.resamples, block):
            rows = min(block, self.resamples - start)
            draws = rng.multinomial(self.group_count, even, size=rows)  # (rows, groups)
            weights = draws[:, self.group_of_image].astype(np.float64)
            values.append(weighted_metric(metric, probabilities, labels, weights))
        return np.concatenate(values)
