"""The catalogue of the built-in world keeps its promises: splits never meet, templates fill, calls fit."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest

from data.transcript import text_act
from data.world.catalogue import BY_NAME, CATALOGUE, WorldTool
from data.world.values import POOLS, Value

each_tool = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.tool.name)


def _fields(template: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]


def _required(entry: WorldTool) -> set[str]:
    return set(entry.tool.parameters["required"])


def _values(entry: WorldTool, argument: str, part: str) -> tuple[Any, ...]:
    pool = entry.slots.get(argument)
    return getattr(POOLS[pool], part) if pool else tuple(entry.tool.parameters["properties"][argument]["enum"])


def test_names_are_unique_and_snake_case_and_the_catalogue_is_large_enough() -> None:
    assert len(BY_NAME) == len(CATALOGUE) >= 64
    assert len({entry.domain for entry in CATALOGUE}) >= 12
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in BY_NAME)
    assert {"calculate", "web_search"} <= {entry.tool.name for entry in CATALOGUE if not entry.held_out}


def test_a_fifth_of_the_tools_is_held_out_in_whole_domains_and_beside_seen_siblings() -> None:
    held = [entry for entry in CATALOGUE if entry.held_out]
    assert 0.2 <= len(held) / len(CATALOGUE) <= 0.22
    seen_domains = {entry.domain for entry in CATALOGUE if not entry.held_out}
    assert {entry.domain for entry in held} - seen_domains
    assert {entry.domain for entry in held} & seen_domains


def test_no_template_occurs_twice() -> None:
    # Neither across the split nor for two tools: a request must say which tool it wants.
    counts = Counter(
        text.lower() for entry in CATALOGUE for text in (*entry.train, *entry.test, *entry.bare[0], *entry.bare[1])
    )
    assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("pool", POOLS.values(), ids=lambda pool: pool.name)
def test_values_of_training_and_test_never_meet(pool: Any) -> None:
    assert pool.train
    assert pool.test
    assert not {str(value).lower() for value in pool.train} & {str(value).lower() for value in pool.test}
    assert len(set(pool.train)) == len(pool.train)
    assert len(set(pool.test)) == len(pool.test)
    texts = [str(value) for value in pool.train + pool.test]
    assert all(text.isascii() and text == " ".join(text.split()) and not set(text) & set("'\"{}?") for text in texts)


def test_every_pool_is_used() -> None:
    used = {pool for entry in CATALOGUE for pool in entry.slots.values()}
    used |= {source for entry in CATALOGUE for source in entry.result.values() if isinstance(source, str)}
    assert used == set(POOLS)


@each_tool
def test_a_tool_has_templates_enough_and_a_short_description(entry: WorldTool) -> None:
    assert len(entry.test) == 3
    assert len(entry.train) >= 6
    assert 3 <= len(entry.tool.description.split()) <= 10
    assert entry.tool.description.endswith(".")
    texts = (*entry.train, *entry.test, *entry.bare[0], *entry.bare[1], *entry.replies[0], *entry.replies[1])
    assert all(text.isascii() and len(text.split()) <= 25 for text in texts)
    assert entry.replies[0]
    assert entry.replies[1]
    assert not set(entry.replies[0]) & set(entry.replies[1])


@each_tool
def test_every_request_template_gives_all_required_arguments_and_only_known_ones(entry: WorldTool) -> None:
    known = set(entry.tool.parameters["properties"])
    for template in (*entry.train, *entry.test):
        fields = _fields(template)
        assert len(set(fields)) == len(fields), template
        assert _required(entry) <= set(fields) <= known, template
    for part in (entry.train, entry.test):
        assert {field for template in part for field in _fields(template)} == known


@each_tool
def test_a_bare_template_lacks_exactly_one_required_argument_and_that_one_has_a_question(entry: WorldTool) -> None:
    assert set(entry.asks) == _required(entry)
    assert all(text_act(question) == "ask" for question in entry.asks.values())
    assert bool(entry.bare[0]) == bool(entry.bare[1])
    for template in (*entry.bare[0], *entry.bare[1]):
        assert set(_fields(template)) <= set(entry.tool.parameters["properties"]), template
        assert len(_required(entry) - set(_fields(template))) == 1, template


@each_tool
def test_replies_use_only_required_arguments_and_fields_of_the_result(entry: WorldTool) -> None:
    assert not set(entry.result) & set(entry.tool.parameters["properties"])
    for reply in (*entry.replies[0], *entry.replies[1]):
        assert set(_fields(reply)) <= _required(entry) | set(entry.result), reply
        assert text_act(reply) == "answer"
    for source in entry.result.values():
        assert source in POOLS if isinstance(source, str) else source


@each_tool
@pytest.mark.parametrize("part", ["train", "test"])
def test_every_rendered_call_is_valid_and_its_values_stand_in_the_request(entry: WorldTool, part: str) -> None:
    rng = random.Random(f"{entry.tool.name} {part}")
    schema = entry.tool.parameters | {"additionalProperties": False}
    for template in getattr(entry, part):
        for _ in range(5):
            call: dict[str, Value] = {field: rng.choice(_values(entry, field, part)) for field in _fields(template)}
            assert jsonschema_rs.is_valid(schema, call), call
            request = template.format(**call)
            assert all(str(value) in request for value in call.values())


def _stems(text: str) -> set[str]:
    """The first letters of each longer word, so that "cancelled" meets "cancel"."""
    words = re.findall(r"[a-z]{3,}", text.lower().replace("_", " "))
    return {word[:4].rstrip("s") for word in words} - {"the", "for", "get", "and"}


@pytest.mark.parametrize(
    # Of these the values themselves tell: a sum, two currencies, two units, a language.
    "entry",
    [e for e in CATALOGUE if e.tool.name not in {"calculate", "convert_currency", "convert_length", "translate_text"}],
    ids=lambda entry: entry.tool.name,
)
def test_every_request_shares_a_word_with_what_its_tool_says_of_itself(entry: WorldTool) -> None:
    # A model that has never seen the tool must be able to choose it by reading.
    own = _stems(f"{entry.tool.name} {entry.tool.description}")
    for template in (*entry.train, *entry.test, *entry.bare[0], *entry.bare[1]):
        words = " ".join(text for text, *_ in string.Formatter().parse(template))
        assert _stems(words) & own, template
