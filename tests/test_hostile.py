"""Strings made to break readers: no dialect raises, none takes 5 ms of CPU time, whatever the string and its length.

On a machine that is slower than the one that the bound is for, as many times 5 ms.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import dialects
from data.transcript import Reading, Tool

TOOLS = tuple(
    Tool(name, "", {"type": "object", "properties": {}}) for name in ("get_weather", "calculator", "a.b", "f(x)")
)
BOUND = 5e-3  # seconds of CPU time, the best of ten, where the standard library reads YARD in YARD_SECONDS
YARD, YARD_SECONDS = "[" + "{}," * 5_000 + "1]", 0.15e-3

# What calls are made of, what they break at, and what is forged into them.
PIECES = (
    *("<tool_call>", "</tool_call>", "<tool_call>\n{", "</tool_call", "<tool_response>", "<think>", "</think>"),
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|python_tag|>", "<start_of_turn>", "[TOOL_CALLS]", "<function=f>"),
    *("{", "}", "[", "]", "(", ")", "{}", "[]", "{},", "[],", ",", ":", "=", "**{", '"', "'", "\\", '\\"', "\\'"),
    *("\\u", "\\ud800", "\ud800", "\udfff", "\x00", "\ufdd0", "\u2028", "\n", "\t", " ", "\r\n", "é", "```", "```a\n"),
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 30, "-", "0.", "1,", "true", "True,", "None", "null,"),
    *('"name": ', '"name": "get_weather"', '"arguments": ', '"arguments": {}', '"tool": "no_tool"', '"reason": "'),
    *('{"name": "get_weather", "arguments": {', '{"tool": "calculator", "arguments": ', '{"a": 1, "a": 2}', '{"a":'),
    *("get_weather(", 'get_weather(city="', "[get_weather(a=", "[f(a=[", "a=1, a=2", "a.b(", "calculator(1)\n"),
)  # fmt: skip
FRAMES = (
    ("", ""),
    ('<tool_call>\n{"name": "f", "arguments": {"a": [', "1]}}\n</tool_call>"),
    ('{"name": "f", "arguments": {"a": [', "1]}}"),
    ('[{"tool": "f", "arguments": {"a": [', "1]}}]"),
    ('{"tool": "no_tool", "reason": "', '"}'),
    ("[f(a=[", "1])]"),
    ("[f(a='", "')]"),
    ("{", "}"),
    ("[", "]"),
    ("```python\n", "\n```"),
)
DEEP = [
    *(opening * 100_000 for opening in ("[", "{", "(", '{"a":', "[f(a=", "<tool_call>{", "{[")),
    *("[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[f(a=" + "[" * 50_000 + "]" * 50_000 + ")]"),
]


def hostile(count: int, seed: int) -> Iterator[str]:
    """Strings of the grammar: pieces at random, one piece very often, and either in a frame that makes it a call."""
    dice = random.Random(seed)
    for _ in range(count):
        start, end = dice.choice(FRAMES)
        if dice.random() < 0.05:
            piece = "".join(dice.choices(PIECES, k=dice.randint(1, 3)))
            yield start + piece * (dice.choice((3_000, 16_000, 100_000)) // len(piece)) + end
        else:
            yield start + "".join(dice.choices(PIECES, k=dice.randint(1, 60))) + end


def seconds(read: Callable[[str], object], text: str) -> float:
    """CPU time of one reading."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


def check(dialect: ModuleType, text: str) -> float:
    """Read a text; the CPU time it took, at best of ten.

    One that takes longer than BOUND is read again beside the yardstick, in turns: a machine that is slow or shared at
    that moment is slow for both.
    """
    best = 9.0
    for _ in range(10):
        start = time.process_time()
        reading = dialect.read(text, TOOLS)
        best = min(best, time.process_time() - start)
        if best < BOUND / 2:
            break
    assert isinstance(reading, Reading)
    assert bool(reading.calls or reading.malformed) if reading.attempt else not reading.calls
    if best >= BOUND:
        turns = [(seconds(lambda text: dialect.read(text, TOOLS), text), seconds(json.loads, YARD)) for _ in range(40)]
        best, yard = (min(column) for column in zip(*turns, strict=True))
        bound = BOUND * max(1.0, yard / YARD_SECONDS)
        assert best < bound, f"{best * 1e3:.1f} of {bound * 1e3:.1f} ms for {text[:60]!r}, {len(text)} characters"
    return best


@pytest.fixture(params=dialects.names())
def dialect(request: pytest.FixtureRequest) -> ModuleType:
    return dialects.get(request.param)


@pytest.mark.parametrize("text", DEEP, ids=lambda text: f"{text[:6]}…{text[-6:]}")
def test_nothing_is_too_deep_to_be_read(dialect: ModuleType, text: str) -> None:
    check(dialect, text)
    assert not dialect.read(text, TOOLS).calls


@pytest.mark.parametrize(("start", "end"), FRAMES, ids=lambda side: side[:12])
def test_no_piece_repeated_for_ever_takes_long(dialect: ModuleType, start: str, end: str) -> None:
    for piece in PIECES:
        for length in (16_384, 100_000):
            check(dialect, start + piece * ((length - len(start + end)) // len(piece)) + end)


def test_strings_of_the_grammar_are_read_without_an_exception_and_in_time(dialect: ModuleType) -> None:
    for text in hostile(1_000, seed=0):
        check(dialect, text)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=40).map("".join))
def test_strings_that_hypothesis_makes_are_too(dialect: ModuleType, text: str) -> None:
    check(dialect, text)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_strings_break_no_reader(dialect: ModuleType) -> None:
    slowest, began = 0.0, time.process_time()
    for text in hostile(100_000, seed=1):
        slowest = max(slowest, check(dialect, text))
    seconds = time.process_time() - began
    print(f"\n{dialect.__name__}: 100,000 strings in {seconds:.0f} s, the slowest reading {slowest * 1e3:.2f} ms")
