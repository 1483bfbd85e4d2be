"""Prompts, completions and the decoding loop, held against the template and against transformers' own generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import dialects
from data.transcript import Expected, Message, Request, Tool, ToolCall, Transcript
from stages import _rows, _sampling
from tests import toys

WEATHER = Tool("get_weather", "Weather of a place.", {"type": "object", "properties": {"city": {"type": "string"}}})
FORECAST = Tool("get_forecast", "Forecast.", {"type": "object", "properties": {"days": {"type": "integer"}}})
CALL = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),))
CALLS = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Rome"}), ToolCall("get_weather", {})))
CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "How is the sky above Norway's capital?"),
    CALL,
    Message("tool", '{"sky": "clear"}'),
    Message("assistant", "No cloud."),
    Message("user", "And in Italy's, and here?"),
    CALLS,
    Message("tool", '{"sky": "grey"}'),
    Message("tool", '{"sky": "blue"}'),
    Message("assistant", "It rains there."),
    Message("user", "Thanks!"),
    Message("assistant", "You are welcome."),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(toys.toy_checkpoint(tmp_path_factory.mktemp("toy")))


def load(folder: Path, **settings: Any) -> tuple[Any, Any]:
    from stages._model import ModelConfig, load_policy, load_tokenizer

    config = ModelConfig(path=str(folder), **settings)
    return load_policy(config), load_tokenizer(config)


def requests(count: int = 5) -> list[Request]:
    return [
        Request(
            f"r{number}",
            "",
            (WEATHER, FORECAST)[: number % 3],
            (Message("user", f"Tell me about {'x ' * 7 * number}"),),
            Expected("answer"),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(("family", "dialect"), toys.SPOKEN)
def test_what_is_trained_in_a_turn_is_what_generation_must_write_after_its_prompt(family: str, dialect: str) -> None:
    tokenizer, speech = toys.preset_tokenizer(family), dialects.get(dialect)
    transcript = Transcript("t", (WEATHER,), CONVERSATION)
    turns = [place for place, message in enumerate(CONVERSATION) if message.role == "assistant"]
    end = list(_sampling.turn_end(tokenizer).ids)
    trained: list[list[int]] = []
    for row in _rows.transcript_rows(tokenizer, speech, transcript):
        spans = [position for position, label in enumerate(row.labels) if label >= 0]
        starts = [position for position in spans if position - 1 not in spans]
        for start in starts:
            stop = next(position for position in range(start, len(row.labels) + 1) if position not in spans)
            request = Request("r", "", (WEATHER,), CONVERSATION[: turns[len(trained)]], Expected("answer"))
            prompt = _sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, speech, request))
            assert row.input_ids[:start] == prompt
            trained.append(row.input_ids[start:stop])
    assert all(ids[-len(end) :] == end for ids in trained)
    written = [tokenizer.decode(ids[: -len(end)]) for ids in trained]
    assert written == [
        _sampling.completion_of(
            tokenizer, speech, Request("r", "", (WEATHER,), CONVERSATION[:turn], Expected("answer")), CONVERSATION[turn]
        )
        for turn in turns
    ]
    # And that is what the data says, whole: each turn's calls and text, and nothing of what others said.
    for text, turn in zip(written, turns, strict=True):
        reading = speech.read(text, (WEATHER,))
        assert (reading.calls, reading.text) == (CONVERSATION[turn].tool_calls, CONVERSATION[turn].content)
    assert not [word for word in ("brief", "capital", "clear", "grey", "blue", "Thanks") if word in "".join(written)]


def test_our_mask_is_the_one_of_the_templates_generation_markers() -> None:
    tokenizer, native = toys.preset_tokenizer("toy"), dialects.get("native")
    (row,) = _rows.transcript_rows(tokenizer, native, Transcript("t", (WEATHER,), CONVERSATION))
    tools, chat = native.show((WEATHER,), CONVERSATION)
    marked = tokenizer.apply_chat_template(
        chat, tools=tools, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    length = len(row.input_ids)  # ours ends with the last turn, the template adds a line break
    assert row.input_ids == marked["input_ids"][:length]
    assert [label >= 0 for label in row.labels] == [bool(mark) for mark in marked["assistant_masks"][:length]]
    assert not any(marked["assistant_masks"][length:])


@pytest.mark.parametrize(("family", "dialect"), [("qwen3", "native"), ("gemma3", "json"), ("tiny_aya", "json")])
def test_our_mask_covers_what_the_training_template_of_trl_marks(family: str, dialect: str) -> None:
    import trl

    name = str(toys.FAMILIES[family]["template"])
    training = Path(trl.__file__).parent / "chat_templates" / f"{name}_training.jinja"
    tokenizer, speech = toys.preset_tokenizer(family), dialects.get(dialect)
    messages = CONVERSATION[:3]
    row = _rows.turn_row(tokenizer, speech, (WEATHER,), messages)
    ours = tokenizer.decode([label for label in row.labels if label >= 0])
    tools, chat = speech.show((WEATHER,), messages)
    marked = tokenizer.apply_chat_template(
        chat,
        tools=tools,
        chat_template=training.read_text(encoding="utf-8"),
        return_assistant_tokens_mask=True,
        return_dict=True,
        tokenize=True,
    )
    pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
    theirs = tokenizer.decode([token for token, mark in pairs if mark])
    # Theirs also trains what ours is prompted with: an empty thought, a marker of the answer's start.
    assert theirs.rstrip().endswith(ours)


def test_arguments_of_neighbouring_rows_do_not_leak_into_each_other() -> None:
    tokenizer, native = toys.preset_tokenizer("toy"), dialects.get("native")
    turns = [ToolCall("get_weather", {"city": "Oslo"}), ToolCall("get_forecast", {"days": 3})]
    transcripts = [
        Transcript(call.name, (WEATHER, FORECAST), (Message("user", "Go."), Message("assistant", tool_calls=(call,))))
        for call in turns
    ]
    rows, counts = _rows.rows_of(tokenizer, native, transcripts, max_length=512)
    from datasets import Dataset

    stored = Dataset.from_dict({"labels": [row.labels for row in rows]})["labels"]
    texts = [tokenizer.decode([label for label in labels if label >= 0]) for labels in stored]
    assert texts == [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
        '<tool_call>\n{"name": "get_forecast", "arguments": {"days": 3}}\n</tool_call><|im_end|>',
    ]
    assert counts.kept == 2


def test_a_row_that_is_too_long_or_refused_is_counted_and_never_cut() -> None:
    tokenizer, native = toys.preset_tokenizer("llama3_2"), dialects.get("native")
    both = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": "Oslo"}),) * 2)
    ask = Message("user", "Go.")
    transcripts = [
        Transcript("fits", (WEATHER,), (ask, CALL)),
        Transcript("two calls", (WEATHER,), (ask, both)),
        Transcript("long", (WEATHER,), (Message("user", "Go " * 500), CALL)),
    ]
    rows, counts = _rows.rows_of(tokenizer, native, transcripts, max_length=400)
    assert (len(rows), counts.refused, counts.too_long) == (1, 1, 1)
    assert "single tool-calls" in counts.examples[0]
    from stages._errors import UserError

    with pytest.raises(UserError, match=r"sft.max_dropped: 2 of 3 rows .* share of 0.5"):
        counts.check(0.5, "sft.max_dropped")
    counts.check(0.7, "sft.max_dropped")


def test_greedy_decoding_in_a_padded_batch_is_transformers_greedy_decoding_one_by_one(toy: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = toy
    native = dialects.get("native")
    found = _sampling.generate(model, tokenizer, native, requests(), max_new_tokens=24)
    stops = sorted(_sampling.stop_ids(model, tokenizer))
    for request, (completion,) in zip(requests(), found, strict=True):
        ids = torch.tensor([_sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, native, request))])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=stops
        )[0, ids.shape[1] :].tolist()
        assert list(completion.ids) == [token for token in theirs if token not in stops]
        assert completion.truncated == (theirs[-1] not in stops)


def test_the_embedded_model_gives_the_same_greedy_answers_in_one_batch_as_one_by_one() -> None:
    model, tokenizer = load(toys.ROOT / "assets" / "tiny")
    native = dialects.get("native")
    together = _sampling.generate(model, tokenizer, native, requests(6), max_new_tokens=24, batch_size=6)
    alone = _sampling.generate(model, tokenizer, native, requests(6), max_new_tokens=24, batch_size=1)
    assert [row[0].ids for row in together] == [row[0].ids for row in alone]
    assert len({len(row[0].ids) for row in alone}) > 1  # some end before others


@pytest.mark.parametrize("family", ["gemma3", "tiny_aya"])
def test_sliding_windows_are_respected_when_prompts_are_padded_and_longer_than_the_window(
    family: str, tmp_path: Path
) -> None:
    import torch

    model, tokenizer = load(toys.toy_checkpoint(tmp_path, family))
    speech = dialects.get("json")
    found = _sampling.generate(model, tokenizer, speech, requests(4), max_new_tokens=40, batch_size=4)
    for request, (completion,) in zip(requests(4), found, strict=True):
        prompt = _sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, speech, request))
        assert len(prompt) + len(completion.ids) > model.config.sliding_window
        written = list(completion.ids)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == written


def test_log_probabilities_are_those_of_a_plain_forward_pass_at_temperature_one(toy: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = toy
    native = dialects.get("native")
    found = _sampling.generate(model, tokenizer, native, requests(3), n=4, temperature=0.7, max_new_tokens=300)
    stop = _sampling.turn_end(tokenizer).ids[0]
    ended = 0
    for request, completions in zip(requests(3), found, strict=True):
        prompt = _sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, native, request))
        for completion in completions:
            written = [*completion.ids] + ([] if completion.truncated else [stop])
            ended += not completion.truncated
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + written])).logits[0].float()
            logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(written)[:, None])
            if completion.truncated or written[-1] == stop:
                assert completion.logprob == pytest.approx(logprobs.sum().item(), abs=2e-2)
    assert ended


def test_a_sample_depends_on_its_seed_and_request_and_not_on_its_batch(toy: tuple[Any, Any]) -> None:
    model, tokenizer = toy
    native = dialects.get("native")

    def sample(asked: list[Request], seed: int, batch: int) -> dict[str, list[str]]:
        found = _sampling.generate(
            model, tokenizer, native, asked, n=3, temperature=1.0, max_new_tokens=12, batch_size=batch, seed=seed
        )
        return {request.id: [each.text for each in row] for request, row in zip(asked, found, strict=True)}

    whole = sample(requests(), seed=1, batch=64)
    assert sample(requests()[2:4], seed=1, batch=3) == {name: whole[name] for name in ("r2", "r3")}
    assert sample(requests(), seed=2, batch=64) != whole
    assert len({text for row in whole.values() for text in row}) == 15


def test_sampling_draws_each_token_as_often_as_its_probability_says(toy: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = toy
    native = dialects.get("native")
    prompt = torch.tensor([_sampling.encode(tokenizer, _sampling.prompt_of(tokenizer, native, requests()[0]))])
    with torch.no_grad():
        wanted = model(input_ids=prompt).logits[0, -1].float().div(0.25).softmax(-1)
    (found,) = _sampling.generate(
        model, tokenizer, native, requests()[:1], n=4000, temperature=0.25, max_new_tokens=1, batch_size=4000
    )
    counts = torch.zeros_like(wanted)
    for completion in found:
        if completion.ids:
            counts[completion.ids[0]] += 1
    top = wanted.topk(5).indices
    spread = (wanted[top] * (1 - wanted[top]) / 4000).sqrt()
    assert ((counts[top] / 4000 - wanted[top]).abs() < 5 * spread).all()


def test_a_template_without_a_special_token_at_the_end_of_a_turn_is_refused() -> None:
    tokenizer = toys.toy_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    with pytest.raises(_sampling.TemplateError, match="must end a turn with a special token"):
        _sampling.turn_end(tokenizer)


def test_a_template_that_renders_an_answered_prompt_differently_is_refused() -> None:
    tokenizer = toys.toy_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}" + toys.CHATML
    with pytest.raises(_sampling.TemplateError, match="renders the prompt alone"):
        _sampling.completion_of(tokenizer, dialects.get("native"), requests()[0], Message("assistant", "Hello."))


@settings(max_examples=30)
@given(text=st.text(max_size=40), city=st.text(max_size=20))
def test_any_text_and_any_argument_survive_rendering_encoding_and_reading(text: str, city: str) -> None:
    tokenizer, native = _cached("toy"), dialects.get("native")
    request = Request("r", "", (WEATHER,), (Message("user", text),), Expected("call"))
    turn = Message("assistant", tool_calls=(ToolCall("get_weather", {"city": city}),))
    row = _rows.turn_row(tokenizer, native, (WEATHER,), (*request.messages, turn))
    trained = tokenizer.decode([label for label in row.labels if label >= 0])
    assert native.read(trained.removesuffix("<|im_end|>"), (WEATHER,)).calls == turn.tool_calls


_TOKENIZERS: dict[str, Any] = {}


def _cached(family: str) -> Any:
    return _TOKENIZERS.setdefault(family, toys.toy_tokenizer(family))
