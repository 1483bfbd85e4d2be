"""Requests that a policy answers while it learns from them."""

from __future__ import annotations

from data import dialects
from stages._prompts import prompts_within
from stages._sampling import encode, prompt_of
from tests import toys
from tests.test_grpo import REQUESTS


def test_prompts_that_leave_no_room_for_an_answer_are_counted_not_cut() -> None:
    tokenizer, native = toys.toy_tokenizer(), dialects.get("native")
    texts = [prompt_of(tokenizer, native, one) for one in REQUESTS]
    lengths = [len(encode(tokenizer, text)) for text in texts]
    longest = lengths.index(max(lengths))
    kept, counts = prompts_within(tokenizer, native, REQUESTS, max(lengths) - 1)
    short = [place for place in range(3) if place != longest]
    assert [(one.request, one.text) for one in kept] == [(REQUESTS[place], texts[place]) for place in short]
    assert [len(one.ids) for one in kept] == [lengths[place] for place in short]
    assert (counts.total, counts.kept, counts.too_long) == (3, 2, 1)
