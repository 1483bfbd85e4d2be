"""Tools from Python: functions give transformers' schema, models their own, and calls come back as instances."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from data import dialects, schema, typed
from data.dialects import router
from data.python_tools import tool_of, tools_of_file
from data.transcript import DataError, ToolCall


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


def no_arguments() -> str:
    """Tells the time."""
    return ""


def one(city: str) -> str:
    """
    Gets the weather of a city.

    Args:
        city: The city, as in "Oslo".
    """
    return city


def defaults(city: str, days: int = 3, exact: bool = False, scale: float = 1.0):
    """Gets a forecast.

    Args:
        city: The city.
        days: How many days to look ahead,
            which may be
            none.
        exact: Whether to be exact
        scale: By what to multiply: at most 2.

    Returns:
        The forecast.
    """


def optional(text: str | None = None, number: int | float | None = None):
    """Does something.

    It has a longer description, over
    several lines.

    Args:
        text: A text.
        number: A number.
    """


def collections(names: list[str], table: dict[str, int], plain: list, free: dict, nested: list[dict[str, list[int]]]):
    """Takes collections.

    Args:
        names: Names.
        table: A table.

        plain: Anything in a row.
        free: An object.
        nested: More.
    """


def choices(mode: Literal["fast", "slow"], level: Literal[1, 2, "max"], unit: Unit = Unit.KELVIN):
    """Chooses.

    Args:
        mode: The mode.
        level: The level.
        unit: The unit.

    Raises:
        ValueError: never.
    """


def told_choices(colour: str, size: int = 1):
    """Paints.

    Args:
        colour: The colour. (choices: ["red", "green"])
        size: The size. (Choices: [1, 2])
    """


def pairs(point: tuple[float, float], anything: Any, either: list[int] | str, several: int | str):
    """Takes odd things.

    Args:
        point: A point.
        anything: Anything.
        either: Numbers or a text.
        several: A number or a text.
    """


def unioned(value: list[int] | dict[str, str] | None, other: Literal["a"] | None = None):
    """Unions.

    Args:
        value: A value.
        other: Another.
    """


async def waits(seconds: float, *, loudly: bool = True) -> None:
    """Waits.

    Args:
        seconds: How long: in seconds.
        loudly: Whether to hum (softly).
    """


def returns(text: str) -> dict[str, int]:
    """Counts words: each of them.

    Args:
        text: The text
    Returns:
        Counts by word.
    """
    return {}


def unicode(größe: int, 名前: str):
    """Kleidergröße – 服.

    Args:
        größe: Die Größe.
        名前: 名前。
    """


FUNCTIONS = [
    no_arguments, one, defaults, optional, collections, choices, told_choices, pairs, unioned, waits, returns, unicode
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_function_gives_the_schema_that_transformers_gives(function: Callable[..., Any]) -> None:
    from transformers.utils import get_json_schema

    theirs = get_json_schema(function)["function"]
    theirs.pop("return", None)
    assert tool_of(function).as_function()["function"] == theirs
    schema.validator(tool_of(function).parameters)


def test_types_in_the_docstring_are_read_over() -> None:
    def find(text: str, limit: int = 3) -> None:
        """Finds.

        Args:
            text (str): The text.
            limit (int, optional): At most so many.
        """

    properties = tool_of(find).parameters["properties"]
    assert [entry["description"] for entry in properties.values()] == ["The text.", "At most so many."]


class Address(BaseModel):
    """Where to."""

    street: str


class SendParcel(BaseModel):
    """Sends a parcel."""

    model_config = ConfigDict(extra="forbid")
    title: str = Field(description="What the label says.")
    to: Address
    weight: float = Field(gt=0)
    express: bool = False


class Weather(BaseModel):
    """Gets the weather."""

    model_config = ConfigDict(title="get_weather")
    city: str
    days: int = 1


def test_a_model_is_a_tool_and_says_nothing_twice() -> None:
    tool = tool_of(SendParcel)
    assert (tool.name, tool.description) == ("SendParcel", "Sends a parcel.")
    assert tool.parameters["properties"]["title"] == {"description": "What the label says.", "type": "string"}
    assert tool.parameters["required"] == ["title", "to", "weight"]
    assert tool.parameters["$defs"]["Address"]["properties"] == {"street": {"type": "string"}}
    assert "title" not in tool.parameters
    assert tool_of(Weather).name == "get_weather"
    assert not schema.faults({"title": "a", "to": {"street": "b"}, "weight": 1.5}, tool.parameters)
    assert schema.faults({"title": "a", "to": {}, "weight": 1.5}, tool.parameters)


@pytest.mark.parametrize("name", dialects.names())
def test_a_call_comes_back_as_an_instance_of_its_tools_own_model(name: str) -> None:
    dialect = dialects.get(name)

    def back(*calls: ToolCall) -> BaseModel | None:
        return typed(dialect.write(calls), dialect, (SendParcel, Weather))

    assert back(ToolCall("get_weather", {"city": "Oslo", "days": 2})) == Weather(city="Oslo", days=2)
    parcel = {"title": "Books", "to": {"street": "Elm"}, "weight": 2}
    assert back(ToolCall("SendParcel", parcel)) == SendParcel(title="Books", to=Address(street="Elm"), weight=2)
    assert back(ToolCall("SendParcel", parcel | {"weight": -1})) is None
    assert back(ToolCall("SendParcel", parcel | {"colour": "red"})) is None
    assert back(ToolCall("get_weather", {"city": "Oslo", "days": "2"})) is None
    assert back(ToolCall("teleport", {})) is None
    assert back(*[ToolCall("get_weather", {"city": "Oslo"})] * 2) is None
    assert typed("It is sunny.", dialect, (Weather,)) is None
    assert typed("<tool_call>{", dialect, (Weather,)) is None


def test_a_decline_is_no_instance() -> None:
    assert typed('{"tool": "no_tool", "reason": "Hello!"}', router, (Weather,)) is None


def written(folder: Path, text: str) -> Path:
    path = folder / "my_tools.py"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = '''
from __future__ import annotations
from pathlib import Path
from typing import Optional
from pydantic import BaseModel, Field

def get_weather(city: str, place: Optional[str] = None) -> Path:
    """Gets the weather.

    Args:
        city: The city.
        place: The place.
    """

def _helper(x): ...

class Order(BaseModel):
    """Orders."""
    item: Item

class Item(BaseModel):
    """An item."""
    name: str

LIMIT = 3
'''


def test_a_file_offers_its_public_functions_and_models(tmp_path: Path) -> None:
    tools = tools_of_file(written(tmp_path, GOOD))
    assert [tool.name for tool in tools] == ["get_weather", "Order", "Item"]
    assert tools[0].parameters["properties"]["place"] == {
        "type": "string",
        "nullable": True,
        "description": "The place.",
    }
    listed = written(tmp_path, GOOD + "__all__ = ['Order', 'get_weather']\n")
    assert [tool.name for tool in tools_of_file(listed)] == ["Order", "get_weather"]


BAD = '''
from pydantic import BaseModel
def no_doc(a: int): ...
def no_hint(a):
    """Does.

    Args:
        a: A.
    """
def not_told(a: int):
    """Does."""
def odd(a: bytes):
    """Does.

    Args:
        a: A.
    """
def many(*rest: int):
    """Does."""
def lost(a: set[int]):
    """Does.

    Args:
        a: A.
    """
def broken(a: "Nowhere"):
    """Does.

    Args:
        a: A.
    """
def chosen(a: int):
    """Does.

    Args:
        a: A. (choices: red)
    """
class NoDoc(BaseModel):
    a: int
'''


def test_everything_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    with pytest.raises(DataError) as error:
        tools_of_file(path)
    lines = [line.removeprefix(f"{path}:") for line in error.value.lines]
    assert [line.partition(":")[0] for line in lines] == [
        *("no_doc", "no_hint", "not_told", "odd", "many", "lost", "broken", "chosen", "NoDoc")
    ]
    assert lines[0] == "no_doc: has no docstring: say in one what the tool does, and each argument under Args:"
    assert lines[1] == "no_hint: argument a has no type hint: write a: str, for one"
    assert lines[2] == "not_told: argument a is not described: write it under Args: in the docstring"
    assert lines[3].startswith("odd: argument a: the type bytes has no JSON Schema; use str, int,")
    assert lines[4] == "many: argument rest stands for any number of them; name each"
    assert "name 'Nowhere' is not defined" in lines[6]
    assert "choices must be a JSON list" in lines[7]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no tool: write functions with type hints and docstrings, or pydantic models"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def f(:", "cannot be imported: SyntaxError: "),
        ("__all__ = ['x']\nx = 3", "__all__ names x, which is neither a function nor a pydantic model"),
        ("__all__ = ['y']", "__all__ names y, which is neither a function nor a pydantic model"),
    ],
)
def test_a_file_that_offers_nothing_says_why(text: str, line: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        tools_of_file(path)
    assert str(error.value).startswith(f"{path}: {line}")


def test_a_file_that_is_not_there_or_no_python_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be imported: FileNotFoundError"):
        tools_of_file(tmp_path / "nothing.py")
    with pytest.raises(DataError, match="must be a Python file"):
        tools_of_file(tmp_path / "tools.json")
