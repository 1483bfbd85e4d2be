"""Tools written in Python: functions with type hints and docstrings, or pydantic models; and calls back as models.

A function gives the schema that transformers' get_json_schema gives: types from its hints, descriptions from its
Google-style docstring. A model is one tool: its name, its docstring, its fields. `typed` reads a completion into an
instance of the called tool's model. Left out: *args and **kwargs, and hints of classes that JSON does not have.
"""

from __future__ import annotations

import enum
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, Union

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from data import jsontext
from data.transcript import DataError, Tool

_SECTION = re.compile(r"^[ \t]*(Args|Arguments|Returns?|Raises|Yields|Examples?|Notes?):[ \t]*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(?P<indent>[ \t]*)(?P<name>\w+)[ \t]*(?:\([^()\n]*\))?:(?P<text>.*)$")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
_PLAIN: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null",
    list: "array", tuple: "array", dict: "object",
}  # fmt: skip
_SCALARS = (str, int, float, bool, type(None))

Model = TypeVar("Model", bound=BaseModel)


def tools_of_file(path: str | Path) -> list[Tool]:
    """The tools of a Python file: its own public functions and models, or those that its __all__ names.

    The file is imported, that is, run: it is the user's own, named by them. DataError lists everything that is wrong.
    """
    return [tool for _, tool in _found(Path(path))]


def functions_of_file(path: str | Path) -> list[Callable[..., Any]]:
    """The functions of a Python file that are tools, to be called; DataError too for models, which cannot be."""
    found = _found(Path(path))
    if models := [source.__name__ for source, _ in found if isinstance(source, type)]:
        raise DataError(*(f"{path}:{name}: is a model, which cannot be called; write a function" for name in models))
    return [source for source, _ in found]


def _found(path: Path) -> list[tuple[Callable[..., Any], Tool]]:
    """The functions and models of a file, each with its tool."""
    module = _imported(path)
    listed = getattr(module, "__all__", None)
    names = [name for name in vars(module) if name[:1] != "_"] if listed is None else list(listed)
    found: list[tuple[Callable[..., Any], Tool]] = []
    mistakes: list[str] = []
    for name in names:
        value = getattr(module, name, None)
        if listed is None and getattr(value, "__module__", None) != module.__name__:
            continue  # something the file imports
        if inspect.isfunction(value) or (isinstance(value, type) and issubclass(value, BaseModel)):
            try:
                found.append((value, tool_of(value)))
            except ValueError as error:
                mistakes.append(f"{path}:{value.__name__}: {error}")
        elif listed is not None:
            mistakes.append(f"{path}: __all__ names {name}, which is neither a function nor a pydantic model")
    offered = [tool.name for _, tool in found]
    mistakes += [f"{path}: two tools are called {name}" for name in sorted(set(offered)) if offered.count(name) > 1]
    if not found and not mistakes:
        mistakes.append(f"{path}: holds no tool: write functions with type hints and docstrings, or pydantic models")
    if mistakes:
        raise DataError(*mistakes)
    return found


def tool_of(source: Callable[..., Any] | type[BaseModel]) -> Tool:
    """The tool that a function or a pydantic model describes; ValueError says what its description lacks."""
    if isinstance(source, type) and issubclass(source, BaseModel):
        return _tool_of_model(source)
    return _tool_of_function(source)


def typed(text: str, dialect: ModuleType, models: Iterable[type[Model]]) -> Model | None:
    """The instance of the called tool's model; None unless a completion makes exactly one call, and that is valid.

    Types are strict, as in JSON: "3" is no number. So what comes back can be acted on, and None be asked again.
    """
    known = {_name(model): model for model in models}
    reading = dialect.read(text, [_tool_of_model(model) for model in known.values()])
    if reading.malformed or len(reading.calls) != 1 or reading.calls[0].name not in known:
        return None
    call = reading.calls[0]
    try:
        return known[call.name].model_validate_json(jsontext.dumps(call.arguments), strict=True)
    except ValidationError:
        return None


def _imported(path: Path) -> ModuleType:
    name = f"_tools_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: must be a Python file, .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where type hints and models look up their names
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


