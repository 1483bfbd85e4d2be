"""What serves a merged model: what its template writes is what vLLM's parsers read, and what Ollama's renders is it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import jinja2
import pytest

from data import dialects
from data.transcript import Message, Tool, ToolCall
from stages import _serving
from stages._sampling import render, split_turn
from tests import toys

Calls = list[tuple[str, dict[str, Any]]]


def hermes(text: str) -> Calls:
    """vLLM's `hermes`, written from its description: every <tool_call> … </tool_call> holds a JSON object with name and
    arguments; what stands before the first one is content.
    """
    blocks = [part.split("</tool_call>") for part in text.split("<tool_call>")[1:]]
    assert all(len(block) == 2 for block in blocks)
    objects = [json.loads(block[0]) for block in blocks]
    return [(one["name"], one["arguments"]) for one in objects]


def llama3_json(text: str) -> Calls:
    """vLLM's `llama3_json`, written from its description: objects with name and parameters (or arguments), several of
    them separated by semicolons.
    """
    calls, place = [], 0
    while place < len(text):
        one, place = json.JSONDecoder().raw_decode(text, place)
        calls.append((one["name"], one["arguments"] if "arguments" in one else one["parameters"]))
        assert text[place : place + 1] in (";", "")
        place += len(text[place:]) - len(text[place:].lstrip("; "))
    return calls


def pythonic(text: str) -> Calls:
    """vLLM's `pythonic`, written from its description: all of the text is a Python list of calls of plain names, whose
    arguments are keywords with literals, negative numbers, lists and dicts as values.
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.List):
            return [value(each) for each in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        assert isinstance(node, ast.Dict), f"no literal: {ast.unparse(node)}"
        return {key.value: value(each) for key, each in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]

    listed = ast.parse(text, mode="eval").body
    assert isinstance(listed, ast.List)
    calls = []
    for call in listed.elts:
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert not call.args
        calls.append((call.func.id, {str(each.arg): value(each.value) for each in call.keywords}))
    return calls


READERS = {"hermes": hermes, "llama3_json": llama3_json, "pythonic": pythonic}
NESTED = {"query": {"terms": ["a", 'b "quoted"'], "limit": 3, "exact": True, "after": None}, "scale": 0.5}
CASES: dict[str, Calls] = {
    "one": [("get_weather", {"city": "Oslo", "days": 3})],
    "two": [("get_weather", {"city": "São Paulo"}), ("get_time", {"zone": "UTC"})],
    "nested": [("search", NESTED)],
    "no arguments": [("get_time", {})],
}
TOOLS = tuple(
    Tool(name, f"Does {name}.", {"type": "object", "properties": {}}) for name in ("get_weather", "get_time", "search")
)


def tokenizer_of(family: str) -> Any:
    if family != "tiny":
        return toys.preset_tokenizer(family)
    from stages._model import ModelConfig, load_tokenizer

    return load_tokenizer(ModelConfig())


def served(family: str, dialect: str, tools: Any, messages: tuple[Message, ...], prompt: bool) -> str:
    """What the merged model's template makes of a conversation as servers hand it over: tools= and tool_calls."""
    tokenizer = tokenizer_of(family)
    template = _serving.template_with_tools(tokenizer.chat_template, dialect)
    return tokenizer.apply_chat_template(
        [message.as_chat() for message in messages],
        tools=[tool.as_function() for tool in tools] or None,
        chat_template=template,
        add_generation_prompt=prompt,
        tokenize=False,
    )


PARSED = [
    *((family, "native", "hermes") for family in ("tiny", "toy", "qwen3")),
    *((family, name, name) for family in ("tiny", *toys.FAMILIES) for name in ("hermes", "pythonic")),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("family", "dialect", "parser"), PARSED)
def test_what_the_template_writes_is_what_the_parser_reads(family: str, dialect: str, parser: str, case: str) -> None:
    assert _serving.tool_call_parser(tokenizer_of(family), dialect) == parser
    asked = (Message("user", "Go on."),)
    turn = Message("assistant", tool_calls=tuple(ToolCall(name, arguments) for name, arguments in CASES[case]))
    prompt = served(family, dialect, TOOLS, asked, prompt=True)
    whole = served(family, dialect, TOOLS, (*asked, turn), prompt=False)
    assert whole.startswith(prompt)
    end = _end_of_turn(family)
    written = whole[len(prompt) :].rpartition(end)[0]
    assert READERS[parser](written) == CASES[case]
    assert [(call.name, call.arguments) for call in dialects.get(dialect).read(written, TOOLS).calls] == CASES[case]


def _end_of_turn(family: str) -> str:
    from stages._sampling import turn_end

    return turn_end(tokenizer_of(family)).text


@pytest.mark.parametrize("case", [case for case in CASES if case != "two"])  # its template refuses two calls
def test_llamas_own_template_writes_what_llama3_json_reads(case: str) -> None:
    tokenizer = toys.preset_tokenizer("llama3_2")
    assert _serving.tool_call_parser(tokenizer, "native") == "llama3_json"
    turn = Message("assistant", tool_calls=tuple(ToolCall(name, arguments) for name, arguments in CASES[case]))
    written = split_turn(tokenizer, dialects.get("native"), TOOLS, (Message("user", "Go on."), turn))[1]
    assert llama3_json(written) == CASES[case]
    assert llama3_json(f"{written}; {written}") == 2 * CASES[case]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("parser", "dialect"), [("hermes", "native"), ("hermes", "hermes"), ("pythonic", "pythonic")])
