"""Long rows padded on the right give the same without a mask."""

from __future__ import annotations

from typing import Any

import pytest

from stages._right_padding import drop_needless_masks
from tests.toys import toy_model

LENGTHS = (600, 530, 1)


def batch(width: int = 608, left: bool = False) -> dict[str, Any]:
    """Rows of these lengths, padded on one side."""
    import torch

    torch.manual_seed(1)
    place = torch.arange(width)
    mask = torch.stack([(place >= width - length) if left else (place < length) for length in LENGTHS]).long()
    return {"input_ids": torch.randint(1, 60, (len(LENGTHS), width)) * mask, "attention_mask": mask}


def seen_masks(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What attention is given to hide tokens with, call by call."""
    import torch

    seen: list[Any] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def attention(*args: Any, attn_mask: Any = None, **more: Any) -> Any:
        seen.append(attn_mask)
        return plain(*args, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    return seen


@pytest.mark.parametrize("family", ["qwen3", "llama3_2", "gemma3"])
def test_hidden_states_and_gradients_are_those_under_the_mask(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    inputs = batch()
    real = inputs["attention_mask"].bool()
    found = []
    for lean in (False, True):
        torch.manual_seed(0)
        model = toy_model(family, 64).train()
        if lean:
            drop_needless_masks(model)
        seen = seen_masks(model, monkeypatch)
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[real]
        assert any(mask is None for mask in seen) == lean
        weights = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
        (hidden * weights).sum().backward()
        found.append((hidden.detach(), {name: one.grad for name, one in model.named_parameters()}))
    (plain, expected), (without, gradients) = found
    assert torch.allclose(plain, without, atol=1e-5)
    for name, gradient in expected.items():
        assert gradient is None or torch.allclose(gradient, gradients[name], atol=1e-4 * float(gradient.abs().max())), (
            name
        )


@pytest.mark.parametrize(
    "inputs", [batch(left=True), {name: value[:, :64] for name, value in batch().items()}], ids=["left", "short"]
)
def test_other_masks_stay(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model("qwen3", 64)
    drop_needless_masks(model)
    seen = seen_masks(model, monkeypatch)
    model(**inputs, use_cache=False)
    assert seen
    assert all(mask is not None for mask in seen)


def test_a_pass_with_a_cache_keeps_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import DynamicCache

    model = toy_model("qwen3", 64)
    drop_needless_masks(model)
    seen = seen_masks(model, monkeypatch)
    model(**batch(), past_key_values=DynamicCache(), use_cache=True)
    assert seen
    assert all(mask is not None for mask in seen)


def test_attention_without_a_kernel_that_skips_is_left_alone() -> None:
    model = toy_model("qwen3", 64)
    model.set_attn_implementation("eager")
    forward = model.base_model.forward
    drop_needless_masks(model)
    assert model.base_model.forward == forward
