"""Temperature: how sure a model may be, found on held-out images (Guo et al., 2017, section 4.2).

Logits z become softmax(z / T). Which class is the most likely does not change, only how likely.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

LARGEST = 20.0
"""T lies between 1 / this and this: few images that are all right would have it at 0."""


def fitted_temperature(logits: Floats, labels: NDArray[np.integer], weights: Floats) -> float:
    """The T that makes the labels the most likely.

    Minimises Σ w_i · -log softmax(z_i / T)[y_i], which is convex in 1 / T, over logits [n, C],
    class indices [n] and weights [n], none negative.
    """
    from scipy import optimize

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        largest = scaled.max(axis=1)
        log_sums = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
        own = scaled[np.arange(len(labels)), labels]
        return float((weights * (log_sums - own)).sum())

    reach = math.log(LARGEST)
    found = optimize.minimize_scalar(
        loss, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(float(found.x))
