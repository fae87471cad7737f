"""Both sides of a pair of transformers (CLIP, SigLIP, SigLIP 2), taken apart for HiCA.

Its code is transformers' own.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from hica.errors import ConfigurationError
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.weights import fingerprint


class HuggingFaceImageTower(ImageTower):
    """The image side of CLIP, SigLIP or SigLIP 2.

    A patch is what the head makes of that position alone: CLIP's norm and projection, or SigLIP's
    attention of its probe to that patch.
    """

    def __init__(
        self, vision: Any, projection: nn.Module, name: str, kind: str, preprocess: Preprocess
    ) -> None:
        """Wrap an image side that holds its weights already.

        Raises:
            ConfigurationError: It has no head, or takes no images of this size.
        """
        super().__init__()
        side = vision.config.patch_size
        if kind != "clip" and not vision.use_head:
            raise ConfigurationError(
                f'model.image = "{name}": vision_use_head = false: it makes no embedding of a '
                "whole image; use another model"
            )
        if preprocess.size % side:
            raise ConfigurationError(
                f'model.image = "{name}": takes no images of {preprocess.size} pixels; '
                f"model.image_size must be a multiple of {side}"
            )
        self.name, self.kind = name, kind
        self.preprocess = preprocess
        self.grid = preprocess.size // side
        self.vision, self.projection = vision.eval(), projection
        self.fingerprint = fingerprint(f"transformers {kind} {preprocess}", self)
        with torch.no_grad():
            self.dim = self(torch.zeros(1, 3, preprocess.size, preprocess.size)).pooled.shape[1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers."""
        return [_Layer(layer) for layer in self.vision.encoder.layers]

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to tokens [B, N, width], of CLIP with the image's own in front."""
        if self.kind == "siglip2":
            tokens: Tensor = self.vision.embeddings(self._cut(images), self._shapes(images))
            return tokens
        resampled = self.preprocess.size != self.vision.embeddings.image_size
        tokens = self.vision.embeddings(images, interpolate_pos_encoding=resampled)
        # transformers' own spelling
        return self.vision.pre_layrnorm(tokens) if self.kind == "clip" else tokens

    def head(self, hidden: Tensor) -> Encoded:
        """Tokens to pooled and patches."""
        states = self.vision.post_layernorm(hidden)
        if self.kind == "clip":
            return Encoded(self.projection(states[:, 0]), self.projection(states[:, 1:]))
        alone = self.vision.head(states.flatten(0, 1).unsqueeze(1))
        return Encoded(self.vision.head(states), alone.view(*states.shape[:2], -1))

    def head_modules(self) -> list[nn.Module]:
        """The last norm, and CLIP's projection or SigLIP's pooling."""
        pool = self.projection if self.kind == "clip" else self.vision.head
        return [self.vision.post_layernorm, pool]

    def _cut(self, images: Tensor) -> Tensor:
        """Patches as SigLIP 2 takes them: [B, 3, S, S] to [B, N, side · side · 3]."""
        batch, side = images.shape[0], self.vision.config.patch_size
        cells = images.reshape(batch, 3, self.grid, side, self.grid, side)
        return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, self.grid**2, -1)

    def _shapes(self, images: Tensor) -> Tensor:
        return torch.full((images.shape[0], 2), self.grid)


class _Layer(nn.Module):
    """A layer by itself; made anew at every look: the image side owns the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        # Layers of transformers 4 have to be given one more.
        masks = {"attention_mask", "causal_attention_mask"}
        self.masks = dict.fromkeys(masks & inspect.signature(layer.forward).parameters.keys())

    def forward(self, tokens: Tensor) -> Tensor:
        made = self.layer(tokens, **self.masks)
        states: Tensor = made[0] if isinstance(made, tuple) else made
        return states


class HuggingFaceTextTower(TextTower):
    """The text side of CLIP, SigLIP or SigLIP 2."""

    def __init__(
        self, text: Any, projection: nn.Module, tokenizer: Any, name: str, kind: str
    ) -> None:
        super().__init__()
        self.text, self.projection = text.eval(), projection
        self.tokenizer = tokenizer
        self.name = name
        self.causal = kind == "clip"
        # CLIP only looks back, and its padding may be its end; SigLIP was trained to look at it.
        self.masked = kind != "clip" and "attention_mask" in tokenizer.model_input_names
        self.pad_id = self.tokenizer.pad_token_id
        self.length = text.config.max_position_embeddings
        outputs = getattr(projection, "out_features", None)
        self.dim = outputs or text.config.projection_size

    @property
    def token_embedding(self) -> Tensor:
        """[vocabulary, width]."""
        weight: Tensor = self.text.get_input_embeddings().weight
        return weight

    def tokenize(self, texts: list[str]) -> Tensor:
        """The pair's own tokens, padded to its context length; long [B, L]."""
        tokens: Tensor = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).input_ids
        return tokens

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        states: Tensor = self._run(tokens).last_hidden_state
        return states

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, dim]."""
        sentences: Tensor = self.projection(self._run(tokens).pooler_output)
        return sentences

    def _run(self, tokens: Tensor) -> Any:
        mask = (tokens != self.pad_id).long() if self.masked else None
        return self.text(input_ids=tokens, attention_mask=mask)