def test_vllms_own_parsers_read_it_where_vllm_is_installed(parser: str, dialect: str, case: str) -> None:
    parsers = pytest.importorskip("vllm.tool_parsers", reason="vLLM is not installed")
    turn = Message("assistant", tool_calls=tuple(ToolCall(name, arguments) for name, arguments in CASES[case]))
    tokenizer = tokenizer_of("tiny")
    shown = dialects.get(dialect).show(TOOLS, (Message("user", "Go on."), turn))
    written = render(tokenizer, *shown, prompt=False).rpartition(_end_of_turn("tiny"))[0].rpartition("assistant\n")[2]
    read = parsers.ToolParserManager.get_tool_parser(parser)(tokenizer).extract_tool_calls(written, None)
    assert [(call.function.name, json.loads(call.function.arguments)) for call in read.tool_calls] == CASES[case]


@pytest.mark.parametrize("dialect", ["json", "router"])
def test_a_list_of_json_objects_is_read_by_none_of_the_parsers(dialect: str) -> None:
    calls = [ToolCall(name, arguments) for name, arguments in CASES["two"]]
    written = dialects.get(dialect).write(calls)
    assert _serving.tool_call_parser(toys.preset_tokenizer("toy"), dialect) is None
    assert hermes(written) == []
    for reader in (llama3_json, pythonic):
        with pytest.raises((AssertionError, TypeError, KeyError)):
            reader(written)


def test_a_name_that_is_no_identifier_is_what_the_pythonic_parser_does_not_read() -> None:
    with pytest.raises(AssertionError):
        pythonic(dialects.get("pythonic").write([ToolCall("geo.set", {"degrees": 3})]))
    assert pythonic(dialects.get("pythonic").write([ToolCall("set", {"degrees": -3})])) == [("set", {"degrees": -3})]


def test_a_template_that_writes_calls_in_no_known_way_has_no_parser() -> None:
    assert _serving.tool_call_parser(toys.preset_tokenizer("smollm2"), "json") is None
    assert _serving.tool_call_parser(toys.preset_tokenizer("gemma3"), "native") is None


# ----- the template shows tools as the dialect does -----

