"""Strict JSON reading, and scans that stay linear."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import jsontext

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1)
VALUE = st.recursive(
    st.none() | st.booleans() | INTEGER | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUE)
def test_what_is_written_reads_back_the_same(value):
    assert jsontext.same(jsontext.loads(jsontext.dumps(value)), value)
    assert jsontext.same(jsontext.loads(jsontext.canonical(value).decode()), value)


@pytest.mark.parametrize(
    "text",
    [
        "NaN", "[Infinity]", "-Infinity", "1e999", '{"a": 1, "a": 2}', "9" * 30, str(2**63), str(-(2**63) - 1),
        '"\\ud800"', '{"\\udfff": 1}', "[" * 65 + "]" * 65, "[" * 200_000, '{"a":' * 70 + "1" + "}" * 70,
        "", "{", "{'a': 1}", '{"a": 1} x', '"a\nb"', "[1,]", "01", "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_strict_json_is_refused(text):
    with pytest.raises(jsontext.JsonError):
        jsontext.loads(text)


def test_brackets_inside_strings_are_no_nesting():
    assert jsontext.loads(json.dumps(["[" * 500])) == ["[" * 500]
    assert jsontext.loads("[" * 64 + "]" * 64) is not None


def read_in_two_steps(text, start):
    end = jsontext.object_end(text, start)
    return None if end is None else (jsontext.loads(text[start:end]), end)


def result(read, text):
    try:
        return repr(read(text, 1))
    except jsontext.JsonError as error:
        return str(error)


PIECES = [
    "{", "}", "[", "]", ":", ",", "1", "é", "NaN", '"\\ud800"', '"\\u0041"', '"a": 1, "a": 2', "9" * 30, "[" * 65,
]  # fmt: skip
LISTS = st.lists(VALUE).map(jsontext.dumps) | st.lists(st.sampled_from(PIECES)).map(lambda some: f"[{''.join(some)}")


@given(LISTS, TEXT)
def test_a_list_inside_a_text_is_read_as_on_its_own(text, behind):
    assert result(jsontext.loads_at, f"x{text}{behind}") == result(read_in_two_steps, f"x{text}{behind}")


@pytest.mark.parametrize(
    ("a", "b"),
    [(True, 1), (1, 1.0), (0, False), (None, False), ("1", 1), ([1], [True]), ({"a": 1}, {"a": 1.0}), ([], {})],
)
def test_values_of_different_types_are_not_the_same(a, b):
    assert not jsontext.same(a, b)


def test_what_is_not_equal_to_itself_is_the_same_as_nothing():
    assert not jsontext.same(math.nan, math.nan)
    assert not jsontext.same([[math.nan]], [[math.nan]])


def test_key_order_does_not_matter_and_list_order_does():
    assert jsontext.same({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1})
    assert not jsontext.same([1, 2], [2, 1])
    assert jsontext.canonical({"b": 1, "a": 2}) == jsontext.canonical({"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ('see {"a": "}"} and {"b": {"c": 1}}', ['{"a": "}"}', '{"b": {"c": 1}}']),
        ('{ open {"a": 1}', ['{"a": 1}']),
        ('he said "hi {"a": 1}', ['{"a": 1}']),
        ('[{"a": 1}, {"b": 2}]', ['{"a": 1}', '{"b": 2}']),
        ("none } here {", []),
        ('{"a": "\\"}"}', ['{"a": "\\"}"}']),
    ],
)
def test_balanced_objects_are_found_in_prose(text, objects):
    assert [found for _, _, found in jsontext.find_objects(text)] == objects


@given(st.text('{}[]"\\ a\n', max_size=200))
def test_found_objects_lie_in_the_text_in_order_and_apart(text):
    last = 0
    for start, end, found in jsontext.find_objects(text):
        assert last <= start < end
        assert found == text[start:end]
        assert found[0] == "{"
        assert found[-1] == "}"
        last = end


@pytest.mark.parametrize("piece", ["{", "}", '"', '{"', '\\"', '{"a":', "{}", "[", '"\n{'])
def test_scans_take_time_in_proportion_to_the_text(piece):
    def seconds(times: int) -> float:
        text, best = piece * times, 9.0
        for _ in range(3):
            start = time.process_time()
            jsontext.find_objects(text)
            jsontext.object_end(text, 0)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(40_000) < max(0.02, 12 * seconds(5_000))
