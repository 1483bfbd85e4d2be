"""P(call) of a batch: that of the same answers one by one, and nothing else about them changes."""

from __future__ import annotations

from typing import Any

import pytest

from data import dialects
from data.transcript import Expected, Message, Request, Tool
from stages._p_call import Openings
from stages._sampling import generate
from tests import toys

TOOL = Tool("get_weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
REQUESTS = [
    Request(f"r{n}", "", (TOOL,) if n else (), (Message("user", f"Tell me {'more ' * n}."),), Expected("answer"))
    for n in range(4)
]


@pytest.fixture(scope="module")
def toy() -> tuple[Any, Any]:
    tokenizer = toys.preset_tokenizer("toy")
    return toys.toy_model("toy", len(tokenizer)).eval(), tokenizer


@pytest.mark.parametrize("dialect", ["native", "router"])
def test_answers_of_a_batch_tell_what_each_tells_alone_and_are_those_without(
    toy: tuple[Any, Any], dialect: str
) -> None:
    from runtime import Answer, LocalModel

    model, tokenizer = toy
    speech = dialects.get(dialect)
    plain = generate(model, tokenizer, speech, REQUESTS, max_new_tokens=6)
    told = generate(model, tokenizer, speech, REQUESTS, max_new_tokens=6, p_call=True)
    assert [row[0].ids for row in told] == [row[0].ids for row in plain]
    assert [row[0].logprob for row in told] == [row[0].logprob for row in plain]
    assert [row[0].p_call for row in plain] == [None] * 4
    assert told[0][0].p_call is None  # no tool is on offer
    policy = LocalModel(model, tokenizer, dialect, max_new_tokens=6)
    for request, row in zip(REQUESTS[1:], told[1:], strict=True):
        *_, answer = policy.stream(request.tools, request.messages)
        assert isinstance(answer, Answer)
        assert answer.probability is not None
        assert 0 < answer.probability < 1
        assert row[0].p_call == pytest.approx(answer.probability, rel=1e-3)


def test_samples_of_a_request_each_tell_their_own(toy: tuple[Any, Any]) -> None:
    model, tokenizer = toy
    [row] = generate(
        model, tokenizer, dialects.get("native"), REQUESTS[1:2], n=3, temperature=1.0, max_new_tokens=3, p_call=True
    )
    assert len(row) == 3
    assert all(each.p_call is not None for each in row)


def test_a_watch_settles_at_the_first_token_that_shows_and_takes_the_last_one_where_none_does() -> None:
    import torch

    tokenizer = toys.preset_tokenizer("toy")
    openings = Openings(tokenizer, dialects.get("native"))
    [tag] = openings.calling((TOOL,))

    def step(mass: float) -> torch.Tensor:
        row = torch.full((2048,), -torch.inf)
        row[tag], row[0] = torch.tensor(mass).log(), torch.tensor(1 - mass).log()
        return row

    space, word = tokenizer(" ")["input_ids"][0], tokenizer("No")["input_ids"][0]
    watch = openings.watch((TOOL,))
    assert watch.probability is None
    watch.see(step(0.75), space, ends=False)
    assert (watch.settled, watch.probability) == (False, pytest.approx(0.75))
    watch.see(step(0.25), word, ends=False)
    assert (watch.settled, watch.probability) == (True, pytest.approx(0.25))
    ended = openings.watch((TOOL,))
    ended.see(step(0.5), tokenizer.eos_token_id, ends=True)
    assert (ended.settled, ended.probability) == (True, pytest.approx(0.5))
    assert openings.watch(()).settled
