"""Schemas met in the wild become proper; arguments are held against them strictly."""

from __future__ import annotations

import pytest

from data import schema

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"city": "Oslo"}, True),
        ({"city": "Oslo", "days": 3}, True),
        ({}, False),
        ({"city": "Oslo", "days": 3.0}, False),
        ({"city": "Oslo", "days": True}, False),
        ({"city": "Oslo", "unit": "C"}, False),
        ({"city": None}, False),
    ],
)
def test_arguments_are_held_against_their_schema(arguments, fits):
    assert (schema.violations(arguments, CITY) == []) is fits


def test_a_schema_may_open_itself_to_unknown_keys():
    assert schema.violations({"city": "Oslo", "x": 1}, CITY | {"additionalProperties": True}) == []


def test_a_tool_without_parameters_takes_none():
    for parameters in (None, {}, {"type": "object"}, {"type": "object", "properties": {}}):
        proper = schema.normalise(parameters)
        assert schema.violations({}, proper) == []
        assert schema.violations({"x": 1}, proper) != []


def test_nested_objects_are_closed_and_their_integers_whole():
    nested = {"type": "object", "properties": {"to": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    assert schema.violations({"to": {"n": 1}}, nested) == []
    assert schema.violations({"to": {"n": 1.0}}, nested) == ['to: 1.0 is not of type "integer"']
    assert schema.violations({"to": {"n": 1, "m": 1}}, nested) != []


def test_alternatives_do_not_forbid_the_keys_beside_them():
    combined = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "anyOf": [{"properties": {"b": {"type": "string"}}, "required": ["b"]}, {"required": ["a"]}],
    }
    assert schema.violations({"a": 1, "b": "x"}, combined) == []
    assert schema.violations({"a": 1, "c": "x"}, combined) != []


@pytest.mark.parametrize(
    ("wild", "proper"),
    [
        ({"type": "dict", "properties": {"x": {"type": "float"}}}, {"x": {"type": "number"}}),
        ({"x": {"type": "int"}}, {"x": {"type": "integer"}}),
        ({"x": "str"}, {"x": {"type": "string"}}),
        ({"type": "object", "properties": {"x": {"type": "any"}}}, {"x": {}}),
        ({"type": "object", "properties": {"x": {"type": "tuple", "items": {"type": "bool"}}}},
         {"x": {"type": "array", "items": {"type": "boolean"}}}),
    ],
)  # fmt: skip
def test_type_names_of_other_worlds_become_json_schema(wild, proper):
    assert schema.normalise(wild) == {"type": "object", "properties": proper}


def test_marks_on_a_property_say_whether_it_is_required():
    wild = {"a": {"type": "str, optional", "default": "x"}, "b": {"type": "str", "required": True}}
    proper = schema.normalise({"type": "object", "properties": wild, "required": ["a"]})
    assert proper["required"] == ["b"]
    assert proper["properties"]["a"] == {"type": "string", "default": "x"}
    assert proper["properties"]["b"] == {"type": "string"}


def test_a_parameter_may_be_called_type():
    assert schema.normalise({"type": {"type": "string"}})["properties"] == {"type": {"type": "string"}}


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "string"},
        {"type": "object", "properties": {"x": {"type": "colour"}}},
        {"type": "object", "properties": {"x": {"type": 3}}},
        {"type": "object", "properties": [1]},
        {"type": "object", "properties": {"x": 3}},
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x.json"}}},
        {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}},
    ],
)
def test_a_schema_that_cannot_be_meant_is_refused_and_nothing_is_fetched(broken):
    with pytest.raises(ValueError, match=r"type|properties|schema"):
        schema.violations({"x": "y"}, schema.normalise(broken))


def test_a_schema_that_is_already_proper_stays_as_it_is():
    assert schema.normalise(CITY) == CITY


def test_a_pattern_cannot_be_made_to_run_for_long():
    slow = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}
    assert schema.violations({"x": "a" * 5000 + "b"}, slow) != []
