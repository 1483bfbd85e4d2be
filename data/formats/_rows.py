"""What readers of rows share: values of the right type or a RowError that says where; tools, calls, conversations."""

from __future__ import annotations

import marshal
import os.path
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from data import _pythonic, schema
from data.jsontext import JsonError, loads
from data.transcript import Message, Role, RowError, Tool, ToolCall, Transcript

T = TypeVar("T")
SPEAKERS: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}
_KNOWN_TOOLS = 8192  # distinct tools kept: rows of one data set offer the same ones again and again
_tools: dict[bytes, Tool] = {}
_WORDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


def typed(value: Any, kind: type[T], place: str, field: str) -> T:
    """The value, if it is of this type."""
    if isinstance(value, kind):
        return value
    shown = "missing" if value is None else f"{str(value)[:60]!r}"
    raise RowError(place, field, f"must be {_WORDS.get(kind, kind.__name__)}, is {shown}")


def decoded(value: Any, kind: type[T], place: str, field: str) -> T:
    """The value, read from JSON where it is a string of it."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except JsonError as error:
            raise RowError(place, field, f"must be {_WORDS.get(kind, kind.__name__)} or its JSON; {error}") from None
    return typed(value, kind, place, field)


def words(value: Any, place: str, field: str) -> str:
    """A text that says something."""
    if not typed(value, str, place, field).strip():
        raise RowError(place, field, "must not be empty")
    return str(value)


def tool(name: Any, description: Any, parameters: Any, place: str, field: str) -> Tool:
    """A tool with its schema made proper; RowError where no schema can be made of it. Equal ones are one object."""
    key = _key((name, description, parameters))
    known = _tools.get(key)
    if known is not None:
        return known
    name = words(name, place, f"{field}.name")
    description = typed("" if description is None else description, str, place, f"{field}.description")
    changes: list[str] = []
    try:
        proper = schema.normalise(parameters, changes)
        schema.validator(proper)
    except ValueError as error:
        raise RowError(place, f"{field}.parameters", str(error), "schema") from None
    if len(_tools) >= _KNOWN_TOOLS:
        _tools.clear()
    _tools[key] = made = Tool(name, description, proper, tuple(changes))
    return made


def tools(listed: Any, place: str, field: str = "tools") -> tuple[Tool, ...]:
    """The tools of a list, or of its JSON: {"type": "function", "function": {…}} or flat, each an object or its JSON.

    RowError where two bear one name.
    """
    entries = decoded(listed, list, place, field) if listed else []
    found = tuple(_tool(entry, place, f"{field}[{number}]") for number, entry in enumerate(entries))
    names = [tool.name for tool in found]
    if len(set(names)) < len(names):
        number = next(number for number, name in enumerate(names) if name in names[:number])
        raise RowError(place, f"{field}[{number}].name", f"{names[number]!r} is there twice")
    return found


def _key(value: Any) -> bytes:
    """Bytes that tell values apart, 1, 1.0 and true too, made in a quarter of the time that JSON takes."""
    try:
        return marshal.dumps(value, 2)
    except ValueError:  # Parquet holds what neither can write
        return repr(value).encode("utf-8", "surrogatepass")


def _tool(entry: Any, place: str, field: str) -> Tool:
    entry = decoded(entry, dict, place, field)
    if "function" in entry:
        field = f"{field}.function"
        entry = typed(entry["function"], dict, place, field)
    parameters = entry.get("parameters")
    if isinstance(parameters, str):
        parameters = decoded(parameters, dict, place, f"{field}.parameters")
    return tool(entry.get("name"), entry.get("description"), parameters, place, field)


def call(entry: Any, place: str, field: str) -> ToolCall:
    """The call of an object {name, arguments}, flat or under `function`; arguments may be their JSON, or lacking."""
    entry = typed(entry, dict, place, field)
    call_id = entry.get("id")
    if call_id is not None:
        typed(call_id, str, place, f"{field}.id")
    if "function" in entry:
        field = f"{field}.function"
        entry = typed(entry["function"], dict, place, field)
    name = words(entry.get("name"), place, f"{field}.name")
    arguments = entry.get("arguments")
    if arguments is None or arguments == "":  # a call of a tool without parameters
        arguments = {}
    return ToolCall(name, decoded(arguments, dict, place, f"{field}.arguments"), call_id or None)


def calls(text: str, place: str, field: str) -> tuple[ToolCall, ...]:
    """The calls of a text that is the object of one, or a list of them: in JSON, or as Python prints it."""
    try:
        value = loads(text)
    except JsonError as error:
        try:
            value = _pythonic.value_of_row(text)
        except ValueError:
            raise RowError(place, field, f"must be a call {{name, arguments}} or a list of them; {error}") from None
    entries = value if isinstance(value, list) else [value]
    return tuple(call(entry, place, f"{field}[{number}]") for number, entry in enumerate(entries))


def turns(row: dict[str, Any], place: str) -> list[tuple[str, str, str]]:
    """The turns of `conversations`, {from, value} or {role, content}: who speaks, a key of SPEAKERS; text; field."""
    found = []
    for number, entry in enumerate(decoded(row.get("conversations"), list, place, "conversations")):
        field = f"conversations[{number}]"
        entry = typed(entry, dict, place, field)
        key, text = ("from", "value") if "from" in entry else ("role", "content")
        speaker = typed(entry.get(key), str, place, f"{field}.{key}")
        if speaker not in SPEAKERS:
            raise RowError(place, f"{field}.{key}", f"must be one of {', '.join(SPEAKERS)}, is {speaker!r}")
        found.append((speaker, typed(entry.get(text), str, place, f"{field}.{text}"), f"{field}.{text}"))
    return found


def transcript(
    row: dict[str, Any], place: str, tools: Sequence[Tool], messages: Iterable[Message], kind: str = ""
) -> Transcript:
    """The transcript of these messages, which hold an assistant turn that answers something; none may be empty."""
    chat = tuple(messages)
    for number, turn in enumerate(chat):
        if turn.role == "assistant" and not turn.tool_calls and not turn.content.strip():
            message = "must have content or calls: an empty turn teaches nothing"
            raise RowError(place, f"messages[{number}]", message, "empty")
    if not any(turn.role == "assistant" for turn in chat):
        raise RowError(place, "messages", "must hold an assistant turn, since that is what is learned")
    if chat[0].role == "assistant":
        raise RowError(place, "messages[0].role", "must not be assistant: there is nothing to answer yet")
    return Transcript(row_id(row, place), tuple(tools), chat, kind, language=language(row))


def language(row: dict[str, Any]) -> str | None:
    """What the row names as its language, by which what a model could do besides is told apart."""
    named = row.get("language")
    return named if isinstance(named, str) and named else None


def row_id(row: dict[str, Any], place: str) -> str:
    """The row's own id, or its file's name and line."""
    own = row.get("id")
    return (
        str(own) if isinstance(own, str | int) and not isinstance(own, bool) and str(own) else os.path.basename(place)
    )
