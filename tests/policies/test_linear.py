"""Layers for inference against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policies.linear import Linear, MultiHead, can_pack, make_packable, pack_all


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_it_did_before(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(48, 80, bias=bias), torch.randn(2, 5, 48)
    with torch.inference_mode():
        plain = layer(x, activation)
        layer.pack()
        assert (layer.packed is not None) == can_pack(torch.empty(1))
        torch.testing.assert_close(layer(x, activation), plain, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x[:1, :1], activation), plain[:1, :1], rtol=1e-5, atol=1e-5)


def test_attention_is_torchs_with_its_names_and_padding() -> None:
    torch.manual_seed(0)
    ours, theirs = MultiHead(32, 4).eval(), nn.MultiheadAttention(32, 4, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    query, key, value = torch.randn(2, 3, 32), torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    with torch.no_grad():
        expected = theirs(query, key, value, key_padding_mask=padding)[0]
        torch.testing.assert_close(ours(query, key, value, padding), expected, rtol=1e-5, atol=1e-6)
        pack_all(ours)
        torch.testing.assert_close(ours(query, key, value, padding), expected, rtol=1e-5, atol=1e-6)


def test_layers_of_another_library_are_packed_under_their_own_names() -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    held, x = dict(theirs.named_parameters()), torch.randn(1, 3, 16)
    with torch.no_grad():
        plain = theirs.linear2(theirs.linear1(x).relu())
        make_packable(theirs)
        assert all(value is held[name] for name, value in theirs.named_parameters())
        assert (
            type(theirs.self_attn.out_proj) is not Linear
        )  # torch's own subclass, with a forward of its own
        theirs.linear1.pack()
        theirs.linear2.pack()
        torch.testing.assert_close(theirs.linear2(theirs.linear1(x, "relu")), plain, rtol=1e-5, atol=1e-6)


def test_other_dtypes_are_left_alone() -> None:
    layer = Linear(8, 8).double()
    layer.pack()
    assert layer.packed is None
    assert layer(torch.ones(1, 8, dtype=torch.float64)).dtype is torch.float64
