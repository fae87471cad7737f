"""Attention as four plain Linear layers.

`nn.MultiheadAttention` keeps queries, keys and values in one raw parameter: LoRA cannot be put on
it, and Opacus has no gradient of single images for it. Split, it computes the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SplitAttention(nn.Module):
    """Drop-in for an `nn.MultiheadAttention`, with its weights: equal to it up to rounding.

    Takes the masks `nn.MultiheadAttention` takes; returns no attention weights.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over the weights.

        Raises:
            ValueError: The attention adds keys (`bias_k`, `add_zero_attn`); no tower here does.
        """
        super().__init__()
        if attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("only nn.MultiheadAttention without added keys is split")
        self.num_heads = attention.num_heads
        self.batch_first = attention.batch_first
        self.dropout = attention.dropout
        biases: Any = (None, None, None)
        if attention.in_proj_bias is not None:
            biases = attention.in_proj_bias.chunk(3)
        if attention.in_proj_weight is None:  # keys of another width, as in CoCa's pooling
            weights: Any = (
                attention.q_proj_weight,
                attention.k_proj_weight,
                attention.v_proj_weight,
            )
        else:
            weights = attention.in_proj_weight.chunk(3)
        self.q, self.k, self.v = (_linear(*pair) for pair in zip(weights, biases, strict=True))
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        **_ignored: Any,
    ) -> tuple[Tensor, None]:
        """Attend from `query` [B, L, E] to `key` and `value` [B, S, E].

        Unless `batch_first`, L and S come before B. Keys default to the queries, values to the
        keys. `key_padding_mask` [B, S] is True (or -inf) where a key is ignored, `attn_mask`
        ([L, S] or [B·heads, L, S]) where attention is forbidden. Passed over are `need_weights`,
        `average_attn_weights`, and `is_causal`, a mere hint. Gives [B, L, E] and None.
        """
        key = query if key is None else key
        value = key if value is None else value
        if not self.batch_first:
            query, key, value = (states.transpose(0, 1) for states in (query, key, value))
        mask = self._mask(key_padding_mask, attn_mask, query.dtype)
        heads = functional.scaled_dot_product_attention(
            self._heads(self.q(query)),  # (B, heads, L, E / heads)
            self._heads(self.k(key)),
            self._heads(self.v(value)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        result: Tensor = self.out(heads.transpose(1, 2).flatten(2))  # (B, L, E)
        return (result if self.batch_first else result.transpose(0, 1)), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _mask(
        self, padding: Tensor | None, attention: Tensor | None, dtype: torch.dtype
    ) -> Tensor | None:
        """Both masks as one additive mask that broadcasts to [B, heads, L, S]."""
        if attention is not None:
            attention = _additive(attention, dtype)
            if attention.ndim == 3:
                attention = attention.view(-1, self.num_heads, *attention.shape[1:])
        if padding is None:
            return attention
        padding = _additive(padding, dtype)[:, None, None, :]
        return padding if attention is None else attention + padding


def split_attention(module: nn.Module) -> None:
    """Replace every `nn.MultiheadAttention` in `module` by its `SplitAttention`.

    timm's attention is made of Linear layers already and stays.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.MultiheadAttention:
                setattr(parent, name, SplitAttention(child))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear layer with copies of these weights."""
    # On `meta` nothing is drawn, and so torch's generator stays where it was.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)
