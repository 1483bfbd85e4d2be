"""How likely given turns are, against plain forward passes over single rows, and what there is to choose between."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from data import dialects
from data.transcript import Act, Expected, Message, Request, Tool, ToolCall
from stages._likelihood import Likelihood, answers_in_text, choices, likelihoods, turns_of
from tests import toys

WEATHER = Tool("get_weather", "Weather of a place.", {"type": "object", "properties": {"city": {"type": "string"}}})
TURNS: dict[Act, Message] = {
    "call": Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),)),
    "answer": Message("assistant", "It is 4."),
    "ask": Message("assistant", "Which city do you mean, the one in Norway or the other one?"),
    "refuse": Message("assistant", "No."),
}


def asked(number: int, expected: Expected | None = None, **more: Any) -> Request:
    question = Message("user", f"How is it{' there' * 9 * number}?")
    return Request(f"r{number}", "", (WEATHER,) * (number % 2), (question,), expected or Expected("answer"), **more)


def load(folder: Path, family: str = "toy") -> tuple[Any, Any]:
    from stages._model import ModelConfig, load_base, load_tokenizer

    config = ModelConfig(path=str(toys.toy_checkpoint(folder, family)))
    return load_base(config), load_tokenizer(config)


@pytest.mark.parametrize(("family", "dialect"), [("toy", "native"), ("gemma3", "json"), ("tiny_aya", "router")])
def test_turns_are_as_likely_in_a_padded_batch_as_in_a_plain_pass_over_each(
    family: str, dialect: str, tmp_path: Path
) -> None:
    import torch

    from stages._sampling import completion_of, encode, prompt_of

    model, tokenizer = load(tmp_path, family)
    speech = dialects.get(dialect)
    requests = [asked(number) for number in range(4)]
    found = likelihoods(model, tokenizer, speech, requests, [TURNS] * 3 + [{"refuse": TURNS["refuse"]}], batch_size=5)
    assert [list(each) for each in found] == [list(TURNS)] * 3 + [["refuse"]]
    for request, each in zip(requests, found, strict=True):
        prompt = encode(tokenizer, prompt_of(tokenizer, speech, request))
        for act, likelihood in each.items():
            written = encode(tokenizer, completion_of(tokenizer, speech, request, TURNS[act]))
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].float()
            gains = logits.log_softmax(-1).gather(1, torch.tensor(written)[:, None])
            assert likelihood.tokens == len(written)
            assert likelihood.logprob == pytest.approx(gains.sum().item(), abs=1e-3)
            assert likelihood.mean == pytest.approx(gains.mean().item(), abs=1e-4)


def test_where_every_token_is_as_likely_as_any_other_a_turn_loses_the_logarithm_of_their_number_with_each(
    tmp_path: Path,
) -> None:
    model, tokenizer = load(tmp_path)
    model.get_output_embeddings().weight.data.zero_()
    (found,) = likelihoods(model, tokenizer, dialects.get("native"), [asked(1)], [TURNS], batch_size=4)
    for act, each in found.items():
        assert each.logprob == pytest.approx(-each.tokens * math.log(model.config.vocab_size), rel=1e-6), act
    assert len({each.tokens for each in found.values()}) == 4


def test_a_request_with_a_turn_that_the_template_cannot_write_has_no_likelihoods(tmp_path: Path) -> None:
    model, tokenizer = load(tmp_path)
    tokenizer.chat_template = (
        "{% if messages[-1].content == 'No.' %}{{ raise_exception('no') }}{% endif %}" + toys.CHATML
    )
    given: list[dict[Act, Message]] = [TURNS, {"answer": TURNS["answer"]}, {"answer": Message("assistant", "")}, {}]
    found = likelihoods(model, tokenizer, dialects.get("native"), [asked(1)] * 4, given, batch_size=4)
    assert [list(each) for each in found] == [[], ["answer"], [], []]


def test_only_a_known_text_where_no_call_is_needed_is_an_answer_in_text() -> None:
    texts = {
        Expected("answer", text="4"): True,
        Expected("answer"): False,
        Expected("answer", text=" "): False,
        Expected("refuse", text="No."): False,
        Expected("call", text="4"): False,
    }
    assert {expected: answers_in_text(asked(0, expected)) for expected in texts} == texts


def test_a_choice_holds_the_right_turn_among_those_of_the_other_acts() -> None:
    others = {act: TURNS[act] for act in ("refuse", "call")}
    assert list(choices(asked(0, Expected("ask"), gold=TURNS["ask"], others=others)).items()) == [
        (act, TURNS[act]) for act in ("call", "ask", "refuse")
    ]
    assert choices(asked(0, Expected("ask"), gold=TURNS["ask"])) == {}
    assert choices(asked(0, Expected("ask"), others=others)) == {}


def test_the_right_texts_of_a_limited_number_of_requests_are_weighed_and_all_choices() -> None:
    texts = [asked(number, Expected("answer", text=str(number))) for number in range(4)]
    chosen = asked(9, Expected("ask"), gold=TURNS["ask"], others={"refuse": TURNS["refuse"]})
    found = turns_of([*texts, chosen], limit=2)
    weighed = {"answer": Message("assistant", "0")}, {}, {"answer": Message("assistant", "2")}, {}
    assert found == [*weighed, {"ask": TURNS["ask"], "refuse": TURNS["refuse"]}]
    assert turns_of([*texts, chosen], limit=0) == [{}] * 4 + [found[4]]


def test_a_likelihood_is_a_pair_in_json() -> None:
    import json

    assert Likelihood(*json.loads(json.dumps(Likelihood(-1.5, 3)))) == Likelihood(-1.5, 3)
