"""Calls as Python writes them: what is read, what is refused, and that Python itself would agree."""

from __future__ import annotations

import ast
import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import _pythonic, jsontext

NAME = st.from_regex(r"[A-Za-z_][\w.]{0,20}( [\w.]{1,10})?", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["'", '"', "\\", "\\n", "\n", ")]", "a=1", "\u2028", ""]
)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[]", []),
        ("[f()]", [("f", {})]),
        (" [ f ( ) , ] ", [("f", {})]),
        ('[Get User Info(user_id="1"), other.name(a=[1, {\'b\': None}])]',
         [("Get User Info", {"user_id": "1"}), ("other.name", {"a": [1, {"b": None}]})]),
        ("[f(a=True, b=False, c=None)]", [("f", {"a": True, "b": False, "c": None})]),
        ("[f(a=-1, b=+2, c=.5, d=5., e=1e-07, g=-0.0, h=01.5)]",
         [("f", {"a": -1, "b": 2, "c": 0.5, "d": 5.0, "e": 1e-07, "g": -0.0, "h": 1.5})]),
        ("[f(a=9223372036854775807)]", [("f", {"a": 2**63 - 1})]),
        (r"""[f(a='it\'s', b="\x41\u00e9\U0001F600\101\t", c='\d')]""",
         [("f", {"a": "it's", "b": "Aé😀A\t", "c": r"\d"})]),
        ("[f(a='two\nlines', b='joined\\\nline')]", [("f", {"a": "two\nlines", "b": "joinedline"})]),
        ("[f(a=[1,], b={'x': [],},)]", [("f", {"a": [1], "b": {"x": []}})]),
        ("[f(**{'odd name': 1}, b=2)]", [("f", {"odd name": 1, "b": 2})]),
        ("[f(user-id=1, größe=2, from=3)]", [("f", {"user-id": 1, "größe": 2, "from": 3})]),
        ("[f(a=')], g(b=1)')]", [("f", {"a": ")], g(b=1)"})]),
    ],
)  # fmt: skip
def test_calls_are_read(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert jsontext.same([list(call) for call in _pythonic.parse(text)], [list(call) for call in calls])


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("weather.now(city='Oslo')", [("weather.now", {"city": "Oslo"})]),
        ("f(a=1), g()", [("f", {"a": 1}), ("g", {})]),
        ("[f(a=true, b=false, c=null)]", [("f", {"a": True, "b": False, "c": None})]),
    ],
)
def test_rows_of_data_may_leave_out_the_brackets_and_use_words_of_json(text: str, calls: list[Any]) -> None:
    assert _pythonic.parse_row(text) == calls
    with pytest.raises(ValueError, match="expected"):
        _pythonic.parse(text)


@given(VALUE)
def test_what_python_prints_is_read_back(value: Any) -> None:
    assert jsontext.same(_pythonic.value_of_row(repr(value)), value)


def test_a_value_with_something_behind_it_is_none() -> None:
    with pytest.raises(ValueError, match="expected nothing more at character 3"):
        _pythonic.value_of_row("{} x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("f(a=1)", r"expected \[ at character 1, found 'f\(a=1\)'"),
        ("[f(a=1)", "expected , at character 8"),
        ("[f(a=1)] ok", "expected nothing more at character 9"),
        ("[f(a=1) g(b=2)]", "expected , at character 8"),
        ("[f(1)]", "expected <argument>= at character 4"),
        ("[f(a==1)]", "expected <argument>="),
        ("[f(a=1 b=2)]", "expected , at character 7"),
        ("[f(a=1, a=2)]", "'a' occurs twice"),
        ("[f(a=1, **{'a': 2})]", "'a' occurs twice"),
        ("[f(a={'b': 1, 'b': 2})]", "'b' occurs twice"),
        ("[f(**[1])]", r"\*\* is not followed by a dict"),
        ("[f(a={1: 2})]", "the key 1 is no string"),
        ("[f(a=g(b=1))]", "expected a value"),
        ("[f(a=NaN)]", "expected a value"),
        ("[f(a=true)]", "expected a value"),
        ("[f(a=Trueish)]", "expected a value"),
        ("[f(a=007)]", "expected a value"),
        ("[f(a=1_000)]", "expected a value"),
        ("[f(a='x' 'y')]", "expected ,"),
        ("[f(a='never ends)]", "expected a value"),
        ("[f(a=1e999)]", "too large"),
        ("[f(a=9223372036854775808)]", "does not fit 64 bits"),
        (r"[f(a='\ud83d\ude00')]", "lone surrogate"),
        ("[f\ud800(a=1)]", "lone surrogate"),
        (r"[f(a='\x4')]", r"\\x is not followed by the digits"),
        (r"[f(a='\U99999999')]", "no character"),
        ("[f(a=" + "[" * 65 + "]" * 65 + ")]", "nested deeper than 64"),
        ("[f(a=[" + "1," * 3000 + "])]", "more than 2048 values"),
        ("[" + " " * 1_000_000, "at most 1000000 are read"),
        ("[(a=1)]", "expected a name"),
    ],
)
def test_what_is_no_list_of_calls_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _pythonic.parse(text)


@given(st.lists(st.tuples(NAME, st.dictionaries(TEXT, VALUE, max_size=3)), max_size=3))
def test_calls_that_are_written_are_read_back(calls: list[tuple[str, dict[str, Any]]]) -> None:
    found = _pythonic.parse(_pythonic.write(calls))
    assert jsontext.same([list(call) for call in found], [list(call) for call in calls])


@given(st.dictionaries(TEXT.filter(lambda name: not keyword.iskeyword(name)), VALUE, max_size=3))
def test_python_reads_the_same_arguments(arguments: dict[str, Any]) -> None:
    tree = ast.parse(_pythonic.write([("f", arguments)]), mode="eval").body
    found: dict[str, Any] = {}
    for argument in tree.elts[0].keywords:  # type: ignore[attr-defined]
        value = ast.literal_eval(argument.value)
        found |= {argument.arg: value} if argument.arg else value
    assert jsontext.same(found, arguments)


@pytest.mark.parametrize("name", ["", "f(x)", " f", "f ", "a=b", "a,b", 'a"b', "a\nb", "n" * 300])
def test_a_name_that_would_not_be_read_back_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="a call cannot be written of a tool named"):
        _pythonic.write([(name, {})])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x", (1,), 2**63])
def test_a_value_that_json_does_not_have_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match="no value of a call"):
        _pythonic.write([("f", {"a": value})])
