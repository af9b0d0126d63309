"""Linear layers in 8-bit integers against those in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from policies.int8 import Activation, Int8Weight
from policies.linear import Linear, pack_all


def whole(*size: int) -> torch.Tensor:
    """Numbers that 8 bits hold exactly, with a 127 in each row."""
    numbers = torch.randint(-126, 127, size).float()
    numbers[:, 0] = 127.0
    return numbers


def test_products_of_whole_numbers_are_exact() -> None:
    torch.manual_seed(0)
    x, weight, bias = whole(300, 24), whole(40, 24), torch.randint(-9, 9, (40,)).float()
    assert torch.equal(Int8Weight(weight, bias)(x), F.linear(x, weight, bias))
    assert torch.equal(Int8Weight(weight, None)(x.view(3, 100, 24)), F.linear(x, weight).view(3, 100, 40))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("none", lambda x: x),
        ("relu", F.relu),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_a_rounded_layer_is_near(activation: Activation, function: object) -> None:
    torch.manual_seed(0)
    layer, x = Linear(64, 96), torch.randn(2, 150, 64)
    assert callable(function)
    with torch.inference_mode():
        plain, exact = layer(x), layer(x, activation)
        pack_all(layer, int8=True)
        assert layer.weight.numel() == 0
        near = layer(x)
        assert 0 < (near - plain).abs().mean() < 0.01 * plain.abs().mean()
        torch.testing.assert_close(layer(x, activation), function(near), rtol=1e-5, atol=1e-6)
        assert (layer(x, activation) - exact).abs().max() < 0.03


def test_a_row_is_rounded_by_itself() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(16, 32), torch.randn(3, 32)
    layer = Int8Weight(weight, None)
    alone, large = layer(x[:1]), x.clone()
    large[1] *= 1e6
    large[2, 5] = float("nan")
    found = layer(large)
    assert torch.equal(found[:1], alone)
    assert torch.isfinite(found[1]).all()
    assert torch.isnan(found[2]).all()
    assert torch.equal(layer(torch.zeros(1, 32)), torch.zeros(1, 16))
