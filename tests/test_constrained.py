"""Calls held to a grammar once they open: they parse and fit, other text is left alone, both views are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data import dialects, schema
from data.transcript import Expected, Message, Reading, Request, Tool
from stages import _report, _summary, evaluate
from stages._asking import Model
from stages._constrained import Answer, Guide, check
from stages._control import plain
from stages._errors import UserError
from stages._grammar import FORMS
from stages._model import ModelConfig, load_base, load_tokenizer
from stages._sampling import Completion, generate, stop_ids
from tests.test_evaluate import Bench, habit
from tests.test_report import Page, mixed
from tests.toys import preset_tokenizer

TINY = ModelConfig(name="tiny", path="assets/tiny")


def tool(name: str, required: tuple[str, ...] = (), **fields: Any) -> Tool:
    return Tool(name, "A tool.", {"type": "object", "properties": fields, "required": list(required)})


WEATHER = tool("get_weather", ("city",), city={"type": "string"}, days={"type": "integer"})
LEVEL = tool("set_level", ("level", "on"), level={"enum": ["low", "größer"]}, on={"type": "boolean"})
NESTED = tool(
    "put", ("tags",), tags={"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 2},
    where={"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
)  # fmt: skip
TOOLS = (WEATHER, LEVEL, NESTED, Tool("now", "The time.", {"type": "object", "properties": {}}))
OPENINGS = [
    ("native", "<tool_call>"),
    ("hermes", "I will look.\n<tool_call>"),
    ("json", '{"name"'),
    ("json", '[{"name"'),
    ("router", '{"tool"'),
    ("router", '[ {"tool"'),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(TINY)


def request(number: int = 0, tools: tuple[Tool, ...] = TOOLS) -> Request:
    return Request(f"r{number}", "", tools, (Message("user", "Hello " * (number + 1)),), Expected("answer"))


def guide(tokenizer: Any, dialect: str, *requests: Request) -> Guide:
    return Guide(tokenizer, dialect, dialects.get(dialect), requests or [request()])


def noisy(tokenizer: Any, opening: str, seed: int = 0) -> Any:
    """A model that writes an opening, then wants to end at once, and else noise with many brackets and quotes, so that
    it comes to an end.
    """
    import torch

    begun = pieces(tokenizer, opening)
    noise = torch.randn(64, len(tokenizer), generator=torch.Generator().manual_seed(seed))
    closing = [token for token in range(len(tokenizer)) if set(tokenizer.decode([token])) <= set('"}],:{<>/')]
    noise[:, closing] += 4
    noise[:, tokenizer.eos_token_id] = 50

    class Noisy(torch.nn.Module):
        generation_config = None

        def __init__(self) -> None:
            super().__init__()
            self.place = torch.nn.Parameter(torch.zeros(1))
            self.step = 0

        def forward(self, input_ids: Any, position_ids: Any, **_: Any) -> Any:
            self.step = 0 if input_ids.shape[1] > 1 else self.step + 1  # a prompt, or the next token
            logits = noise[(input_ids[:, -1] * 31 + position_ids[:, -1]) % 64].clone()
            if self.step < len(begun):
                logits[:, begun[self.step]] = 100
            return type("Output", (), {"logits": logits[:, None]})

    return Noisy()


def written(
    tokenizer: Any, dialect: str, model: Any, *requests: Request, length: int = 200, **options: Any
) -> list[Completion]:
    rows = generate(
        model, tokenizer, dialects.get(dialect), requests, max_new_tokens=length, batch_size=len(requests), **options
    )
    return [row[0] for row in rows]


def read(dialect: str, completion: Completion, tools: tuple[Tool, ...] = TOOLS) -> Reading:
    return dialects.get(dialect).read(plain(completion.text), tools)


def fits(reading: Reading, tools: tuple[Tool, ...] = TOOLS) -> bool:
    parameters = {tool.name: tool.parameters for tool in tools}
    return (
        reading.attempt
        and bool(reading.calls)
        and not reading.malformed
        and all(call.name in parameters for call in reading.calls)
        and not any(schema.violations(call.arguments, parameters[call.name]) for call in reading.calls)
    )


class Pen:
    """An answer written by hand: text goes in as its tokens, and stops at the first that is refused."""

    def __init__(self, tokenizer: Any, dialect: str, *tools: Tool) -> None:
        self.tokenizer = tokenizer
        asked = request(tools=tools)
        self.guide = guide(tokenizer, dialect, asked)
        self.answer = Answer(self.guide, asked.tools, frozenset({tokenizer.eos_token_id}))

    def takes(self, text: str) -> bool:
        return all(self.answer.take(token) for token in pieces(self.tokenizer, text))

    def ends(self) -> bool:
        return self.answer.take(self.tokenizer.eos_token_id)


def pieces(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dialect", "opening"), OPENINGS)
def test_noise_behind_an_opening_comes_out_as_calls_that_parse_and_fit(
    tokenizer: Any, dialect: str, opening: str, seed: int
) -> None:
    model, asked = noisy(tokenizer, opening, seed), request()
    (free,) = written(tokenizer, dialect, model, asked)
    (held,) = written(tokenizer, dialect, model, asked, guide=guide(tokenizer, dialect))
    assert free.text == opening
    assert held.text.startswith(opening)
    assert not held.truncated
    reading = read(dialect, held)
    if dialect == "router" and not reading.attempt:  # whether it calls is its own choice here too
        assert not reading.malformed
    else:
        assert fits(reading), held.text


@pytest.mark.parametrize("family", ["toy", "qwen3", "llama3_2", "gemma3"])
def test_calls_of_other_tokenizers_are_held_too(family: str) -> None:
    tokenizer = preset_tokenizer(family)
    model, held_to = noisy(tokenizer, "<tool_call>"), guide(tokenizer, "hermes")
    (held,) = written(tokenizer, "hermes", model, request(), guide=held_to, length=600)
    assert fits(read("hermes", held)), held.text


@pytest.mark.parametrize("dialect", FORMS)
def test_a_batch_writes_what_each_request_gets_alone(tokenizer: Any, dialect: str) -> None:
    opening = {"json": '{"name"', "router": '{"tool"'}.get(dialect, "<tool_call>")
    model = noisy(tokenizer, opening)
    asked = [request(number, TOOLS[: 1 + number % 4]) for number in range(6)] + [request(6, ())]
    held = guide(tokenizer, dialect, *asked)
    together = written(tokenizer, dialect, model, *asked, guide=held)
    alone = [written(tokenizer, dialect, model, one, guide=held)[0] for one in asked]
    assert [one.text for one in together] == [one.text for one in alone]
    assert len({one.text for one in together}) > 3
    assert together[6].text == opening, "without tools on offer there is no call to be held"


def test_text_without_a_call_is_the_text_of_free_decoding(tokenizer: Any) -> None:
    """By the embedded base, which writes sentences and never calls."""
    base = load_base(TINY)
    asked = [request(number) for number in range(4)]
    free = written(tokenizer, "native", base, *asked, length=40)
    assert written(tokenizer, "native", base, *asked, length=40, guide=guide(tokenizer, "native")) == free
    assert all(one.text for one in free)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("native", "In a block: ```\n<tool_call>nothing</tool_call>\n``` and < or <tool or <tool_calls> is text."),
        ("native", "<think>I could write <tool_call>{} or not.</think> No."),
        ("json", 'I would write {"name": "x"} or [1, 2].'),
        ("json", '{"answer": 3}'),
        ("router", "No tool is needed."),
    ],
)
def test_what_opens_no_call_is_free(tokenizer: Any, dialect: str, text: str) -> None:
    pen = Pen(tokenizer, dialect, *TOOLS)
    assert pen.takes(text)
    assert pen.ends()


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city": "Oslo"}',
        '{"days": 3, "city": "Malmö, Łódź, 東京 👋"}',
        '{ "city":"a \\"quoted\\" name\\n" ,\n  "days": -12\n}',
    ],
)
def test_arguments_that_fit_are_taken_as_they_are_in_any_order(tokenizer: Any, arguments: str) -> None:
    pen = Pen(tokenizer, "native", *TOOLS)
    assert pen.takes(f"I look.\n{call('get_weather', arguments)}\nThere.")
    assert pen.ends()


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("get_wind", "{}", "no such tool"),
        ("get_weather", "{}", "a required argument lacks"),
        ("get_weather", '{"city": 3}', "no text"),
        ("get_weather", '{"city": "Oslo", "unit": "C"}', "an unknown key"),
        ("get_weather", '{"city": "Oslo", "city": "Rome"}', "a key twice"),
        ("get_weather", '{"city": "Oslo", "days": 3.0}', "no whole number"),
        ("get_weather", '{"city": "Oslo", "days": 9223372036854775808}', "more than 64 bits"),
        ("get_weather", '{"city": "\\ud800"}', "no character"),
        ("set_level", '{"level": "lower", "on": true}', "not one of the values"),
        ("set_level", '{"level": "low", "on": "yes"}', "no truth value"),
        ("put", '{"tags": []}', "too few"),
        ("put", '{"tags": [1, 2, 3]}', "too many"),
        ("put", '{"tags": [1], "where": {"x": 1, "y": 2}}', "an unknown key within"),
        ("now", '{"zone": "UTC"}', "an argument of none"),
    ],
)
def test_what_breaks_a_schema_cannot_be_written(tokenizer: Any, name: str, arguments: str, why: str) -> None:
    assert not Pen(tokenizer, "native", *TOOLS).takes(call(name, arguments)), why


def test_values_with_letters_beyond_ascii_pass_and_only_listed_ones_do(tokenizer: Any) -> None:
    assert Pen(tokenizer, "json", *TOOLS).takes('{"name": "set_level", "arguments": {"on": true, "level": "größer"}}')
    assert not Pen(tokenizer, "json", *TOOLS).takes('{"name": "set_level", "arguments": {"on": true, "level": "größe"')


def test_text_is_free_behind_a_call_and_the_next_one_is_held_again(tokenizer: Any) -> None:
    first, second = call("now", "{}"), call("get_weather", '{"city": "Rome"}')
    pen = Pen(tokenizer, "native", *TOOLS)
    assert pen.takes("<tool_call>")
    assert not pen.ends(), "a call that is open has to be closed"
    assert pen.takes(first.removeprefix("<tool_call>") + "\n} and }\n" + second)
    assert pen.ends()
    pen = Pen(tokenizer, "native", *TOOLS)
    assert pen.takes(f"{first}\n<tool_call>")
    assert not pen.takes("nothing")
    reading = dialects.get("native").read(f"{first}\n{second}", TOOLS)
    assert [one.name for one in reading.calls] == ["now", "get_weather"]


@pytest.mark.parametrize(("dialect", "key"), [("json", "name"), ("router", "tool")])
def test_an_answer_that_is_a_call_is_nothing_but_calls(tokenizer: Any, dialect: str, key: str) -> None:
    one = f'{{"{key}": "now", "arguments": {{}}}}'
    for text in (one, f"[{one}]", f"[{one}, {one}]"):
        pen = Pen(tokenizer, dialect, *TOOLS)
        assert pen.takes(text)
        assert not pen.takes(" and more")
        assert pen.ends()
    pen = Pen(tokenizer, dialect, *TOOLS)
    assert pen.takes(f"[{one}")
    assert not pen.ends()


def test_the_router_may_decline_with_a_reason_and_nothing_else(tokenizer: Any) -> None:
    pen = Pen(tokenizer, "router", *TOOLS)
    assert pen.takes('{"tool": "no_tool", "reason": "Nichts passt für \\"heute\\"."}')
    assert pen.ends()
    assert not Pen(tokenizer, "router", *TOOLS).takes('{"tool": "no_tool", "arguments": {}}')


def test_a_tag_that_is_spelled_in_letters_opens_a_call_too(tokenizer: Any) -> None:
    pen = Pen(tokenizer, "native", *TOOLS)
    for part in ("<", "tool", "_", "call", ">"):
        assert pen.takes(part)
    assert not pen.ends()
    assert pen.takes('{"name": "now", "arguments": {}}')
    for part in ("<", "/", "tool", "_", "call", ">"):
        assert pen.takes(part)
    assert pen.ends()


def test_what_follows_an_opening_in_the_same_token_has_to_fit_too(tokenizer: Any) -> None:
    closing = {text: token for token in range(len(tokenizer)) if (text := tokenizer.decode([token])).startswith('"')}
    assert closing.keys() >= {'"', '" ', '": ', '": "', '", ', '"}', '": "+'}
    taken = set()
    for text, token in closing.items():
        pen = Pen(tokenizer, "json", *TOOLS)
        assert pen.takes('{"name')
        if pen.answer.take(token):
            taken.add(text)
    assert taken == {'"', '" ', '": ', '": "'}


def test_a_schema_that_cannot_be_expressed_leaves_the_name_and_any_object_and_is_told(tokenizer: Any) -> None:
    odd = tool("pick", ("set",), set={"type": "array", "items": {"type": "integer"}, "uniqueItems": True})
    twin = Tool("choose", "Another.", odd.parameters)
    pen = Pen(tokenizer, "native", WEATHER, odd, twin)
    assert pen.takes(call("pick", '{"whatever": ["1", {"a": null}]}'))
    assert not Pen(tokenizer, "native", WEATHER, odd).takes(call("pick", "[1]"))
    assert not Pen(tokenizer, "native", WEATHER, odd).takes(call("pack", "{}"))
    assert not Pen(tokenizer, "native", WEATHER, odd).takes(call("get_weather", "{}")), "the others are held as ever"
    assert pen.guide.loosened == {'Unimplemented keys: ["uniqueItems"]': ["pick", "choose"]}
    assert pen.guide.notes() == [
        "arguments of 2 tools (pick, choose) are held to any JSON object, not to their schema:"
        ' Unimplemented keys: ["uniqueItems"]'
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"type": "string", "format": "date"}, '"next Friday"'),  # no validator of ours asserts a format
        ({"$ref": "#/$defs/size"}, '"big"'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null"),
        ({"type": ["number", "null"]}, "-0.25"),
        ({"type": "object"}, '{"any": [true]}'),
        ({"type": "object", "properties": {"format": {"type": "string"}}}, '{"format": "pdf"}'),
        ({}, '[1, "a"]'),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_schemas_that_are_met_in_the_wild_are_held_as_they_are_judged(
    tokenizer: Any, field: dict[str, Any], value: str, count: int
) -> None:
    fields = {f"field_{number}": field for number in range(count)}
    odd = Tool("odd", "", {**tool("odd", tuple(fields), **fields).parameters, "$defs": {"size": {"enum": ["big"]}}})
    text = "{" + ", ".join(f'"{name}": {value}' for name in fields) + "}"
    assert schema.violations(json.loads(text), odd.parameters) == []
    pen = Pen(tokenizer, "json", odd)
    assert not pen.guide.loosened
    assert pen.takes(f'{{"name": "odd", "arguments": {text}}}')
    assert pen.ends()


@pytest.mark.parametrize(
    "field",
    [
        # One key: two that the schema does not name may be the same, which no grammar can tell.
        {"type": "object", "maxProperties": 1},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 1},
        {"type": "object", "patternProperties": {"^x": {"type": "boolean"}}, "maxProperties": 1},
        {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "null"}}, "required": ["y"]},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
        {"type": "number", "multipleOf": 0.25, "maximum": 9},
        {"type": "string", "pattern": "^[a-c]{2}$"},
        {"enum": ["x", 1, None, True, 1.5, {"y": []}]},
        {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 9}]},
        {
            "anyOf": [
                {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
                {"type": "boolean"},
            ]
        },
        {"oneOf": [{"type": "integer"}, {"type": "null"}]},
    ],
    ids=str,
)
def test_whatever_a_grammar_lets_through_fits_the_schema(tokenizer: Any, field: dict[str, Any]) -> None:
    import torch

    closing = [token for token in range(len(tokenizer)) if set(tokenizer.decode([token])) <= set('"}],')]
    odd, done = tool("odd", ("a",), a=field, b={"type": "boolean"}), 0
    for seed in range(8):
        pen = Pen(tokenizer, "json", odd)
        assert not pen.guide.loosened
        assert pen.takes('{"name"')
        noise = torch.Generator().manual_seed(seed)
        for _ in range(120):
            logits = torch.randn(len(tokenizer), generator=noise)
            logits[closing] += 4
            assert pen.answer.take(int(pen.answer.mask(logits).argmax()))
        done += pen.answer.over
        assert not pen.answer.over or fits(dialects.get("json").read(pen.answer.text.decode(), [odd]), (odd,))
    assert done > 4, "noise comes to an end now and then"


@pytest.mark.parametrize(
    "beside", [{"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"not": {"required": ["b"]}}]
)
def test_schemas_that_only_a_validator_understands_are_loosened(tokenizer: Any, beside: dict[str, Any]) -> None:
    whole = tool("odd", a={"type": "integer"}, b={"type": "integer"}).parameters | beside
    assert [*guide(tokenizer, "json", request(tools=(Tool("odd", "", whole),))).loosened.values()] == [["odd"]]


def test_an_answer_that_the_library_gives_up_on_goes_on_freely_and_is_counted(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llguidance import LLMatcher, LLParserLimits

    pen = Pen(tokenizer, "native", *TOOLS)
    few = LLParserLimits(step_max_items=1)
    monkeypatch.setattr(
        pen.guide, "_matcher", lambda text: LLMatcher(pen.guide.tokenizer, text, log_level=0, limits=few)
    )
    (held,) = written(tokenizer, "native", noisy(tokenizer, "<tool_call>"), request(), guide=pen.guide)
    assert held.text == "<tool_call>"
    assert pen.guide.released.total() == 1
    assert len(pen.guide.notes()) == 1
    assert pen.guide.notes()[0].startswith("1 answers were let go while they called: ")


def test_a_guide_is_for_greedy_decoding(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="greedy"):
        written(tokenizer, "json", None, request(), guide=guide(tokenizer, "json"), temperature=1.0)


def test_dialects_and_templates_that_cannot_be_held_are_refused_in_a_line(tokenizer: Any) -> None:
    assert {*dialects.names()} - {*FORMS} == {"pythonic"}
    with pytest.raises(UserError) as caught:
        check("pythonic")
    assert caught.value.lines == (
        "evaluate.constrained: calls of model.dialect=pythonic are no JSON, which the grammar needs; it works for"
        " hermes, json, native, router",
    )
    llama = preset_tokenizer("llama3_2")
    with pytest.raises(UserError, match="writes calls without <tool_call>"):
        guide(llama, "native")
    assert guide(llama, "json")
    from transformers import ByT5Tokenizer

    with pytest.raises(UserError, match=r"tokenizer\.json"):
        guide(ByT5Tokenizer(), "json")


def test_every_stop_ends_an_answer_and_none_an_open_call(tokenizer: Any) -> None:
    stops = stop_ids(load_base(TINY), tokenizer) | {0}
    assert len(stops) > 1
    for stop in stops:
        answer = Answer(guide(tokenizer, "native"), TOOLS, stops)
        assert all(answer.take(token) for token in pieces(tokenizer, "<tool_call>"))
        assert not answer.take(stop)
        assert all(answer.take(token) for token in pieces(tokenizer, call("now", "{}").removeprefix("<tool_call>")))
        assert answer.take(stop)


def twice(bench: Bench, constrained: Any) -> list[tuple[str, bool]]:
    """Let the models of a bench answer `constrained(model, request)` where they are held; returns who is asked."""
    asked: list[tuple[str, bool]] = []

    def answer(model: Model, requests: Any, way: str = "", guide: Guide | None = None, p_call: bool = False) -> Any:
        asked.append((model.name, guide is not None))
        assert p_call is not (guide is not None)
        said = constrained if guide else bench.said
        return [[Completion(said(model.name, one), -1.0, 9, False)] for one in requests]

    bench.monkeypatch.setattr(Model, "answer", answer)
    bench.monkeypatch.setattr("stages._model.load_tokenizer", lambda config: load_tokenizer(TINY))
    return asked


def broken(model: str, asked: Request) -> str:
    """What a bench's models say, but that sft never closes its calls."""
    return habit(model, asked).replace("</tool_call>", "") if model == "sft" else habit(model, asked)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch, said=broken)


