"""Calibration: after training, one intercept a class, by federated Newton steps on the shots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hica.errors import MessageError
from hica.method.calibration import LONGEST_GRADIENT, Curvature, curvature, newton_step
from hica.steps.arrays import LARGEST_FEATURE, Array
from hica.steps.predictions import class_scores
from hica.steps.state import State
from hica.steps.step import Answer, Received, SiteData, Stage, Statistic, Turn
from hica.study import Study
from hica.wire.messages import Reply, Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel


class Calibration(Statistic):
    """Sums of gradients and Hessians of the cross-entropy in the intercepts."""

    name = "calibration"
    kind = "train.calibrate"
    role = "labelled"
    leaves = "how far the predicted class probabilities of your labelled images are off, summed up"

    def turns(self, study: Study) -> Iterator[Turn]:
        """A few Newton steps after stage 2."""
        rounds = study.calibration.rounds
        for number in range(rounds):
            title = f"{self.name} {number + 1}/{rounds}"
            yield Turn(self, (Stage.CALIBRATION, number), number, title)

    def estimates(self, study: Study) -> tuple[str, ...]:
        """The intercepts."""
        return ("bias",)

    def answers(self, study: Study) -> tuple[Array, ...]:
        """Gradient and Hessian; each image adds at most 1 to any number (`check`)."""
        largest = LARGEST_FEATURE * self.most_images(study)
        shapes: dict[str, tuple[str | int, ...]] = {
            "gradient": ("classes",),
            "hessian": ("classes", "classes"),
        }
        return tuple(
            Array(name, shape, "float64", -largest, largest) for name, shape in shapes.items()
        )

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """The site's sums at the intercepts that were sent."""
        scores = class_scores(data, "labelled", model).double().numpy()
        labels = data.examples("labelled").labels.numpy()
        parts = curvature(scores, labels, request.arrays["bias"])
        return Answer({"gradient": parts.gradient, "hessian": parts.hessian}, parts.images)

    def check(self, study: Study, state: State, reply: Reply, sites: int = 1) -> None:
        """Refuse sums that so many images cannot have: gradient and Hessian are bounded."""
        super().check(study, state, reply, sites)
        gradient, hessian = reply.arrays["gradient"], reply.arrays["hessian"]
        number = reply.examples
        largest = max(np.abs(gradient).max(), np.abs(hessian).max())
        if number < 1 or largest > number:
            raise MessageError(
                f"sums of a Newton step up to {largest:.3g} over {number} images: each adds at "
                "most 1"
            )
        longest = float(np.linalg.norm(gradient)) / number
        if longest > LONGEST_GRADIENT:
            raise MessageError(
                f"the gradient of a Newton step has norm {longest:.3g} an image, possible is "
                f"{LONGEST_GRADIENT:.3g}"
            )
        least = np.linalg.eigvalsh(hessian).min()
        if not np.allclose(hessian, hessian.T) or least < -1e-9 * number:
            raise MessageError("the Hessian of a Newton step is not positive semi-definite")

    def combine(self, state: State, received: Received) -> State:
        """One Newton step over all sites' images."""
        part = Curvature(
            received.arrays["gradient"], received.arrays["hessian"], round(received.examples)
        )
        ridge = received.study.calibration.ridge
        return replace(state, bias=newton_step(state.bias, [part], ridge))


CALIBRATION = Calibration()
