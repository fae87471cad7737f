"""Towers of open_clip's contrastive pairs: its ViT, CLIP's ResNet, its text sides.

A patch is what the head makes of that position alone, so that patches lie in the joint space.
"""

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from hica.errors import ConfigurationError
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.weights import fingerprint


class OpenCLIPImageTower(ImageTower):
    """open_clip's own ViT. Its patch tokens, which it leaves unprojected, go the image token's way.

    The projection, a raw parameter there, becomes a Linear layer, which LoRA and DP-SGD can handle.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        name: str,
        preprocess: Preprocess,
        identity: str | None = None,
    ) -> None:
        """Wrap a ViT that holds its weights already.

        `identity` is what it is called in the fingerprint, where that is not its name.

        Raises:
            ConfigurationError: Its patches form no square, or have no place in the joint space.
        """
        super().__init__()
        rows, columns = visual.grid_size
        pool = visual.attn_pool  # of CoCa
        one_of_many = pool is not None and (
            visual.attn_pool_contrastive is not None or visual.pool_type != "tok"
        )
        if one_of_many or visual.proj is None or rows != columns:
            raise ConfigurationError(
                f'model.image = "{name}": patches of a tower with two poolings, of one without '
                "projection or of one that is not square cannot be placed beside its images; use a "
                "CLIP model"
            )
        if pool is not None:  # the other queries are for captions
            pool.query = nn.Parameter(pool.query.detach()[:1].clone())
        self.name = name
        self.preprocess = preprocess
        self.grid = rows
        width, self.dim = visual.proj.shape
        self.projection = nn.Linear(width, self.dim, bias=False, device="meta")
        self.projection.weight = nn.Parameter(visual.proj.detach().T.contiguous())
        visual.proj = None
        self.visual = visual.eval()
        self.fingerprint = fingerprint(f"{identity or name} {preprocess}", self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's layers."""
        return list(self.visual.transformer.resblocks)

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to tokens [B, 1 + N, width]."""
        tokens: Tensor = self.visual._embeds(images)
        return tokens

    def head(self, hidden: Tensor) -> Encoded:
        """[B, 1 + N, width] to pooled and patches."""
        pooled, _ = self.visual._pool(hidden)
        patches = hidden[:, 1:]
        if self.visual.attn_pool is not None:
            alone = self.visual.attn_pool(patches.flatten(0, 1).unsqueeze(1))
            patches = alone.view(*patches.shape[:2], -1)
        patches = self.visual.ln_post(patches)
        return Encoded(self.projection(pooled), self.projection(patches))

    def head_modules(self) -> list[nn.Module]:
        """The pooling of CoCa, the last norm and the projection."""
        pool = [] if self.visual.attn_pool is None else [self.visual.attn_pool]
        return [*pool, self.visual.ln_post, self.projection]


class AttentionPool(nn.Module):
    """CLIP's pooling of a ResNet's map, in plain layers, which LoRA and DP-SGD can handle."""

    def __init__(self, pool: AttentionPool2d) -> None:
        super().__init__()
        self.positions = nn.Parameter(pool.positional_embedding.detach().clone())
        self.q, self.k, self.v, self.out = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads = pool.num_heads

    def forward(self, features: Tensor) -> Encoded:
        """[B, C, h, w] to pooled and patches: the mean asks all positions, a patch only itself."""
        tokens = features.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positions
        values = self.v(tokens)
        query, keys = self._heads(self.q(tokens[:, :1])), self._heads(self.k(tokens))
        pooled = functional.scaled_dot_product_attention(query, keys, self._heads(values))
        return Encoded(self.out(pooled.transpose(1, 2).flatten(1)), self.out(values[:, 1:]))

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.num_heads, -1).transpose(1, 2)


class OpenCLIPResNetTower(ImageTower):
    """CLIP's own ResNet (RN50 and its kin)."""

    def __init__(
        self,
        visual: ModifiedResNet,
        name: str,
        preprocess: Preprocess,
        identity: str | None = None,
    ) -> None:
        """Wrap a ResNet that holds its weights already; `identity` as of `OpenCLIPImageTower`.

        Raises:
            ConfigurationError: It does not take images of this size.
        """
        super().__init__()
        if preprocess.size % 32:
            raise ConfigurationError(
                f'model.image = "{name}": takes no images of {preprocess.size} pixels; '
                "model.image_size must be a multiple of 32"
            )
        self.name = name
        self.preprocess = preprocess
        self.grid = preprocess.size // 32
        self.dim = visual.output_dim
        self.pool = AttentionPool(visual.attnpool)
        visual.attnpool = None
        self.visual = visual.eval()
        self.fingerprint = fingerprint(f"{identity or name} {preprocess}", self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The four stages."""
        return [self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4]

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, C, S / 4, S / 4]."""
        hidden: Tensor = self.visual.stem(images)
        return hidden

    def head(self, hidden: Tensor) -> Encoded:
        """[B, C, S / 32, S / 32] to pooled and patches."""
        encoded: Encoded = self.pool(hidden)
        return encoded

    def head_modules(self) -> list[nn.Module]:
        """The pooling."""
        return [self.pool]


class OpenCLIPTextTower(TextTower):
    """The text side of a pair: CLIP's transformer, or a Hugging Face encoder (BiomedCLIP)."""

    text: Any

    def __init__(self, text: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.text = text.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.dim = text.output_dim
        self.hugging_face = isinstance(text, HFTextEncoder)
        self.pad_id = text.config.pad_token_id if self.hugging_face else text.pad_id
        self.causal = not self.hugging_face and text.attn_mask is not None

    @property
    def token_embedding(self) -> Tensor:
        """[vocabulary, width]."""
        if self.hugging_face:
            weight: Tensor = self.text.transformer.get_input_embeddings().weight
        else:
            weight = self.text.token_embedding.weight
        return weight

    def tokenize(self, texts: list[str]) -> Tensor:
        """The pair's own tokens, padded to its context length; long [B, L]."""
        tokens: Tensor = self.tokenizer(texts)
        return tokens

    def token_states(self, tokens: Tensor) -> Tensor:
        """[B, L, width]."""
        if self.hugging_face:
            attended = (tokens != self.pad_id).long()
            states: Tensor = self.text.transformer(
                input_ids=tokens, attention_mask=attended
            ).last_hidden_state
            return states
        hidden, mask = self.text._embeds(tokens)
        states = self.text.ln_final(self.text.transformer(hidden, attn_mask=mask))
        return states[:, : tokens.shape[1]]

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, dim]."""
        made = self.text(tokens)
        sentences: Tensor = made[0] if isinstance(made, tuple) else made  # CoCa gives tokens, too
        return sentences
