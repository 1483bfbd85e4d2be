"""Prompts of pairs computed once give what computing them twice gives."""

from __future__ import annotations

from typing import Any

import pytest

from stages._decoding import decode
from stages._shared_prompt import pack, share_prompts
from tests.toys import toy_model

PAIRS = (  # prompt, chosen, rejected
    ([5, 6, 7, 8, 9], [10, 11, 12], [13]),
    ([20, 21], [22], [30, 31, 32, 33]),
    ([40, 41, 42, 43], [44, 45], [44, 46, 47]),  # answers that begin alike
    ([50], [51, 52], [53, 54]),
)


def batch() -> dict[str, Any]:
    """As TRL's collator writes it: chosen rows, then rejected ones, padded on the right."""
    import torch

    rows = [prompt + chosen for prompt, chosen, _ in PAIRS] + [prompt + rejected for prompt, _, rejected in PAIRS]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def test_hidden_states_and_gradients_are_those_of_whole_rows() -> None:
    import torch

    inputs = batch()
    real = inputs["attention_mask"].bool()
    found = []
    for share in (False, True):
        torch.manual_seed(0)
        model = toy_model("qwen3", 64).train()
        if share:
            assert share_prompts(model) is None
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[real]
        hidden.square().sum().backward()
        found.append((hidden.detach(), {name: one.grad for name, one in model.named_parameters()}))
    (plain, expected), (shared, gradients) = found
    assert torch.allclose(plain, shared, atol=1e-5)
    for name, gradient in expected.items():
        assert gradient is None or torch.allclose(gradient, gradients[name], atol=1e-4, rtol=1e-4), name


def test_a_common_prefix_stands_once() -> None:
    ids, positions, mask, places = pack(**batch())
    assert ids[0, :9].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert positions[0, :9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5]
    assert mask[0, 0, 8].tolist()[:9] == [True] * 5 + [False] * 3 + [True]
    assert places[4, 5] == 8
    assert ids.shape[1] == 9 < 2 * 8


def test_generation_goes_around_it() -> None:
    import torch

    prompts = [[5, 6, 7, 8, 9], [5, 6, 7, 8], [20, 21]]
    found = []
    for share in (False, True):
        model = toy_model("qwen3", 64).eval()
        if share:
            assert share_prompts(model) is None
        with torch.inference_mode():
            found.append([ids for ids, _, _ in decode(model, prompts, 1, 6, frozenset())])
    assert found[0] == found[1]


@pytest.mark.parametrize(("family", "reason"), [("gemma3", "do not attend to everything")])
def test_where_it_does_not_apply_it_says_why(family: str, reason: str) -> None:
    assert reason in str(share_prompts(toy_model(family, 64)))
