"""What a completion did: one case a line, each with the outcome it must get."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dialects import native
from data.transcript import AcceptedCall, Expected, Message, Reading, Request, Tool, ToolCall, text_act
from rewards import OUTCOMES, judge
from rewards._match import argument_f1, match
from rewards._words import answers, asks_for, repeats, ungrounded, words

WEATHER = Tool(
    "get_weather",
    "Weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1},
            "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["city"],
    },
)
MAIL = Tool(
    "send_mail", "Sends a mail.", {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
)
TOOLS = (WEATHER, MAIL)


def asking(text: str, expected: Expected, gold: str | None = None) -> Request:
    messages = (Message("user", text),)
    return Request("r", "kind", TOOLS, messages, expected, Message("assistant", gold) if gold else None)


def call(name: str, **arguments) -> str:
    return native.write([ToolCall(name, arguments)])


def outcome(request: Request, text: str, truncated: bool = False) -> str:
    return judge(request, native.read(text, request.tools), truncated).outcome


OSLO = asking(
    "Weather in Oslo for 3 days?",
    Expected("call", (AcceptedCall("get_weather", {"city": ["Oslo", "oslo"], "days": [3], "unit": ["C"]}, ("unit",)),)),
)
BOTH = asking(
    "Weather in Oslo and in Rome?",
    Expected(
        "call", (AcceptedCall("get_weather", {"city": ["Oslo"]}), AcceptedCall("get_weather", {"city": ["Rome"]}))
    ),
)
SUM = asking("What is 1+1?", Expected("answer", text="2"))
CAPITAL = asking("Capital of France?", Expected("answer", text="Paris"))
HELLO = asking("Hello!", Expected("answer"))
ASK = asking("What will the weather be?", Expected("ask"))
REFUSE = asking("Order me a pizza.", Expected("refuse"))
CODE = asking("Write a Python function get_weather(city).", Expected("answer"))
EXPLAIN = asking("How do I call it?", Expected("answer", text="Use get_weather(city)."), gold="Use get_weather(city).")


@pytest.mark.parametrize(
    ("request_", "text", "wanted"),
    [
        (OSLO, call("get_weather", city="Oslo", days=3), "exact_call"),
        (OSLO, call("get_weather", city="oslo", days=3, unit="C"), "exact_call"),
        (OSLO, "I will look.\n" + call("get_weather", city="Oslo", days=3), "exact_call"),
        (OSLO, call("get_weather", city="Oslo"), "right_tool_wrong_arguments"),
        (OSLO, call("get_weather", city="Bergen", days=3), "right_tool_wrong_arguments"),
        (OSLO, call("get_weather", city="Oslo", days=3, unit="F"), "right_tool_wrong_arguments"),
        (OSLO, call("get_weather", city=" Oslo", days=3), "right_tool_wrong_arguments"),  # strings compare exactly
        (OSLO, call("get_weather", city="Oslo", days=3.0), "invalid_arguments"),
        (OSLO, call("get_weather", city="Oslo", days=True), "invalid_arguments"),
        (OSLO, call("get_weather", city="Oslo", days=3, place="x"), "invalid_arguments"),
        (OSLO, call("get_weather", days=3), "invalid_arguments"),
        (OSLO, call("get_weather", city="Oslo", days=3, unit="K"), "invalid_arguments"),
        (OSLO, call("send_mail", to="Oslo"), "wrong_tool"),
        (OSLO, call("send_mail", subject="Oslo"), "invalid_arguments"),
        (OSLO, call("teleport", to="Oslo"), "unknown_tool"),
        (OSLO, call("get_weather", city="Oslo", days=3) + call("teleport"), "unknown_tool"),  # the worst one counts
        (OSLO, call("get_weather", city="Oslo", days=3) * 2, "right_tool_wrong_arguments"),  # a surplus call
        (OSLO, call("get_weather", city="Oslo", days=3) + call("send_mail", to="me"), "wrong_tool"),
        (OSLO, "<tool_call>{", "malformed_call"),
        (OSLO, call("get_weather", city="Oslo", days=3) + "<tool_call>", "malformed_call"),
        (OSLO, "get_weather(city='Oslo')", "malformed_call"),
        (OSLO, "It will rain.", "missed_call"),
        (OSLO, "For which city?", "missed_call"),  # asking with all slots given is a miss
        (OSLO, "", "missed_call"),
        (BOTH, call("get_weather", city="Rome") + call("get_weather", city="Oslo"), "exact_call"),  # in any order
        (BOTH, call("get_weather", city="Rome"), "right_tool_wrong_arguments"),
        (BOTH, call("get_weather", city="Rome") * 2, "right_tool_wrong_arguments"),
        (SUM, "2", "right_answer"),
        (SUM, "1 + 1 = 2.", "right_answer"),
        (SUM, "It is 2. Anything else?", "right_answer"),
        (SUM, "3", "wrong_answer"),
        (SUM, "It is 2 or 3.", "wrong_answer"),
        (SUM, "It is 12.", "wrong_answer"),
        (SUM, "What do you mean?", "wrong_act"),
        (SUM, "I cannot compute.", "wrong_act"),
        (SUM, "", "empty"),
        (SUM, "\n ", "empty"),
        (SUM, "2 2 2 2 2 2 2 2", "empty"),
        (SUM, call("get_weather", city="Oslo"), "needless_call"),
        (SUM, "<tool_call>{", "needless_call"),  # a broken call on a no-call request counts as needless
        (SUM, "2 get_weather(", "needless_call"),
        (CAPITAL, "It is PARIS, of course.", "right_answer"),
        (CAPITAL, "Parisian", "wrong_answer"),
        (HELLO, "Hi there!", "right_answer"),
        (HELLO, "Which city?", "wrong_act"),
        (ASK, "Which city?", "asked"),
        (ASK, "It is sunny.", "wrong_act"),
        (ASK, "I am unable to do that.", "wrong_act"),
        (REFUSE, "I cannot order food.", "refused"),
        (REFUSE, "Done, it is on its way.", "wrong_act"),
        (CODE, "```python\ndef get_weather(city):\n    return lookup(city)\n```", "right_answer"),
        (CODE, '```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```', "needless_call"),
        (EXPLAIN, "Use get_weather(city).", "right_answer"),  # the data's own turn is right
        (EXPLAIN, "Try get_weather(city).", "needless_call"),
    ],
)
def test_a_completion_gets_its_outcome(request_, text, wanted):
    assert outcome(request_, text) == wanted


FUNCTION = asking("Write a Python function that calls get_weather.", Expected("answer"))
BODY = asking("Show me the JSON body of a call of get_weather.", Expected("answer"))
LINE = '```python\nget_weather(city="Oslo")\n```'
OBJECT = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'


@pytest.mark.parametrize(
    ("request_", "text", "wanted"),
    [
        (FUNCTION, LINE, "right_answer"),
        (FUNCTION, f"`get_weather(city)` is called like this:\n{LINE}", "right_answer"),
        (FUNCTION, f"```python\ndef oslo():\n    return send({OBJECT})\n```", "right_answer"),
        (FUNCTION, f"```json\n{OBJECT}\n```", "needless_call"),  # a call in a block, and no function
        (FUNCTION, f"```json {OBJECT}```", "needless_call"),
        (FUNCTION, f"```\n<tool_call>\n{OBJECT}\n</tool_call>\n```", "needless_call"),
        (FUNCTION, '```tool_code\nget_weather(city="Oslo")\n```', "needless_call"),
        (FUNCTION, f"{LINE}\n{OBJECT}", "needless_call"),  # and outside of a block it always is one
        (FUNCTION, f"`{OBJECT}`\n{LINE}", "needless_call"),
        (FUNCTION, f"{LINE}\n<tool_call>", "needless_call"),
        (FUNCTION, f'get_weather(city="Oslo")\n{LINE}', "needless_call"),
        (FUNCTION, '`get_weather(city="Oslo")`', "needless_call"),
        (FUNCTION, call("get_weather", city="Oslo") + LINE, "needless_call"),
        (BODY, f"```json\n{OBJECT}\n```", "right_answer"),
        (BODY, f"```\n{OBJECT[0]}\n{OBJECT[1:]}\n```", "right_answer"),
        (BODY, LINE, "needless_call"),
        (BODY, f"```json\n{OBJECT}\n```\n{LINE}", "needless_call"),
        (BODY, OBJECT, "needless_call"),
        (HELLO, LINE, "needless_call"),
        (asking("What is the airport code of Oslo in Java?", Expected("refuse")), LINE, "needless_call"),
        (asking("Run a script that writes the code.", OSLO.expected), LINE, "malformed_call"),
        (asking("Write a function that calls get_weather.", OSLO.expected), LINE, "malformed_call"),
    ],
)
def test_code_that_was_asked_for_is_no_attempt_and_any_other_call_in_a_code_block_is(request_, text, wanted):
    assert outcome(request_, text) == wanted


def test_an_answer_in_code_counts_as_text_wherever_attempts_are_counted():
    components = judge(FUNCTION, native.read(LINE, TOOLS)).components
    assert components["act"] == "answer"
    assert judge(HELLO, native.read(LINE, TOOLS)).components["act"] == "call"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Write me a small script to rename files.", "code"),
        ("Can you refactor this class?", "code"),
        ("I need a JavaScript example.", "code"),
        ("A function in C++, please.", "code"),
        ("How is it called in Python?", "code"),
        ("Give me the request as JSON.", "json"),
        ("What is the weather in Java?", ""),
        ("Which programs run tonight?", ""),
        ("What is the promo code?", ""),
        ("Write to Anna. Which class is she in?", ""),
        ("The weather as JSON.", ""),
    ],
)
def test_a_request_for_code_is_told_from_words_that_only_look_like_one(text, what):
    assert [kind for kind in ("code", "json") if asks_for(asking(text, Expected("answer")), kind)] == [what][
        : bool(what)
    ]


def test_a_text_cut_off_by_the_token_limit_is_empty_and_a_call_is_not():
    assert outcome(SUM, "The sum is 2", truncated=True) == "empty"
    assert outcome(OSLO, call("get_weather", city="Oslo", days=3), truncated=True) == "exact_call"
    assert outcome(OSLO, "The weather", truncated=True) == "missed_call"


def test_an_accepted_value_is_right_whatever_the_schema_says():
    odd = asking("Oslo?", Expected("call", (AcceptedCall("get_weather", {"city": [7], "days": ["x"]}),)))
    assert outcome(odd, call("get_weather", city=7, days="x")) == "exact_call"
    assert outcome(odd, call("get_weather", city=7, days=2)) == "right_tool_wrong_arguments"
    assert outcome(odd, call("get_weather", city=8, days="x")) == "invalid_arguments"
    without = asking(
        "Go.", Expected("call", (AcceptedCall("get_weather", {"days": [3]}),))
    )  # gold lacks a required key
    assert outcome(without, call("get_weather", days=3)) == "exact_call"
    assert outcome(without, call("get_weather", days=4)) == "right_tool_wrong_arguments"
    absent = asking("Go.", Expected("call", (AcceptedCall("teleport", {"to": ["Oslo"]}),)))  # not even on offer
    assert outcome(absent, call("teleport", to="Oslo")) == "exact_call"
    assert outcome(absent, call("teleport", to="Rome")) == "right_tool_wrong_arguments"


def test_components_tell_what_an_attempt_was_made_of():
    text = call("get_weather", city="Bergen", days=3, unit="C") + call("get_weather", city="Oslo", days=3)
    components = judge(OSLO, native.read(text, TOOLS)).components
    assert components["argument_f1"] == pytest.approx(2 / 3)
    assert (components["surplus"], components["lacking"], components["ungrounded"]) == (1, 0, 1)
    assert components["schema_valid"]
    assert not components["names_right"]
    needless = judge(SUM, native.read(call("get_weather", town="Bergen"), TOOLS)).components
    assert not needless["schema_valid"]
    assert needless["known_tools"]


def test_argument_f1_is_one_for_right_calls_only():
    accepted = AcceptedCall("f", {"a": [1], "b": [2, 3], "c": [4]}, optional=("c",))
    assert argument_f1(ToolCall("f", {"a": 1, "b": 3}), accepted) == 1.0
    assert argument_f1(ToolCall("f", {"a": 1, "b": 3, "c": 4}), accepted) == 1.0
    assert argument_f1(ToolCall("f", {"a": 1, "b": 3, "d": 4}), accepted) == pytest.approx(4 / 5)
    assert argument_f1(ToolCall("f", {"a": 1}), accepted) == pytest.approx(2 / 3)
    assert argument_f1(ToolCall("f", {}), accepted) == 0.0
    assert argument_f1(ToolCall("f", {}), AcceptedCall("f", {})) == 1.0
    assert argument_f1(ToolCall("f", {"a": True, "b": 2}), accepted) == pytest.approx(1 / 2)


def test_the_best_assignment_is_found_where_taking_the_best_pair_first_would_not():
    def accepted(**arguments):
        return AcceptedCall("f", {key: [value] for key, value in arguments.items()})

    calls = [ToolCall("f", {"a": 1, "b": 1}), ToolCall("f", {"a": 1, "c": 2})]
    wanted = [accepted(a=1, c=3), accepted(a=1, b=1)]
    assert [pair[:2] for pair in match(calls, wanted).pairs] == [(0, 1), (1, 0)]


@given(st.permutations(range(9)), st.permutations(range(9)))
def test_many_right_calls_are_right_in_any_order(made, wanted):
    calls = [ToolCall("f", {"a": n}) for n in made]
    accepted = [AcceptedCall("f", {"a": [*range(n + 1)]}) for n in wanted]  # one way only to please all of them
    assert match(calls, accepted).f1 == 1.0


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_matching_uses_each_call_once_and_its_score_lies_between_0_and_1(made, wanted):
    result = match([ToolCall("f", {"a": n}) for n in made], [AcceptedCall("f", {"a": [n]}) for n in wanted])
    assert len(result.pairs) == min(len(made), len(wanted))
    assert len({i for i, _, _ in result.pairs}) == len({j for _, j, _ in result.pairs}) == len(result.pairs)
    common = sum(min(made.count(n), wanted.count(n)) for n in range(4))
    total = len(made) + len(wanted)
    assert result.f1 == pytest.approx(2 * common / total if total else 1.0)
    assert len(result.surplus) == max(0, len(made) - len(wanted))


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("2", "2", True), ("2.0", "2", True), ("It is 1,000 km.", "1000", True), ("twelve", "12", False),
        ("-4", "4", False), ("7-3 is 4", "4", True), ("about 3.5", "3.5", True),
        ("It is 3.5 km.", "It is 3", False), ("It is 3. Yes.", "It is 3", True), ("It is -3.", "is 3", False),
        ("New  York!", "new york", True), ("York New", "new york", False),
        ("São Paulo", "são paulo", True), ("", "Paris", False), ("!?", "!?", True),
        ("Sunny with 21 degrees in Oslo.", "It is sunny in Oslo today, with 21 degrees.", True),
        ("Sunny with 22 degrees in Oslo.", "It is sunny in Oslo today, with 21 degrees.", False),
        ("Tea is ready.", "It is sunny in Oslo today, with 21 degrees.", False),
    ],
)  # fmt: skip
def test_answers_are_compared_by_words_and_numbers(text, reference, right):
    assert answers(text, reference, asking("7 and 3?", Expected("answer"))) is right


PIECES = (
    *("Oslo", "oslo", "Os", "osl", "Reports", "report", "repo", "three", "May", "é", "e\u0301", "\u0301", "ﬁ", "²"),
    *("3", "03", "-3", "3.0", "12", "1,200", "1200", "1.2.3", "5", "-5", "５", "\u2212", ".25", ",7"),
    *("_", "-", ".", ",", ")", "(", "'", "\n"),
)  # fmt: skip
PHRASES = st.lists(st.sampled_from(PIECES) | st.just(" "), max_size=12).map("".join)
# A value, and a text that most often holds it whole, with something before and behind it that may cut its words.
SAID = st.tuples(PHRASES, st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join), PHRASES).flatmap(
    lambda parts: st.tuples(st.sampled_from(["".join(parts), parts[0], parts[2]]), st.just(parts[1]))
)


@settings(max_examples=500)
@given(SAID)
def test_a_value_is_from_nowhere_where_its_words_are_whatever_is_seen_without_them(both):
    text, value = both
    said = set(words(text))
    said |= {number for word, number in {"three": "3", "may": "5"}.items() if word in said}

    def is_said(word):
        if word in said or word[-1].isdigit():
            return word in said or (word[0] == "-" and word[1:] in said)
        return len(word) > 2 and any(a.startswith(word) or (len(a) > 3 and word.startswith(a)) for a in said)

    found = ungrounded([ToolCall("f", {"x": value})], asking(text, Expected("answer")))
    assert found == (not all(is_said(word) for word in words(value)))


@settings(max_examples=500)
@given(SAID, PHRASES)
def test_an_answer_is_right_where_its_words_say_so_whatever_is_seen_without_them(both, asked):
    text, reference = both
    given_, wanted = words(text), words(reference)
    numbers = {word for word in wanted if word[-1].isdigit()}
    if not wanted:
        right = text.strip() == reference.strip()
    elif len(wanted) == 1 and numbers:
        others = {word for word in given_ if word[-1].isdigit()} - numbers
        right = wanted[0] in given_ and (others <= set(words(asked)))
    else:
        right = any(given_[start : start + len(wanted)] == wanted for start in range(len(given_)))
        if len(wanted) > 6 and numbers <= set(given_):
            right |= 2 * len(set(wanted) & set(given_)) >= len(set(wanted))
    assert answers(text, reference, asking(asked, Expected("answer"))) is right


@given(st.text("aZ09.,-_)( é²", max_size=30))
def test_plain_and_other_texts_are_parted_into_words_alike(text):
    assert words(f"{text} é") == [*words(text), "é"]


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("I’m here. I cannot.", "refuse"), ("NO TOOL fits.", "refuse"), ("i lac\u212a it", "refuse"),
        ("I can.", "answer"), ("Is it? How can I help?", "answer"), ("How are you? Which help?", "ask"),
        ("How. Do you need help?", "ask"),
        ("What can I do for you? \n", "answer"), ("?", "ask"), ("What help", "answer"),
    ],
)  # fmt: skip
def test_refusals_and_questions_are_told_from_answers(text, act):
    assert text_act(text) == act


@pytest.mark.parametrize("text", ["no " * 9, "I see. " * 3 + "I see.", "ab" * 40, "1 2 3 1 2 3 1 2 3", "." * 60])
def test_loops_are_seen(text):
    assert repeats(text)


@pytest.mark.parametrize("text", ["no no no", "It is what it is.", "1 2 1 2", "Yes, yes! It is 1000000.", "Paris", ""])
def test_ordinary_texts_are_no_loops(text):
    assert not repeats(text)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"city": "Oslo"}, 0),
        ({"city": "oslo"}, 0),
        ({"city": "Bergen"}, 1),
        ({"city": "Oslo, Norway"}, 1),
        ({"city": "OSL"}, 0),
        ({"days": 3}, 0),
        ({"days": 5}, 0),  # spelled out
        ({"days": -5}, 0),
        ({"days": 1}, 0),  # the schema's default
        ({"days": 9}, 1),
        ({"unit": "F"}, 0),  # in the enum
        ({"unit": "K"}, 1),
        ({"flag": True, "nothing": None}, 0),
        ({"list": ["Oslo", {"x": "Rome"}]}, 1),
        ({"date": "2025-05-03"}, 1),  # May is said, 2025 is not
    ],
)
def test_values_from_nowhere_are_counted(arguments, count):
    request = asking("Weather in Oslo for 3 days, or five from 3 May?", Expected("answer"))
    calls = [ToolCall("get_weather", {key: value}) for key, value in arguments.items()]
    assert ungrounded(calls, request) == count


@given(st.text(max_size=60), st.booleans())
def test_every_reading_has_an_outcome_of_the_list(text, truncated):
    for request in (OSLO, SUM, HELLO, ASK, REFUSE):
        assert outcome(request, text, truncated) in OUTCOMES
        assert judge(request, Reading(True, (ToolCall(text, {text: text}),))).outcome in OUTCOMES
