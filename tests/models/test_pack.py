"""Packed linear layers compute the same products and leave no trace."""

import pytest
import torch
from torch import nn

from luthier.models import pack
from luthier.models.generate import load_module
from luthier.models.pack import packed
from luthier.testing import tiny_chat_model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_equal_the_plain_layer_s_for_any_number_of_rows(dtype, tolerance, bias):
    torch.manual_seed(0)
    layer = nn.Linear(48, 40, bias=bias).to(dtype)
    with torch.inference_mode(), packed(layer) as count:
        if not count:
            pytest.skip("this processor or build of torch packs no such weights")
        for shape in ((1, 1), (1, 2), (3, 1), (8, 1), (2, 17)):
            x = torch.randn(*shape, 48, dtype=dtype)
            expected = nn.functional.linear(x.float(), layer.weight.float(), layer.bias.float() if bias else None)
            assert torch.allclose(layer(x).float(), expected, atol=tolerance, rtol=tolerance)


def test_every_linear_layer_is_packed_and_unpacked_again(tmp_path):
    module, _ = load_module(tiny_chat_model(tmp_path / "m"), dtype="float32", device="cpu")
    linears = sum(type(layer) is nn.Linear for layer in module.modules())
    ids = torch.randint(3, 200, (2, 9))
    with torch.inference_mode():
        plain = module(ids).logits
        with packed(module) as count:
            assert count == linears > 10
            assert torch.allclose(module(ids).logits, plain, atol=1e-4)
            with packed(module) as again:
                assert again == 0  # packed already
        assert not any("forward" in layer.__dict__ for layer in module.modules())
        assert torch.equal(module(ids).logits, plain)


def test_changed_weights_are_packed_anew():
    layer = nn.Linear(16, 16, bias=False)
    x = torch.randn(4, 16)
    for _ in range(2):
        with torch.no_grad():
            layer.weight.normal_()
        with torch.inference_mode(), packed(layer):
            assert torch.allclose(layer(x), x @ layer.weight.T, atol=1e-4)


def test_short_memory_leaves_the_model_unpacked(monkeypatch):
    monkeypatch.setattr(pack, "_free_memory", lambda: 1000)
    with packed(nn.Linear(16, 16)) as count:
        assert count == 0


def test_lora_layers_keep_their_adapters(tmp_path):
    from peft import LoraConfig, get_peft_model

    module, _ = load_module(tiny_chat_model(tmp_path / "m"), dtype="float32", device="cpu")
    tuned = get_peft_model(module, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    ids = torch.randint(3, 200, (2, 9))
    with torch.inference_mode():
        plain = tuned(ids).logits
        with packed(tuned) as count:
            assert count and torch.allclose(tuned(ids).logits, plain, atol=1e-3)
            with tuned.disable_adapter():
                assert not torch.allclose(tuned(ids).logits, plain, atol=1e-3)
