import pytest
import torch
from torch import nn

from hica.towers.attention import SplitAttention, split_attention

LENGTH, BATCH, WIDTH, HEADS = 5, 3, 8, 2
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])


def pair(**arguments) -> tuple[nn.MultiheadAttention, SplitAttention]:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **arguments)
    if attention.in_proj_bias is not None:
        nn.init.normal_(attention.in_proj_bias)
        nn.init.normal_(attention.out_proj.bias)
    return attention, SplitAttention(attention)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": CAUSAL},
        {"attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(CAUSAL, -torch.inf)},
        {"attn_mask": CAUSAL.expand(BATCH * HEADS, -1, -1)},
        {"key_padding_mask": PADDING},
        {"key_padding_mask": PADDING, "attn_mask": CAUSAL},
    ],
    ids=["none", "causal", "additive", "per head", "padding", "both"],
)
def test_it_equals_multihead_attention_forward_and_backward(bias, batch_first, masks) -> None:
    attention, split = pair(bias=bias, batch_first=batch_first)
    shape = (BATCH, LENGTH, WIDTH) if batch_first else (LENGTH, BATCH, WIDTH)
    one = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    expected = attention(one, one, one, need_weights=False, **masks)[0]
    found = split(two, two, two, need_weights=False, **masks)[0]
    # Not 0.0: a matrix product's last bit may depend on its width, which is 3·E there and E here.
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-14)
    expected.square().sum().backward()
    found.square().sum().backward()
    assert torch.allclose(one.grad, two.grad, rtol=1e-12, atol=1e-12)
    weights = torch.cat([split.q.weight.grad, split.k.weight.grad, split.v.weight.grad])
    assert torch.allclose(weights, attention.in_proj_weight.grad, rtol=1e-12, atol=1e-12)


def test_it_equals_cross_attention() -> None:
    attention, split = pair(batch_first=True)
    query = torch.randn(BATCH, 2, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, BATCH, LENGTH, WIDTH, dtype=torch.float64)
    expected = attention(query, key, value, need_weights=False)[0]
    assert torch.allclose(split(query, key, value)[0], expected, rtol=1e-13, atol=1e-14)


def test_key_and_value_default_to_the_query() -> None:
    _, split = pair(batch_first=True)
    states = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64)
    assert torch.equal(split(states)[0], split(states, states, states)[0])


def test_every_attention_in_a_module_is_split_and_frozen_ones_stay_frozen() -> None:
    layers = nn.Sequential(*(nn.TransformerDecoderLayer(WIDTH, HEADS, 8) for _ in range(2)))
    layers.requires_grad_(False)
    state = torch.random.get_rng_state()
    split_attention(layers)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(isinstance(module, nn.MultiheadAttention) for module in layers.modules())
    assert sum(isinstance(module, SplitAttention) for module in layers.modules()) == 4
    assert not any(parameter.requires_grad for parameter in layers.parameters())


@pytest.mark.parametrize("arguments", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_that_cannot_be_split(arguments) -> None:
    with pytest.raises(ValueError, match="without added keys"):
        pair(**arguments)
