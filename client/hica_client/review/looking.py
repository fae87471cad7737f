"""Looking: how alike a study's model finds a site's images, and where it is unsure of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hica.images.manifest import Record
from hica.method.local_training import embed_all
from hica.steps.alone import start_of
from hica.steps.predictions import probabilities_of
from hica.steps.state import Bank
from hica_client.prediction.models import SiteModels
from hica_client.session import Session

Rows = NDArray[np.float64]


class Looked(NamedTuple):
    """What a model makes of images."""

    embeddings: Rows
    """Unit rows [n, D]."""
    entropy: NDArray[np.float64] | None
    """[n], of the model's probabilities, 0 to 1; None: it has learnt no class yet."""


Look = Callable[[Sequence[Record]], Looked]


def by_tower(session: Session) -> Look:
    """Images as the study's tower sees them before any training."""
    classes, findings = len(session.study.classes), len(session.study.finding_names)
    texts = Bank(*(np.zeros((n, session.width), np.float32) for n in (classes, findings)))
    model = session.model(start_of(session, texts), centred=False)

    def look(records: Sequence[Record]) -> Looked:
        unknown = [-1] * len(records)
        examples = session.pipeline.examples(records, unknown, session.texts, 1, "")
        return Looked(embed_all(model, examples).images.double().numpy(), None)

    return look


def by_model(models: SiteModels) -> Look:
    """Images as the final model of a finished study sees them."""

    def look(records: Sequence[Record]) -> Looked:
        seen = models.seen(models.examples(records))
        shares = np.asarray(probabilities_of(seen.logits), dtype=np.float64)
        entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
        images = seen.embedded.images.double().numpy()
        return Looked(images, entropy / np.log(shares.shape[1]))

    return look
