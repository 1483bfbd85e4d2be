"""Fused LoRA layers compute what PEFT's do, and leave to PEFT what they cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from stages._fused_lora import fuse_lora


def layers(bias: bool = False, **lora: Any) -> tuple[Any, Any]:
    """The same adapter over the same layers twice, as PEFT computes it and fused; no weight of it is zero."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 20, bias=bias), nn.SiLU(), nn.Linear(20, 7, bias=bias))
    plain = get_peft_model(base, LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": ["0", "2"]} | lora))
    with torch.no_grad():
        for one in plain.parameters():
            if one.requires_grad:
                one.add_(0.3 * torch.randn_like(one))
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    return plain, fused


def step(model: Any, x: torch.Tensor, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of what is trained."""
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        out = model(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), x.grad, *(one.grad for one in model.parameters() if one.requires_grad)]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_are_pefts(bias: bool) -> None:
    plain, fused = layers(bias)
    x = torch.randn(2, 5, 12)
    for mine, theirs in zip(step(fused, x), step(plain, x), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_in_bfloat16_it_is_no_farther_from_the_truth_than_peft() -> None:
    plain, fused = layers()
    x = torch.randn(4, 64, 12)
    truth = step(plain.to(torch.float32), x)
    plain.zero_grad()
    errors = []
    for model in (fused, plain):
        found = step(model, x, torch.bfloat16)
        assert found[0].dtype == torch.bfloat16
        assert all(one.dtype == torch.float32 for one in found[1:])
        errors.append([(a.float() - b).norm().item() / b.norm().item() for a, b in zip(found, truth, strict=True)])
    for mine, theirs in zip(*errors, strict=True):
        assert mine < max(1.3 * theirs, 0.01)


def test_a_first_layer_needs_no_gradient_of_its_input() -> None:
    _, fused = layers()
    fused(torch.randn(3, 12)).sum().backward()
    assert all(one.grad is not None for one in fused.parameters() if one.requires_grad)


def computed_by_peft(model: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    import stages._fused_lora as module

    called: list[bool] = []
    real = module._function
    monkeypatch.setattr(module, "_function", lambda: called.append(True) or real())
    model(torch.randn(3, 12))
    monkeypatch.undo()
    return not called


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_other_kinds_of_adapter_are_pefts(lora: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = layers(True, **lora)
    assert computed_by_peft(fused.train(), monkeypatch)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(fused.eval()(x), plain.eval()(x))
    assert computed_by_peft(fused, monkeypatch) == (lora != {"lora_dropout": 0.1})


def test_adapters_that_are_off_merged_or_several_at_once_are_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = layers()
    x = torch.randn(2, 12)
    assert not computed_by_peft(fused, monkeypatch)
    with fused.disable_adapter(), plain.disable_adapter():
        assert computed_by_peft(fused, monkeypatch)
        torch.testing.assert_close(fused(x), plain(x))
    for model in (plain, fused):
        torch.manual_seed(1)
        model.add_adapter("other", LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False))
        model.set_adapter("other")
    assert not computed_by_peft(fused, monkeypatch)
    torch.testing.assert_close(fused(x), plain(x))
    for model in (plain, fused):
        model.base_model.set_adapter(["default", "other"])
    assert computed_by_peft(fused, monkeypatch)
    torch.testing.assert_close(fused(x), plain(x))
    fused.set_adapter("default")
    before = fused(x)
    fused.merge_adapter()
    assert computed_by_peft(fused, monkeypatch)
    torch.testing.assert_close(fused(x), before)


def test_a_base_that_learns_itself_is_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = layers()
    for layer in fused.modules():
        if hasattr(layer, "base_layer"):
            layer.base_layer.weight.requires_grad_(True)
    assert computed_by_peft(fused, monkeypatch)
