"""The hack suite: what is known to fool rewards, tried on every shipped table over requests of the built-in world.

Points are counted in shares (rewards.share): a policy that always does what is right has 1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from data.dialects import native
from data.transcript import Expected, Message, Request, Tool, ToolCall
from data.world import WorldConfig, generate
from rewards import OUTCOMES, RewardConfig, blind, judge, perfection, share, threshold
from rewards._policies import NEVER
from stages._negatives import RECIPES, Pool
from stages._refusals import compose, settings_of
from stages._schema import publish
from tests.test_rewards import ROOT, TABLES, earned

SIZE = WorldConfig(sft_rows=1, preference_rows=1, validation_rows=1, test_rows=300, unseen_rows=120)
WORLD = generate(SIZE, seed=0).test
CALLED = [request for request in WORLD if request.expected.act == "call"]
UNCALLED = [request for request in WORLD if request.expected.act != "call"]
BALANCED = [request for pair in zip(CALLED, UNCALLED, strict=False) for request in pair]


@pytest.fixture(params=sorted(TABLES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def table(name: str) -> RewardConfig:
    return TABLES[name]


def gold(request: Request) -> tuple[ToolCall, ...]:
    assert request.gold is not None
    return request.gold.tool_calls


def needless(request: Request) -> str:
    """The call of an offered tool that looks most right."""
    turn = RECIPES["needless_call"](request, Pool.of(WORLD), random.Random(request.id))
    assert turn is not None
    return native.write(turn.tool_calls)


def shares(request: Request, text: str, table: RewardConfig) -> float:
    found = share([earned(request, text, table)], [request], table)
    assert found is not None
    return found


def test_all_tables_are_found_and_are_what_a_run_gets():
    assert set(TABLES) >= {"default", "article", "binary", "cautious", "eager"}
    publish()
    for name, table in TABLES.items():
        settings = settings_of(*compose([f"reward={name}"]), [f"reward={name}"])
        assert settings.reward == table, name


def test_a_table_opens_with_what_it_is_for_and_the_threshold_it_implies(name, table):
    lines = (ROOT / "conf/reward" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    opening = lines[: next(place for place, line in enumerate(lines) if not line.startswith("#"))]
    assert 2 <= len(opening) <= 3
    stated = re.findall(r"p > (\d\.\d\d)", "\n".join(opening))
    assert stated == [f"{threshold(table):.2f}"]


def test_binary_knows_right_and_nothing_else():
    table = TABLES["binary"]
    right = {"exact_call", "right_answer", "asked", "refused"}
    assert {outcome: getattr(table, outcome) for outcome in OUTCOMES} == {
        each: float(each in right) for each in OUTCOMES
    }
    assert table.argument_credit == 0
    assert not any(rule.weight for rule in table.rules.values())


def test_the_dearer_error_is_the_one_that_the_name_says():
    assert TABLES["cautious"].needless_call < TABLES["cautious"].missed_call
    assert TABLES["eager"].missed_call < TABLES["eager"].needless_call
    assert threshold(TABLES["eager"]) < threshold(TABLES["default"]) < threshold(TABLES["cautious"])


def test_a_perfect_policy_has_a_share_of_one_and_sides_weigh_alike(table):
    assert share([perfection(each, table) for each in WORLD], WORLD, table) == pytest.approx(1)
    only_calls = [perfection(each, table) if each in CALLED else 0.0 for each in WORLD]
    right = table.exact_call / (table.exact_call + table.right_answer)
    assert share(only_calls, WORLD, table) == pytest.approx(right)
    assert share([0.0], CALLED[:1], RewardConfig(exact_call=0)) is None
    with pytest.raises(ValueError, match="no requests"):
        share([], [], table)


def test_policies_that_never_look_at_a_request_earn_nothing_under_the_default_and_at_most_half_elsewhere(name, table):
    found = blind(BALANCED, table)
    assert set(found) == {"never_call", "always_call"}
    for earns in found.values():
        assert earns is not None
        assert earns <= (0 if name == "default" else 0.5)


def test_no_other_constant_text_earns_more_than_half(table):
    for text in ("Which one do you mean?", "2", "", "<tool_call>{"):
        found = share([earned(each, text, table) for each in BALANCED], BALANCED, table)
        assert found is not None
        assert found <= 0.5, text


def test_what_is_said_of_blind_policies_is_what_their_completions_earn(table):
    always = [earned(each, native.write(gold(each)) if each in CALLED else needless(each), table) for each in BALANCED]
    never = [share([earned(each, text, table) for each in BALANCED], BALANCED, table) for text in NEVER]
    assert blind(BALANCED, table) == {"never_call": max(never), "always_call": share(always, BALANCED, table)}


def test_junk_beside_the_right_calls_does_not_pay(table):
    for request in CALLED[::3]:
        calls = gold(request)
        others = [tool.name for tool in request.tools if tool.name not in {call.name for call in calls}]
        junk = {
            "the same again": [calls[0]] * 20,
            "the same tool": [ToolCall(calls[0].name, {**calls[0].arguments, "n": n}) for n in range(20)],
            "other tools": [ToolCall(others[n % len(others)], {}) for n in range(20)] if others else [],
            "made up": [ToolCall(f"tool_{n}", {}) for n in range(20)],
        }
        for kind, added in junk.items():
            if added:
                assert shares(request, native.write([*calls, *added]), table) <= 0.2, (request.id, kind)


def test_one_unknown_key_costs_more_than_the_rest_of_the_call_is_worth(name, table):
    for request in CALLED:
        for place, call in enumerate(gold(request)):
            calls = [*gold(request)]
            calls[place] = ToolCall(call.name, {**call.arguments, "unknown_key": 1})
            points = shares(request, native.write(calls), table)
            assert points == 0 if name == "binary" else points < 0, request.id


def test_a_needless_call_costs_the_same_however_it_is_broken_or_wrapped(table):
    for request in UNCALLED:
        whole = needless(request)
        broken = [whole[:-2], whole[: len(whole) // 2], whole.replace("<tool_call>", ""), "<tool_call>{"]
        wrapped = [f"```json\n{whole}\n```", f"It is so. {whole}", f"```python\n{request.tools[0].name}()\n```"]
        points = {earned(request, text, table) for text in (whole, *broken, *wrapped)}
        assert points == {table.needless_call}, request.id


def test_a_call_in_a_code_block_is_broken_where_a_call_is_needed(table):
    for request in CALLED:
        assert earned(request, f"```json\n{native.write(gold(request))}\n```", table) == table.malformed_call


def test_code_is_no_call_where_the_user_asks_for_code_and_nobody_else_asks_for_any(table):
    for request in UNCALLED[::3]:
        name = request.tools[0].name
        question = Message("user", f"Write a Python function that calls {name}.")
        coding = replace(request, messages=(question,), expected=Expected("answer"), gold=None)
        for code in (f"{name}()", f"def call():\n    return {name}()"):
            assert shares(coding, f"Here it is, around `{name}()`:\n```python\n{code}\n```", table) == 1
            assert earned(coding, f"{name}()\n```python\n{code}\n```", table) == table.needless_call
        assert earned(request, f"```python\n{name}()\n```", table) == table.needless_call


def test_asking_although_everything_was_said_is_a_missed_call(table):
    for request in CALLED:
        for text in ("Which one do you mean?", "Could you tell me a little more about that?"):
            assert judge(request, native.read(text, request.tools)).outcome == "missed_call"
            assert earned(request, text, table) == table.missed_call


Calls = tuple[ToolCall, ...]


def properties(request: Request, call: ToolCall) -> dict[str, dict]:
    return next(tool for tool in request.tools if tool.name == call.name).parameters["properties"]


def changed(request: Request, fits: Callable[[dict, object], bool], new: Callable[[object], object]) -> Calls | None:
    """The right calls with the first argument that fits, by its piece of the schema and its value, replaced."""
    calls = gold(request)
    for place, call in enumerate(calls):
        for key, value in call.arguments.items():
            if fits(properties(request, call)[key], value):
                other = ToolCall(call.name, {**call.arguments, key: new(value)})
                return (*calls[:place], other, *calls[place + 1 :])
    return None


def first(request: Request, change: Callable[[ToolCall], ToolCall | None]) -> Calls | None:
    """The right calls with the first one changed."""
    calls = gold(request)
    other = change(calls[0])
    return other and (other, *calls[1:])


def sibling(request: Request) -> Calls | None:
    others: list[Tool] = [tool for tool in request.tools if tool.name not in {call.name for call in gold(request)}]
    return first(request, lambda call: ToolCall(others[0].name, call.arguments)) if others else None


def without_first(call: ToolCall) -> ToolCall | None:
    return ToolCall(call.name, dict(list(call.arguments.items())[1:])) if call.arguments else None


def is_integer(node: dict, value: object) -> bool:
    return type(value) is int


def is_free_text(node: dict, value: object) -> bool:
    return isinstance(value, str) and "enum" not in node


MUTATIONS: dict[str, Callable[[Request], Calls | str | None]] = {
    "renamed tool": lambda request: first(request, lambda call: ToolCall(f"{call.name}_v2", call.arguments)),
    "sibling tool": sibling,
    "missing argument": lambda request: first(request, without_first),
    "unknown key": lambda request: first(request, lambda call: ToolCall(call.name, {**call.arguments, "key": "x"})),
    '"5" for 5': lambda request: changed(request, is_integer, str),
    "3.0 for 3": lambda request: changed(request, is_integer, float),  # type: ignore[arg-type]
    "[text] for text": lambda request: changed(request, is_free_text, lambda value: [value]),
    "outside the enum": lambda request: changed(request, lambda node, value: "enum" in node, lambda value: f"{value}s"),
    "changed text": lambda request: changed(request, is_free_text, lambda value: f"{value} North"),
    "changed number": lambda request: changed(request, is_integer, lambda value: value + 1),  # type: ignore[operator]
    "call dropped of two": lambda request: gold(request)[1:] or None,
    "call repeated": lambda request: (*gold(request), gold(request)[-1]),
    "unclosed JSON": lambda request: native.write(gold(request)).replace("}\n</tool_call>", "\n</tool_call>"),
    "cut off": lambda request: native.write(gold(request))[: -len("}\n</tool_call>")],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_mutation_of_the_right_calls_scores_strictly_less(mutation, table):
    tried = 0
    for request in CALLED:
        mutated = MUTATIONS[mutation](request)
        if mutated is not None:
            tried += 1
            text = mutated if isinstance(mutated, str) else native.write(mutated)
            assert shares(request, text, table) < shares(request, native.write(gold(request)), table) == 1, request.id
    assert tried >= 10
