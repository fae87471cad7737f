"""The built-in towers: small enough to train on a hospital's CPU, and drawn from a seed.

They need no download. Drawn weights know nothing, so they are trained whole (`train = "full"`).
"""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.weights import draw_weights, fingerprint

DIM = 128


class ResidualBlock(nn.Module):
    """x + conv1×1(act(norm(conv3×3(act(norm(x)))))), after He et al., 2016 (pre-activation).

    GroupNorm (Wu & He, 2018) instead of BatchNorm: no statistics shared between images, which
    DP-SGD forbids and few shots cannot estimate.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # Averaging before the 1×1 convolution loses no pixel (ResNet-D, He et al., 2019).
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, inputs, h, h] to [B, outputs, h / stride, h / stride]."""
        residual = self.conv1(functional.relu(self.norm1(hidden)))
        residual = self.conv2(functional.relu(self.norm2(residual)))
        result: Tensor = self.shortcut(hidden) + residual
        return result


class TinyImageTower(ImageTower):
    """A residual network of 4 blocks and 0.3 M weights: 64×64 pixels to an 8×8 grid of patches.

    An image is the mean of its patches, and both pass through one linear map, so that a region
    lies in the same space as its image.
    """

    def __init__(self, seed: int = 0, preprocess: Preprocess | None = None) -> None:
        super().__init__()
        self.name = "tiny"
        self.dim = DIM
        self.grid = 8
        half = (0.5, 0.5, 0.5)
        self.preprocess = preprocess or Preprocess(64, half, half, "bilinear", "squash")
        with torch.random.fork_rng(devices=[]):
            self.conv = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
            self.layers = nn.ModuleList(
                [
                    ResidualBlock(32, 64, stride=2),
                    ResidualBlock(64, 96, stride=2),
                    ResidualBlock(96, 96),
                    ResidualBlock(96, 96),
                ]
            )
            self.norm = nn.GroupNorm(8, 96)
            self.projection = nn.Linear(96, DIM, bias=False)
        draw_weights(self, seed)
        self.fingerprint = fingerprint(f"tiny {self.preprocess}", self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks."""
        return list(self.layers)

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] to [B, 32, 32, 32]."""
        hidden: Tensor = self.conv(images)
        return hidden

    def head(self, hidden: Tensor) -> Encoded:
        """[B, 96, 8, 8] to pooled and patches."""
        tokens = functional.relu(self.norm(hidden)).flatten(2).transpose(1, 2)  # (B, N, 96)
        patches = self.projection(tokens)
        return Encoded(patches.mean(dim=1), patches)

    def head_modules(self) -> list[nn.Module]:
        """The last norm and the projection."""
        return [self.norm, self.projection]


PAD, START, END, UNKNOWN = range(4)


class TinyTextTower(TextTower):
    """A causal transformer of 2 layers over the words of the study's own texts.

    A sentence is the mean of its tokens' states: already before training, sentences that share
    words lie close.
    """

    def __init__(self, texts: list[str], seed: int = 0, context_length: int = 64) -> None:
        """Build the tower, its weights drawn from `seed`.

        `texts` are what the vocabulary is made from; other words become one unknown word. Of a text
        `context_length` tokens are kept, with the start and the end.
        """
        super().__init__()
        self.name = "tiny"
        self.dim = DIM
        self.pad_id = PAD
        self.causal = True
        self.context_length = context_length
        words = sorted({word for text in texts for word in _words(text)})
        self.vocabulary = {word: UNKNOWN + 1 + index for index, word in enumerate(words)}
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(UNKNOWN + 1 + len(words), DIM)
            self.position = nn.Parameter(torch.randn(context_length, DIM))
            layer = nn.TransformerEncoderLayer(
                DIM, 4, 4 * DIM, 0.0, functional.gelu, batch_first=True, norm_first=True
            )
            self.transformer = nn.TransformerEncoder(
                layer,
                num_layers=2,
                norm=nn.LayerNorm(DIM),
                enable_nested_tensor=False,
            )
            self.projection = nn.Linear(DIM, DIM, bias=False)
        draw_weights(self, seed)

    @property
    def token_embedding(self) -> Tensor:
        """[vocabulary, 128]."""
        return self.embedding.weight

    def tokenize(self, texts: list[str]) -> Tensor:
        """START, words, END, then PAD up to the longest text; long [B, L]."""
        rows = [
            [self.vocabulary.get(word, UNKNOWN) for word in _words(text)][: self.context_length - 2]
            for text in texts
        ]
        sequences = [torch.tensor([START, *row, END]) for row in rows]
        return nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, 128]; padding lies after every word, so that the causal mask hides it too."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        # Words at the scale of what the layers add, so that they are not drowned before training.
        hidden = self.embedding(tokens) * DIM**0.5 + self.position[:length]
        states: Tensor = self.transformer(hidden, mask=mask, is_causal=True)
        return states

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, 128]."""
        real = (tokens != PAD).unsqueeze(-1).float()
        mean = (self.token_states(tokens) * real).sum(dim=1) / real.sum(dim=1)
        sentences: Tensor = self.projection(mean)
        return sentences


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