CALL = ToolCall("get_weather", {"city": "Oslo", "near": ["Bergen", None], "deep": {"a": [1.5, True]}}, "c1")
TIME = ToolCall("get_time", {}, "c2")
CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "a question": (Message("user", "Hi"),),
    "a system message": (Message("system", "Be brief."), Message("user", "Hi {tools}")),
    "an answer": (Message("user", "Hi"), Message("assistant", 'Hello, "you"'), Message("user", "Bye")),
    "calls and results": (
        Message("user", "Weather and time?"),
        Message("assistant", "", (CALL, TIME)),
        Message("tool", "noon", tool_call_id="c2"),
        Message("tool", '{"value": 3}', tool_call_id="c1"),
        Message("user", "And?"),
        Message("assistant", "It is 3."),
        Message("user", "Again."),
    ),
    "results in order": (
        Message("user", "Weather and time?"),
        Message("assistant", "Let me see.", (ToolCall("get_weather", {"city": "Rome"}), ToolCall("get_time", {}))),
        Message("tool", "sun"),
        Message("tool", "noon"),
    ),
}


@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["tools", "none"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize(("family", "dialect"), [pair for pair in toys.SPOKEN if pair[1] != "native"])
def test_servers_see_what_the_dialect_shows(family: str, dialect: str, conversation: str, tools: Any) -> None:
    messages = CONVERSATIONS[conversation]
    shown = dialects.get(dialect).show(tools, messages)
    wanted = render(toys.preset_tokenizer(family), *shown, prompt=True)
    assert served(family, dialect, tools, messages, prompt=True) == wanted


@pytest.mark.parametrize("dialect", [name for name in dialects.names() if name != "native"])
def test_what_the_dialect_has_shown_already_is_left_as_it_is(dialect: str) -> None:
    tokenizer = toys.preset_tokenizer("toy")
    _, chat = dialects.get(dialect).show(TOOLS, CONVERSATIONS["calls and results"])
    template = _serving.template_with_tools(tokenizer.chat_template, dialect)
    assert tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False) == render(
        tokenizer, None, chat, prompt=False
    )


# ----- Ollama -----


def in_jinja(template: str) -> jinja2.Template:
    """A template in what `go_template` uses of Go's language, as one of Jinja's."""
    for go, ours in (
        (r"\{\{ range \.Messages \}\}", "{% for message in messages %}"),
        (r"\{\{ if eq \.Role (\"\w+\") \}\}", r"{% if message.role == \1 %}"),
        (r"\{\{ else if eq \.Role (\"\w+\") \}\}", r"{% elif message.role == \1 %}"),
        (r"\{\{ \.Content \}\}", "{{ message.content }}"),
        (r"\{\{ end \}\}\{\{ end \}\}", "{% endif %}{% endfor %}"),
    ):
        template = re.sub(go, ours, template)
    assert "{{ end" not in template
    return jinja2.Environment(keep_trailing_newline=True).from_string(template)


@pytest.mark.parametrize("family", ["toy", "smollm2", "tiny"])
def test_ollamas_template_renders_what_the_chat_template_does(family: str) -> None:
    tokenizer = tokenizer_of(family)
    template = _serving.go_template(tokenizer)
    assert template is not None
    for name, messages in CONVERSATIONS.items():
        if "result" not in name:
            chat = [message.as_chat() for message in messages]
            assert in_jinja(template).render(messages=chat) == render(tokenizer, None, chat, prompt=True)


@pytest.mark.parametrize("family", ["llama3_2", "gemma3", "tiny_aya", "qwen3"])
def test_a_template_that_does_more_is_left_out_unless_it_renders_the_same(family: str) -> None:
    tokenizer = toys.preset_tokenizer(family)
    if template := _serving.go_template(tokenizer):
        chat = [{"role": "user", "content": "one two"}]
        wanted = render(tokenizer, None, chat, prompt=True).removeprefix(tokenizer.bos_token or "")
        assert in_jinja(template).render(messages=chat) == wanted
    else:
        assert "TEMPLATE" not in _serving.modelfile(tokenizer, "json")


def test_the_modelfile_stops_at_the_end_of_a_turn() -> None:
    lines = _serving.modelfile(toys.preset_tokenizer("smollm2"), "json").splitlines()
    assert lines[:3] == ["FROM .", "PARAMETER temperature 0", 'PARAMETER stop "<|im_end|>"']
    assert lines[3].startswith('TEMPLATE """{{ range .Messages }}')
    assert "TEMPLATE" not in _serving.modelfile(toys.preset_tokenizer("qwen3"), "native")
