"""Prompts computed once give what computing them for each of their answers gives."""

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


SAMPLES = (  # prompt, the answers of its group
    ([5, 6, 7, 8, 9], ([10, 11, 12], [13], [10, 14, 15, 16])),
    ([20, 21], ([22], [22], [23, 24])),  # the same twice
)


def sampled(left: int) -> dict[str, Any]:
    """Groups of three as a sampler writes them: padded on the right, and by `left` on the left."""
    import torch

    rows = [prompt + answer for prompt, answers in SAMPLES for answer in answers]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[0] * left + row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[0] * left + [1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def ending_together() -> dict[str, Any]:
    """The same rows, padded on the left until all end in the last column."""
    inputs = sampled(0)
    for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        padding = int((mask == 0).sum())
        row[:], mask[:] = row.roll(padding), mask.roll(padding)
    return inputs


@pytest.mark.parametrize(
    ("inputs", "group", "multiple"),
    [(batch(), None, 1), (sampled(0), 3, 1), (sampled(2), 3, 8), (ending_together(), 3, 8), (sampled(0), 2, 1)],
    ids=["pairs", "groups", "groups padded on both sides", "groups that end together", "rows of other prompts"],
)
def test_hidden_states_and_gradients_are_those_of_whole_rows(
    inputs: dict[str, Any], group: int | None, multiple: int
) -> None:
    import torch

    places = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    real = inputs["attention_mask"].bool()
    found = []
    for share in (False, True):
        torch.manual_seed(0)
        model = toy_model("qwen3", 64).train()
        if share:
            assert share_prompts(model, group, multiple) is None
        hidden = model.base_model(**inputs, position_ids=places, use_cache=False).last_hidden_state[real]
        weights = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
        (hidden * weights).sum().backward()
        found.append((hidden.detach(), {name: one.grad for name, one in model.named_parameters()}))
    (plain, expected), (shared, gradients) = found
    assert torch.allclose(plain, shared, atol=1e-5)
    for name, gradient in expected.items():
        assert gradient is None or torch.allclose(gradient, gradients[name], atol=1e-5 * float(gradient.abs().max())), (
            name
        )


def test_a_common_prefix_stands_once() -> None:
    rows = [row for pair in range(len(PAIRS)) for row in (pair, pair + len(PAIRS))]
    ids, positions, mask, places = pack(*(each[rows] for each in batch().values()), group=2)
    assert ids[0, :9].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert positions[0, :9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5]
    assert mask[0, 0, 8].tolist()[:9] == [True] * 5 + [False] * 3 + [True]
    assert places[1, 5] == 8
    assert ids.shape[1] == 9 < 2 * 8


def test_the_answers_of_a_group_follow_each_other_and_see_their_prompt_alone() -> None:
    ids, positions, mask, places = pack(*sampled(2).values(), group=3, multiple=8)
    assert ids.shape == (2, 16)
    assert ids[0].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 10, 14, 15, 16, 0, 0, 0]
    assert positions[0, :13].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 6, 7, 8]
    assert mask[0, 0, 11].tolist() == [True] * 5 + [False] * 4 + [True] * 3 + [False] * 4
    assert places[2, 2:].tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12]  # the third row, behind its padding


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
