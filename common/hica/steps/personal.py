"""Personal: each site trains on from the shared model on its own shots, and keeps what comes of it.

One model for hospitals that differ can be worse for one of them than its own. So a site predicts
with three: the shared model, its personal one, which is that trained on as fine-tuning after
federated averaging has it (Yu et al. 2020; Cheng et al. 2021), and one trained alone, by the same
recipe, which also tells what joining gave (`hica.method.gain`). Their logits are averaged: where
the site is like the others the first is the best, where it is not its own two. How much these weigh
is measured by its class means (`hica.method.shrinkage`): before anything is trained, as models that
have seen the shots cannot be compared on them. A few shots may show no difference where there is
one, or where a site's labels are wrong, so they never weigh less than `LEAST`.

All this comes after the last round, and no model is sent. Only how good they are is told, and in a
private study not even that: so it costs no privacy and needs no noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hica.method.prevalence import shots_intercepts
from hica.method.shrinkage import ClassMeans, own_share
from hica.steps.arrays import LARGEST_UNIT, Array
from hica.steps.predictions import logits, probabilities_of
from hica.steps.prototypes import MEANS
from hica.steps.state import Bank, State
from hica.steps.step import Answer, Kept, Received, SiteData, Stage, Step, Turn
from hica.study import Study
from hica.wire.messages import Request

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    from hica.method.model import AlignmentModel

PERSONAL_MODEL, ALONE_MODEL, LOGITS = "personal", "alone", "own_logits"
"""What a site keeps its two models as, and what they say of the held-out images."""
OWN = "own_share"
"""What it keeps their weight as, and intercepts of the site's own."""
OTHERS = ("centre", "scale", "bias", "classes", "findings")
"""What is kept of a model beside its trained weights: the texts, which may be trained or not."""
UNMEASURED = 0.5
"""Their weight where a study shares no class means to measure it by."""
LEAST = 1 / 3
"""Their weight where the class means do not differ; the shared model has the rest.

Between 1/4 and 0.4 the least was lost over sites that are alike, that differ, that are skewed, and
beside one with wrong labels (breast-lesions and chest-xray, 4 shots, seeds 100 to 103).
"""


class Personal(Step):
    """Fine-tuning and training alone, at the site and for the site."""

    name = "personal"
    kind = "train.personal"
    role = "labelled"
    leaves = (
        "nothing: your site adapts the model to its own shots, trains one alone to compare, and "
        "keeps both"
    )
    in_sum = False
    needs_noise = False

    def turns(self, study: Study) -> Iterator[Turn]:
        """Once, before the evaluation."""
        if study.personal.epochs:
            yield Turn(self, (Stage.END, 0), 0, "personal models")

    def asks(self, study: Study) -> tuple[Array, ...]:
        """The texts before anything was learnt, which training alone begins with; class means."""
        bounds = ("float32", -LARGEST_UNIT, LARGEST_UNIT)
        texts = (
            Array("texts.classes", ("classes", "width"), *bounds),
            Array("texts.findings", ("findings", "width"), *bounds),
        )
        if not study.alignment.starts_at_means:
            return texts
        means = Array("means", ("classes", "width"), *bounds)
        return *texts, means, Array("sites", (1,), "float64", 1.0, 1e6)

    def asked(self, study: Study, state: State) -> dict[str, NDArray[Any]]:
        """Those of the state."""
        arrays = {f"texts.{name}": rows for name, rows in state.texts._asdict().items()}
        if study.alignment.starts_at_means:
            arrays |= {"means": state.means, "sites": np.array([float(state.sites)])}
        return arrays

    def answer(self, data: SiteData, model: AlignmentModel, request: Request) -> Answer:
        """Nothing; both models are kept, and what they say of the test."""
        texts = Bank(*(request.arrays[f"texts.{name}"] for name in Bank._fields))
        if not len(data.examples("labelled")):  # of a private study, where no shot can be read
            return Answer()
        weight, bias = share_of(data, request), intercepts_of(data, request)
        keep: dict[str, Kept] = {OWN: {"share": np.array([weight]), "intercepts": bias}}
        said: dict[str, NDArray[Any]] = {}

        def heard(name: str, own: AlignmentModel) -> None:
            keep[name] = arrays_of_model(own)
            if data.size("test"):
                said[name] = logits(data, own)

        # One at a time: they have one tower.
        heard(PERSONAL_MODEL, data.adapted(State.from_arrays(request.arrays)))
        heard(ALONE_MODEL, data.alone(texts))
        if said:
            keep[LOGITS] = {**said, "images": data.images("test")}
        return Answer(keep=keep)

    def combine(self, state: State, received: Received) -> State:
        """Nothing is learnt of it."""
        return state