def test_both_views_are_measured_and_written_apart(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    asked = twice(bench, habit)
    job = bench.job(stages=("sft",), constrained=True)
    metrics = evaluate.run(job)
    assert asked == [("base", False), ("base", True), ("sft", False), ("sft", True)]
    free, held = metrics["sft"], metrics["sft"]["constrained"]
    assert (free["malformed_rate"], free["exact_call_rate"], free["false_tool_call_rate"]) == (1.0, 0.0, 1.0)
    assert (held["malformed_rate"], held["exact_call_rate"], held["false_tool_call_rate"]) == (0.0, 1.0, 1.0)
    assert held["outcomes"] == {"exact_call": 5, "needless_call": 5}
    assert "by_kind" not in held
    predictions, constrained = bench.rows("predictions.jsonl"), bench.rows("constrained.jsonl")
    assert [(row["model"], row["id"]) for row in constrained] == [(row["model"], row["id"]) for row in predictions]
    assert [row.keys() for row in constrained] == [row.keys() for row in predictions]
    assert {row["outcome"] for row in predictions if row["model"] == "sft"} == {"malformed_call", "needless_call"}
    assert job.notes["constrained"] == {"loosened": {}, "released": {}}
    (job.folder / "metrics.json").write_text(json.dumps(metrics))
    capsys.readouterr()
    evaluate.after(job)
    shown = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(shown) if line.startswith("free / constrained decoding"))
    assert shown[place + 1].split("  ")[-1].strip() == "malformed"
    assert " ".join(shown[place + 3].split()) == ("sft 0.0 % / 100.0 % 100.0 % / 100.0 % 0.0 % / 0.0 % 100.0 % / 0.0 %")


