"""Law: the luthier attention equals torch's, forward and backward, and no example sees another."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from luthier.train import attention


def tensors(dtype, tokens=23, heads=6, keys=2, size=8):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(1, heads, tokens, size, generator=generator).to(dtype).requires_grad_()
    k, v = (torch.randn(1, keys, tokens, size, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    return q, k, v


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_rows_equal_torch_per_example(dtype, tolerance):
    q, k, v = tensors(dtype)
    lengths = (5, 1, 17)
    with attention.rows_of(lengths):
        found, _ = attention.attend(torch.nn.Identity(), q, k, v, None, scaling=0.3)
    parts = [F.scaled_dot_product_attention(*(x[:, :, a:b].float() for x in (q, k, v)), is_causal=True, scale=0.3,
                                            enable_gqa=True) for a, b in ((0, 5), (5, 6), (6, 23))]
    wanted = torch.cat(parts, 2).transpose(1, 2)
    torch.testing.assert_close(found.float(), wanted, atol=tolerance, rtol=tolerance)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    for a, b in zip(torch.autograd.grad((found.float() * upstream).sum(), (q, k, v)),
                    torch.autograd.grad((wanted * upstream).sum(), (q, k, v))):
        torch.testing.assert_close(a.float(), b.float(), atol=tolerance, rtol=tolerance)


def test_long_rows_take_torchs_kernel_and_agree(monkeypatch):
    q, k, v = tensors(torch.float32)
    with attention.rows_of((11, 12)):
        own, _ = attention.attend(torch.nn.Identity(), q, k, v, None)
        monkeypatch.setattr(attention, "LONG", 4)
        library, _ = attention.attend(torch.nn.Identity(), q, k, v, None)
    torch.testing.assert_close(own, library, atol=1e-5, rtol=1e-5)


def test_a_neighbour_changes_nothing():
    q, k, v = tensors(torch.float32)
    with torch.no_grad(), attention.rows_of((8, 15)):
        before, _ = attention.attend(torch.nn.Identity(), q, k, v, None)
        for x in (q, k, v):
            x[:, :, :8] += 100
        after, _ = attention.attend(torch.nn.Identity(), q, k, v, None)
    assert torch.equal(before[:, 8:], after[:, 8:]) and not torch.equal(before[:, :8], after[:, :8])


def test_what_it_does_not_know_is_refused():
    q, k, v = tensors(torch.float32)
    for options in ({"sliding_window": 4}, {"softcap": 30.0}, {"attention_mask": torch.zeros(1)}):
        with pytest.raises(NotImplementedError):
            attention.attend(torch.nn.Identity(), q, k, v, options.pop("attention_mask", None), **options)