def arrays_of_model(model: AlignmentModel) -> dict[str, NDArray[Any]]:
    """What of a model was learnt, by the names of a model's file."""
    weights = {name: w.detach().cpu().numpy().copy() for name, w in model.shared().items()}
    return weights | {name: getattr(model, name).detach().cpu().numpy().copy() for name in OTHERS}


def load_own(model: AlignmentModel, kept: Mapping[str, NDArray[Any]]) -> None:
    """Make of a model of the study one that `arrays_of_model` was of.

    Raises:
        MessageError: The weights do not fit the study's model.
    """
    import torch

    rows = {name: torch.from_numpy(value) for name, value in kept.items()}
    centre, scale, bias, classes, findings = (rows.pop(name) for name in OTHERS)
    model.load(rows, centre, scale, bias)
    with torch.no_grad():
        model.classes.copy_(classes)
        model.findings.copy_(findings)


def share_of(data: SiteData, request: Request) -> float:
    """Weight of the site's own models in its predictions, in 0..1."""
    study = request.study
    if study.personal.weight is not None:
        return study.personal.weight
    if not study.alignment.starts_at_means:
        return UNMEASURED
    if not data.has_kept(MEANS):  # it has joined since
        return LEAST
    own = ClassMeans(**data.kept(MEANS))
    measured = own_share(own, request.arrays["means"], float(request.arrays["sites"][0]))
    return max(LEAST, measured)


def intercepts_of(data: SiteData, request: Request) -> NDArray[Any]:
    """Intercepts [C] of a site that has fewer shots of some classes than of others."""
    number = len(request.study.classes)
    if data.rest_shares is not None:  # it knows more, and `predictions.intercepts` has it
        return np.zeros(number)
    shots = np.bincount(data.examples("labelled").labels.numpy(), minlength=number)
    seen = request.arrays["means"].any(axis=1) if "means" in request.arrays else shots > 0
    return shots_intercepts(shots, seen)


def kept_logits(data: SiteData) -> Mapping[str, NDArray[Any]] | None:
    """Logits [n, C] of the held-out images by `personal` and `alone`; None where there are none.

    The site's own intercepts are in them. They are of their images, whatever has become of the
    manifest since they were kept.
    """
    if not data.has_kept(LOGITS):
        return None
    kept = data.kept(LOGITS)
    row_of = {bytes(image): row for row, image in enumerate(kept["images"])}
    images = [bytes(image) for image in data.images("test")]
    if not row_of.keys() >= set(images):
        return None
    rows = np.array([row_of[image] for image in images], dtype=np.int64)
    bias = data.kept(OWN)["intercepts"]
    return {name: kept[name][rows] + bias for name in (PERSONAL_MODEL, ALONE_MODEL)}


def own_weight(data: SiteData) -> float | None:
    """Share of the site's own models in its predictions; None where it has none."""
    return float(data.kept(OWN)["share"][0]) if data.has_kept(OWN) else None


def mixed(data: SiteData, shared: NDArray[Any]) -> NDArray[Any]:
    """Logits [n, C] that a site predicts with: of the shared model, and of its own two."""
    own, weight = kept_logits(data), own_weight(data)
    if own is None or weight is None:
        return shared
    return mixture(shared + data.kept(OWN)["intercepts"], own, weight)


def mixture(shared: NDArray[Any], own: Mapping[str, NDArray[Any]], weight: float) -> NDArray[Any]:
    """Logits [n, C] of three models as one: the shared one, and the site's own two by weight."""
    both = (own[PERSONAL_MODEL] + own[ALONE_MODEL]) / 2
    return np.asarray((1 - weight) * shared + weight * both)


def predict(data: SiteData, model: AlignmentModel) -> NDArray[Any]:
    """Class probabilities [n, C] of the site's held-out images, by all three models."""
    return probabilities_of(mixed(data, logits(data, model)))


PERSONAL = Personal()
