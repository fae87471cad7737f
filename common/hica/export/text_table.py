"""text_table: open_clip's text side as a table: a class or finding of the study to its vector.

The texts of a study come from a text tower that was refined, are centred, and may be trained: no
text tower gives them. So each is a word of its own: the one token is looked up, and the layers
after it, which open_clip wants to be there, hand it on unchanged. Every other text is the zero
vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

UNKNOWN, FIRST = 0, 1
"""Token of every other text, and of the first that is known."""


def text_config(count: int) -> dict[str, Any]:
    """`text_cfg` of a table of `count` texts."""
    return {
        "context_length": 1,
        "vocab_size": FIRST + count,
        "width": 2 * count,
        "heads": 1,
        "layers": 1,
        "mlp_ratio": 1.0,
        "pool_type": "first",
        "no_causal_mask": True,
        "hf_tokenizer_name": "tokenizer",
    }


@torch.no_grad()
def fill(text: Any, rows: Tensor) -> None:
    """Make open_clip's text transformer give `rows` [n, D], unit, up to their length.

    A token is +1 at its own place and -1 at another of its own, so that the last norm, which takes
    off mean and spread, changes its length alone; the projection has the rows at those places.
    """
    for parameter in text.parameters():
        parameter.zero_()
    count = len(rows)
    place = torch.eye(count)
    text.token_embedding.weight[FIRST:] = torch.cat([place, -place], dim=1)
    text.ln_final.weight.fill_(1.0)
    text.text_projection.copy_(torch.cat([rows, -rows]) / 2)


def write_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """`tokenizer.json` and `tokenizer_config.json` in transformers' layout."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    unknown = "[unknown]"
    words = {unknown: UNKNOWN} | {text: FIRST + number for number, text in enumerate(texts)}
    table = Tokenizer(WordLevel(words, unk_token=unknown))
    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer(
        tokenizer_object=table, unk_token=unknown, pad_token=unknown, model_max_length=1
    ).save_pretrained(folder)
