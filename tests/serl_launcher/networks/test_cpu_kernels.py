"""What the frozen network computes in its own way on a CPU, against torch's functions of the same name."""

import math

import pytest
import torch
import torch.nn.functional as F

from serl_launcher.networks import cpu_kernels


@pytest.mark.parametrize("part_scores", [1, 2**9, 2**17], ids=["row by row", "rows together", "all at once"])
@pytest.mark.parametrize("spread", [1.0, 60.0], ids=["small scores", "scores beyond the range of exp"])
def test_attention_is_torchs(monkeypatch, part_scores, spread):
    monkeypatch.setattr(cpu_kernels, "PART_SCORES", part_scores)
    query, key, value = torch.randn(5, 3, 4, 8), spread * torch.randn(5, 7, 8), torch.randn(5, 7, 8)
    keys, values = (x[:, None].expand(-1, 4, -1, -1) for x in (key, value))
    expected = F.scaled_dot_product_attention(query.transpose(1, 2), keys, values).transpose(1, 2).flatten(2)
    scaled = query * (8**-0.5 * cpu_kernels.LOG2_E)
    torch.testing.assert_close(cpu_kernels.attend(scaled, key, value), expected, rtol=1e-5, atol=2e-5)


def test_the_gated_gelu_is_torchs_at_any_size():
    gate, up = torch.linspace(-60, 60, 4001), torch.randn(4001)
    expected = F.gelu(gate, approximate="tanh") * up
    torch.testing.assert_close(cpu_kernels.gated_gelu(gate, up), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 1e4])
def test_the_norm_is_torchs(size):
    x = size * torch.randn(2, 3, 16)
    torch.testing.assert_close(cpu_kernels.rms_norm(x, 1e-6), F.rms_norm(x, (16,), eps=1e-6), rtol=1e-5, atol=1e-6)


def test_arguments_are_left_as_they_are():
    tensors = torch.randn(3, 2, 5, 4, 8).unbind(0)
    query, key, value = tensors[0], tensors[1][:, :, 0], tensors[2][:, :, 0]
    before = [t.clone() for t in tensors]
    cpu_kernels.attend(query, key, value)
    cpu_kernels.gated_gelu(query, query)
    cpu_kernels.rms_norm(query, 1e-6)
    assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))


def test_they_are_for_plain_float32_without_gradients_alone():
    x = torch.zeros(1)
    assert not cpu_kernels.is_for(x)
    with torch.no_grad():
        assert cpu_kernels.is_for(x)
        assert not cpu_kernels.is_for(x.bfloat16())
    assert math.isclose(2.0**cpu_kernels.LOG2_E, math.e)