class _Untitled(GenerateJsonSchema):
    """pydantic's schemas without the titles it makes of field names: tokens that say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _name(model: type[BaseModel]) -> str:
    return model.model_config.get("title") or model.__name__


def _tool_of_model(model: type[BaseModel]) -> Tool:
    description = inspect.cleandoc(model.__doc__ or "")
    if not description or model.__doc__ == BaseModel.__doc__:
        raise ValueError("has no docstring: say in one what the tool does")
    try:
        schema = model.model_json_schema(schema_generator=_Untitled)
    except Exception as error:  # pydantic has several, for types that JSON does not have
        raise ValueError(f"has no JSON Schema: {str(error).splitlines()[0]}") from error
    for node in (schema, *schema.get("$defs", {}).values()):
        node.pop("title", None)
    schema.pop("description", None)
    return Tool(_name(model), description, schema)


def _tool_of_function(function: Callable[..., Any]) -> Tool:
    description, told = _described(inspect.getdoc(function) or "")
    if not description:
        raise ValueError("has no docstring: say in one what the tool does, and each argument under Args:")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # a hint is any expression
        raise ValueError(f"has a type hint that cannot be read: {error}") from error
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        place = f"argument {parameter.name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{place} stands for any number of them; name each")
        if parameter.name not in hints:
            raise ValueError(f"{place} has no type hint: write {parameter.name}: str, for one")
        if parameter.name not in told:
            raise ValueError(f"{place} is not described: write it under Args: in the docstring")
        try:
            properties[parameter.name] = _schema_of(hints[parameter.name]) | _description(told[parameter.name])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    return Tool(function.__name__, description, schema)


def _described(doc: str) -> tuple[str, dict[str, str]]:
    """What a Google-style docstring says of the function, and of each argument; lines are joined."""
    parts = _SECTION.split(doc)
    told: dict[str, str] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if not title.startswith("Arg"):
            continue
        indent, last = None, ""
        for line in filter(str.strip, body.splitlines()):
            match = _ARGUMENT.match(line)
            if match and (indent is None or len(match["indent"]) <= indent):
                indent, last = len(match["indent"]), match["name"]
                told[last] = match["text"].strip()
            elif last:
                told[last] = f"{told[last]} {line.strip()}".strip()
    return parts[0].strip(), told


def _description(text: str) -> dict[str, Any]:
    """The description, and the choices that may stand at its end: (choices: ["a", "b"])."""
    match = _CHOICES.search(text)
    if not match:
        return {"description": text}
    try:
        choices = jsontext.loads(match[1])
    except jsontext.JsonError as error:
        raise ValueError(f"choices must be a JSON list; {error}") from None
    return {"enum": choices, "description": text[: match.start()].strip()}


def _schema_of(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a type hint; ValueError for a type that JSON does not have."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _one_of([member.value for member in hint], hint)
    if origin is Literal:
        return _one_of(list(inner), hint)
    if origin in (Union, types.UnionType):
        return _union(inner)
    if origin is list:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is tuple and len(inner) > 1 and ... not in inner:
        return {"type": "array", "prefixItems": [_schema_of(entry) for entry in inner]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(inner[1])}
    raise ValueError(
        f"the type {getattr(hint, '__name__', hint)} has no JSON Schema; use str, int, float, bool, list, dict,"
        " Literal, Enum or a union of these, or write the tool as a pydantic model"
    )


def _one_of(values: list[Any], hint: Any) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ValueError(f"the choices of {getattr(hint, '__name__', hint)} must be texts, numbers, booleans or None")
    kinds = list(dict.fromkeys(_PLAIN[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(members: tuple[Any, ...]) -> dict[str, Any]:
    """One type, a list of type names where that says it all, or anyOf; `nullable` where None is among them."""
    schemas = [_schema_of(member) for member in members if member is not type(None)]
    if len(schemas) == 1:
        union = schemas[0]
    elif all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        kinds = sorted({schema["type"] for schema in schemas})
        union = {"type": kinds[0] if len(kinds) == 1 else kinds}
    else:
        union = {"anyOf": schemas}
    return union | ({"nullable": True} if type(None) in members else {})
