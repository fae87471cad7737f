"""sentence_tower: encoders of sentences by transformers (BERT and its kin), as text towers.

Mean or CLS pooling over the last hidden states (Reimers and Gurevych, 2019).
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from hica.towers.base import TextTower
from hica.towers.hugging_face import from_folder, load_tokenizer
from hica.towers.sentence_config import SentenceConfig, read_sentence_config

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Weights of a folder; never a pickle."""
UNUSED = re.compile(r"position_ids$|pooler\.|cls\.|lm_head|predictions|classifier|discriminator")
"""In the names of what an embedding has no part of; some releases have them."""


class SentenceTower(TextTower):
    """A text encoder that was trained on language, and is no side of a pair."""

    causal = False
    knows_language = True

    def __init__(self, encoder: Any, tokenizer: Any, name: str, config: SentenceConfig) -> None:
        """Wrap an encoder that holds its weights already."""
        super().__init__()
        self.encoder = encoder.eval()
        self.tokenizer, self.name, self.config = tokenizer, name, config
        self.pad_id = tokenizer.pad_token_id
        self.dim = encoder.config.hidden_size
        positions = encoder.config.max_position_embeddings
        if encoder.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions -= self.pad_id + 1  # theirs start behind the padding's
        limits = (config.longest, tokenizer.model_max_length, positions)
        self.length = min(limit for limit in limits if limit)

    @property
    def token_embedding(self) -> None:
        """None: a language model's loss would pull its sentences together."""
        return None

    def tokenize(self, texts: list[str]) -> Tensor:
        """The model's own tokens, padded to the longest text; long [B, L]."""
        if self.config.lower:
            texts = [text.lower() for text in texts]
        tokens: Tensor = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.length, return_tensors="pt"
        ).input_ids
        return tokens

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        mask = (tokens != self.pad_id).long()
        states: Tensor = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return states

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, dim]."""
        states = self.token_states(tokens)
        if self.config.pooling == "cls":
            return states[:, 0]
        real = (tokens != self.pad_id).unsqueeze(-1).to(states.dtype)
        return (states * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def load_sentence_tower(name: str, folder: Path, weights: Path) -> SentenceTower:
    """Build the encoder of a folder whose hash was checked.

    Raises:
        WeightsError: Files that are missing or of another model, or a way that is not offered.
    """
    config = read_sentence_config(folder)
    return SentenceTower(_encoder(folder, weights), load_tokenizer(folder), name, config)


def _encoder(folder: Path, weights: Path) -> Any:
    """The encoder, from safetensors alone."""
    import transformers

    encoder = from_folder(
        transformers.AutoModel, folder, weights, "text encoder", UNUSED, use_safetensors=True
    )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # has no part in a sentence's embedding
    return encoder