def test_without_the_setting_nothing_is_asked_twice_or_shown(bench: Bench) -> None:
    asked = twice(bench, habit)
    metrics = evaluate.run(bench.job(stages=("sft",)))
    assert asked == [("base", False), ("sft", False)]
    assert "constrained" not in metrics["sft"]
    folder = bench.folder / "runs/mine/evaluate"
    assert not (folder / "constrained.jsonl").exists()
    assert "Free and constrained" not in (folder / "report.html").read_text()


def test_an_interrupted_evaluation_asks_neither_view_again(bench: Bench) -> None:
    def stop_at_sft(model: str, asked: Request) -> str:
        if model == "sft":
            raise KeyboardInterrupt
        return habit(model, asked)

    twice(bench, stop_at_sft)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(bench.job(stages=("sft",), constrained=True))
    asked = twice(bench, habit)
    resumed = evaluate.run(bench.job(stages=("sft",), constrained=True, resuming=True))
    assert asked == [("sft", True)], "the free answers of sft were there, the constrained ones were not"
    rows = bench.rows("constrained.jsonl")
    assert evaluate.run(bench.job(stages=("sft",), constrained=True)) == resumed
    assert bench.rows("constrained.jsonl") == rows


def test_the_page_and_the_terminal_show_free_and_constrained_side_by_side() -> None:
    found, rows, predictions = mixed()
    found["dpo"]["constrained"] = found["sft"] | {"malformed_rate": None, "malformed_rate_ci": None}
    parsed = Page(_report.render(found, rows, predictions, {"run": "s0"}))
    seen = " ".join(" ".join(parsed.text).split())
    table = seen.split("Free and constrained decoding")[1].split("On tools never seen")[0]
    assert [part.split("[")[0].strip() for part in table.split(" dpo ")[1].split("]")[:7]] == [
        *("91.7 %", "100.0 %", "0.0 %", "100.0 %", "8.3 %", "0.0 %", "0.0 %"),
    ]
    assert table.strip().endswith("-")
    lines = _summary.tables(found)
    assert " ".join(lines[-1].split()) == "dpo 91.7 % / 100.0 % 0.0 % / 100.0 % 8.3 % / 0.0 % 0.0 % / -"
    assert max(map(len, lines)) <= 110


def test_a_pythonic_model_is_refused_before_anything_is_done(bench: Bench) -> None:
    job = bench.job(constrained=True)
    job.settings.blocks["model"].dialect = "pythonic"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="pythonic"):
        evaluate.refuse(job.settings, {"sft": Path()})
