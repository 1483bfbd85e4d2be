"""The built-in world: its kinds, its splits, and that the same seed gives the same bytes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from data import schema
from data.formats import world as rows
from data.load import DataConfig, load
from data.transcript import Message, Request
from data.world import PREFERENCE, SFT, TEST, UNSEEN, World, WorldConfig, generate
from data.world.catalogue import BY_NAME
from data.world.kinds import KINDS, TEMPTING, evaluate
from data.world.knowledge import RELATIONS

SMALL = WorldConfig(sft_rows=600, preference_rows=400, validation_rows=50, test_rows=600, unseen_rows=240)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(SMALL, seed=0)


def said(messages: tuple[Message, ...]) -> set[str]:
    return {message.content for message in messages if message.role == "user"}


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(world: World) -> None:
    assert generate(SMALL, seed=0) == world
    assert generate(SMALL, seed=1).sft != world.sft


def test_the_size_of_one_part_leaves_the_others_alone(world: World) -> None:
    assert generate(SMALL.model_copy(update={"sft_rows": 100}), seed=0).test == world.test


def test_every_kind_occurs_where_it_should_and_the_tempting_ones_never_in_fine_tuning(world: World) -> None:
    assert {row.kind for row in world.sft} == set(SFT)
    assert {row.kind for row in world.preference} == set(PREFERENCE)
    assert {row.kind for row in world.test} == set(TEST) | set(UNSEEN) == set(KINDS)
    assert not TEMPTING & {row.kind for row in world.sft}


def test_ten_to_twenty_percent_of_fine_tuning_rows_hold_no_call(world: World) -> None:
    without = sum(not any(message.tool_calls for message in row.messages) for row in world.sft)
    assert 0.10 <= without / len(world.sft) <= 0.20


def test_at_least_forty_percent_of_test_requests_need_no_call_also_on_unseen_tools(world: World) -> None:
    for part in (world.test, [request for request in world.test if offered_held_out(request)]):
        assert sum(request.expected.act != "call" for request in part) >= 0.4 * len(part)


def offered_held_out(request: Request) -> bool:
    return bool(request.tools) and all(BY_NAME[tool.name].held_out for tool in request.tools)


def test_training_offers_no_held_out_tool_and_unseen_requests_nothing_else(world: World) -> None:
    assert not any(BY_NAME[tool.name].held_out for row in world.sft + world.preference for tool in row.tools)
    unseen = [request for request in world.test if request.id.startswith("unseen")]
    assert len(unseen) >= 200
    assert all(offered_held_out(request) for request in unseen)


def test_no_user_message_of_the_test_set_occurs_in_training(world: World) -> None:
    trained = set().union(*(said(row.messages) for row in world.sft + world.preference + world.validation))
    assert not trained & set().union(*(said(request.messages) for request in world.test))


def test_no_argument_value_of_the_test_set_occurs_in_training(world: World) -> None:
    def pooled(call_name: str, arguments: dict) -> set:
        return {(key, value) for key, value in arguments.items() if key in BY_NAME[call_name].slots}

    trained: set = set()
    for row in world.sft:
        for message in row.messages:
            for call in message.tool_calls:
                trained |= pooled(call.name, call.arguments)
    for request in world.test:
        for call in request.gold.tool_calls if request.gold else ():
            assert not pooled(call.name, call.arguments) & trained


def test_every_gold_call_satisfies_the_schema_of_a_tool_on_offer(world: World) -> None:
    for row in world.sft:
        offered = {tool.name: tool for tool in row.tools}
        for message in row.messages:
            for call in message.tool_calls:
                assert not schema.violations(call.arguments, offered[call.name].parameters)


def test_a_fine_tuning_transcript_with_a_call_has_all_five_parts(world: World) -> None:
    row = next(row for row in world.sft if row.kind == "single")
    assert row.tools
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].tool_calls
    assert row.messages[3].content


def test_a_request_that_nothing_serves_offers_no_tool_of_its_own_domain(world: World) -> None:
    for request in world.test:
        if request.kind == "no_tool":
            text = request.messages[-1].content
            domain = {
                one.domain
                for one in BY_NAME.values()
                if any(text.startswith(t.split("{")[0]) and t.split("{")[0] for t in one.test)
            }
            assert len(domain) != 1 or not any(BY_NAME[tool.name].domain in domain for tool in request.tools)


def test_the_calculator_tells_the_truth(world: World) -> None:
    assert evaluate("12 * 30") == 360
    for row in world.sft:
        if row.kind == "hard_sum":
            call = row.messages[1].tool_calls[0]
            assert str(evaluate(call.arguments["expression"])) in row.messages[2].content


def test_facts_of_the_test_set_are_not_facts_of_training() -> None:
    for relation in RELATIONS.values():
        assert relation.subjects(test=True)
        assert not set(relation.subjects(test=True)) & set(relation.subjects(test=False))
        assert not set(relation.train) & set(relation.test)


def test_every_request_says_the_wording_that_its_last_user_turn_was_drawn_from(world: World) -> None:
    for request in world.test + world.preference + world.validation:
        wording = (request.source or "").partition(": ")[2]
        pieces = [re.escape(piece) for piece in re.split(r"\{\w*\}", wording)]
        text = next(turn.content for turn in reversed(request.messages) if turn.role == "user")
        assert wording, request.id
        assert re.match(".+".join(pieces), text), (request.source, text)


def test_a_source_names_the_tool_that_the_request_is_about(world: World) -> None:
    for request in world.test:
        about = (request.source or "").partition(": ")[0]
        if request.expected.calls:
            assert about == request.expected.calls[0].name
        elif request.kind in ("missing_argument", "declined", "answered", "after_result"):
            assert about in {tool.name for tool in request.tools}
        elif request.kind == "no_tool":
            assert about in BY_NAME
            assert about not in {tool.name for tool in request.tools}
    assert len({request.source for request in world.test}) < 0.6 * len(world.test)


def test_a_request_that_lacks_an_argument_says_which_one(world: World) -> None:
    for request in world.test + world.preference:
        assert bool(request.expected.lacking) == (request.kind == "missing_argument")
        if request.kind == "missing_argument":
            tool = BY_NAME[(request.source or "").partition(": ")[0]]
            (name,) = request.expected.lacking
            assert name in tool.tool.parameters["required"]
            assert request.gold == Message("assistant", tool.asks[name])


def test_the_digest_of_data_is_of_what_it_says_and_not_of_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(world=SMALL)
    whole = load(config)

    def bare(row: Any) -> Any:
        if isinstance(row, Request):
            return replace(row, source=None, expected=replace(row.expected, lacking=()))
        return replace(row, source=None)

    def nameless(config: WorldConfig, seed: int) -> World:
        made = generate(config, seed)
        parts = (made.sft, made.preference, made.validation, made.test)
        return World(*([bare(row) for row in part] for part in parts))

    monkeypatch.setattr("data.world.generate", nameless)
    assert whole.test[0].source
    assert load(config).test[0].source is None
    assert load(config).digest == whole.digest


def test_a_transcript_survives_being_written_and_read(world: World) -> None:
    for row in world.sft[:50]:
        assert rows.read(rows.write(row), "here") == row
