"""Prompts whose context is learnt: a text tower that can be asked with vectors in place of words.

Towers take token ids only. The context therefore takes the places of words that no class name
uses: their rows of the embedding are exchanged for the context while the tower runs, and the tower
itself stays what it is, whichever it is.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from hica.errors import ConfigurationError
from hica.study import Study
from hica.text.bank import orthonormal_map
from hica.text.from_study import refined_text_tower
from hica.towers import TextTower
from hica_server.publication import text_key

_REFINED: dict[str, TextTower] = {}
"""The last refined text tower: a table asks for the same with every number of shots."""


class Prompts:
    """`[V]₁ … [V]_M CLASS` for every class (Zhou et al., IJCV 2022, eq. 2).

    The class name stands at its end, and all classes share the context.

    The tower is frozen; `joint` [tower.dim, D] is the map to the joint space, `length` is M.

    Attributes:
        shape: [M, width] of the context.
    """

    def __init__(
        self, tower: TextTower, class_names: Sequence[str], joint: Tensor, length: int = 4
    ) -> None:
        self.tower = tower.eval().requires_grad_(False)
        self.joint = joint
        weight = tower.token_embedding
        parameters = dict(tower.named_parameters())
        found = [name for name, value in parameters.items() if value is weight]
        if weight is None or not found:
            raise ConfigurationError(
                f'model.text = "{tower.name}": shows no table of word vectors, so no prompt can be '
                "learnt; use tiny, or a name open_clip takes"
            )
        self._name, self._words = found[0], parameters[found[0]].detach()
        named = tower.tokenize([name.replace("_", " ") for name in class_names])
        used = {tower.pad_id, *named.flatten().tolist()}
        # Small ids: CLIP finds the end of a sentence by its largest.
        free = [number for number in range(len(self._words)) if number not in used][:length]
        if len(free) < length:
            raise ConfigurationError(
                f'model.text = "{tower.name}": knows {len(free)} words besides the class names, '
                f"fewer than the {length} of a context; write longer prompts"
            )
        self._places = torch.tensor(free)
        self.shape = (length, self._words.shape[1])
        context = self._places.expand(len(named), -1)
        longest = getattr(tower, "context_length", named.shape[1])
        # After the token that starts a sentence.
        self.tokens = torch.cat([named[:, :1], context, named[:, 1:]], dim=1)[:, :longest]

    def classes(self, context: Tensor) -> Tensor:
        """Class texts [C, D], unit rows, centred as the text bank is, for a context [M, width].

        Differentiable.
        """
        words = self._words.index_copy(0, self._places, context.to(self._words.dtype))
        sentences = functional_call(self.tower, {self._name: words}, (self.tokens,))
        rows = functional.normalize(sentences, dim=-1)
        rows = functional.normalize(rows - rows.mean(dim=0), dim=-1)
        return functional.normalize(rows @ self.joint.to(rows.dtype), dim=-1)


def prompts_of(study: Study, dim: int, texts: Path) -> Prompts:
    """The study's own text tower, refined as for its text bank, for a joint space of width `dim`.

    The corpus lies below the folder `texts`.

    Raises:
        CheckpointError: The text tower's weights are missing.
        ConfigurationError: The tower does not carry prompts.
    """
    key = text_key(study, texts)
    tower = _REFINED.get(key) or refined_text_tower(study, texts)
    _REFINED.clear()  # made once; frozen, so that all prompts may share it
    _REFINED[key] = tower
    return Prompts(tower, study.class_names, orthonormal_map(tower.dim, dim, study.study.seed))
