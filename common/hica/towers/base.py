"""What an image tower and a text tower are.

An image tower is a stem, a row of blocks and a head. It can be cut before its last blocks: the
output of the frozen part before the cut is computed once and cached, the rest is run and trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from hica.errors import ConfigurationError
from hica.images.preprocess import Preprocess
from hica.towers.pooling import pool


class Encoded(NamedTuple):
    """Images in the joint space, not normalised."""

    pooled: Tensor
    """Whole images, [B, D]."""
    patches: Tensor
    """Patches in reading order, [B, N, D] with N = grid²."""


class ImageTower(nn.Module, ABC):
    """Images to points of the joint space.

    Attributes:
        name: What it was asked for as.
        dim: Width D of the joint space.
        grid: Patches along a side, g.
        preprocess: Its transform.
        pad_type: timm's padding of convolutions; empty: as the model has it.
        sources: Where each part of the transform comes from, in words; empty: all is built in.
        built_from: What its library makes it from again, by that library's names.
        fingerprint: SHA-256 over name, transform and the weights it was built with.
    """

    name: str
    dim: int
    grid: int
    preprocess: Preprocess
    pad_type: str = ""
    sources: Mapping[str, str] = MappingProxyType({})
    built_from: Mapping[str, Any] = MappingProxyType({})
    fingerprint: str

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks in order; each takes the hidden state and returns the next."""

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """What comes before the blocks: images [B, 3, S, S] to the first hidden state."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Encoded:
        """What comes after the blocks."""

    @abstractmethod
    def head_modules(self) -> list[nn.Module]:
        """The modules of `head` that hold weights."""

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the layers side by side in an embedding; they add up to `dim`."""
        return (self.dim,)

    def forward(self, images: Tensor) -> Encoded:
        """Encode normalised images [B, 3, S, S]."""
        return self.suffix(images, self.depth)

    def prefix(self, images: Tensor, last: int) -> Tensor:
        """Everything before the last blocks; the images themselves if those are all of them.

        Raises:
            ConfigurationError: `last` is not in 0..depth.
        """
        self._check(last)
        if last == self.depth:
            return images
        hidden = self.stem(images)
        for block in self.blocks[: self.depth - last]:
            hidden = block(hidden)
        return hidden

    def suffix(self, hidden: Tensor, last: int) -> Encoded:
        """The rest: the last `last` blocks and the head, from the output of `prefix`.

        Raises:
            ConfigurationError: `last` is not in 0..depth.
        """
        self._check(last)
        if last == self.depth:
            hidden = self.stem(hidden)
        for block in self.blocks[self.depth - last :]:
            hidden = block(hidden)
        return self.head(hidden)

    def regional(self, hidden: Tensor, last: int, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`suffix`, and regions as means of the patches, weighted by [B, K, g, g] on their grid.

        Gives images [B, D] and regions [B, K, D], zero where a region's weights sum to 0.
        """
        pooled, patches = self.suffix(hidden, last)
        return pooled, pool(patches, weights)

    def last_blocks(self, last: int) -> list[nn.Module]:
        """The modules `suffix` runs through: the last blocks and the head's (all: the tower).

        Raises:
            ConfigurationError: `last` is not in 0..depth.
        """
        self._check(last)
        if last == self.depth:
            return [self]
        return [*self.blocks[self.depth - last :], *self.head_modules()]

    def _check(self, last: int) -> None:
        if not 0 <= last <= self.depth:
            raise ConfigurationError(
                f'model.train = "last-{last}": {self.name} has {self.depth} blocks; '
                f"use last-1 to last-{self.depth}, or full"
            )


class TextTower(nn.Module, ABC):
    """Sentences to points of a text space.

    Attributes:
        name: What it was asked for as.
        dim: Width of `forward`'s result.
        pad_id: Token that fills a row of `tokenize` to its length.
        causal: Whether a token sees only those before it, as next-token prediction needs.
        knows_language: Whether it was trained on more than pairs: a high rate would undo that.
    """

    name: str
    dim: int
    pad_id: int
    causal: bool
    knows_language: bool = False

    @property
    @abstractmethod
    def token_embedding(self) -> Tensor | None:
        """Weights [vocabulary, width] that also serve as a language model's output layer."""

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tensor:
        """Token ids, long [B, L]."""

    @abstractmethod
    def token_states(self, tokens: Tensor) -> Tensor:
        """Hidden state of every token after the last norm, [B, L, width]."""

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Whole sentences, [B, dim], not normalised."""
