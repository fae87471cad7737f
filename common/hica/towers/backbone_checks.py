"""backbone_checks: a model that was loaded is tried before studies are told to use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hica.errors import ConfigurationError, WeightsError
from hica.towers import ImageTower, load_text_tower

SENTENCE = "a round mass"


@torch.no_grad()
def check_embeddings(tower: ImageTower, source: Path) -> None:
    """Embed grey noise: weights that are finite may still be broken.

    Raises:
        WeightsError: An embedding is NaN or infinite.
    """
    side = tower.preprocess.size
    noise = torch.randint(256, (1, 1, side, side), generator=torch.Generator().manual_seed(0))
    found = tower(tower.preprocess.normalise(noise.expand(1, 3, side, side)))
    if not all(bool(part.isfinite().all()) for part in (found.pooled, found.patches)):
        raise WeightsError(
            f"{source}: a test image of grey noise becomes NaN or infinite, so these weights are "
            "broken; take an earlier checkpoint, or fetch them anew"
        )


def text_line(image: str, notes: list[str], then: str, **named: Any) -> dict[str, str]:
    """The line `text = "same"`, where the pair's text side can be used; else a note in its place.

    `named` is for `hica.towers.load_text_tower`; `then` is what to do once the fault is mended.
    """
    problem = _text_problem(image, named)
    if not problem:
        return {"text": "same"}
    notes.append(f'no text = "same", for its text side cannot be used: {problem}; {then}')
    return {}


@torch.no_grad()
def _text_problem(image: str, named: Mapping[str, Any]) -> str:
    """Why a pair embeds no sentence, in words; "" if it does."""
    try:
        text = load_text_tower("same", image=image, vocabulary=[], **named)
        found = text(text.tokenize([SENTENCE]))
    except (ConfigurationError, WeightsError) as error:
        return str(error)
    except IndexError:
        return (
            "its tokenizer has more words than the text side; put the model's own tokenizer there"
        )
    return "" if bool(found.isfinite().all()) else "a test sentence becomes NaN or infinite"
