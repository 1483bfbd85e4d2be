"""The rows of data.train or data.test, one at a time: read by their format, completed, and put right where they can be.

Everything that looks at rows goes through here, so that what is checked is what is trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from data import _files, formats, mend, python_tools, turns
from data.formats import _rows
from data.transcript import DataError, Request, RowError, Transcript

if TYPE_CHECKING:
    from data.load import DataConfig

AUTO = "auto"
_GUESSED_FROM = 20  # rows

Part = Literal["train", "test"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be used: where it stands, what it says, and the kinds of what was put right in it."""

    place: str
    value: Transcript | Request
    changes: tuple[str, ...]


def rows(config: DataConfig, part: Part, name: str | None = None) -> Iterator[Row | RowError]:
    """Every row of data.train or data.test in order: as it can be used, or the RowError that it is.

    DataError where a file as a whole cannot be read. Nothing is held but the row at hand. `name` is that of the format,
    where `format_of` has said it already.
    """
    reader = formats.get(name or format_of(config, part)[0])
    reference = getattr(reader, "REFERENCE", None)
    for file, found in _sources(config, part, reader):
        complete = _completing(config, reader, file)
        for row in _told(config, part, file, found):
            try:
                if isinstance(row, RowError):
                    raise row
                place, value = row
                found, changes = mend.mended(reader.read(complete(value, place), place), place, reference)
                turns.check(found, place)
                yield Row(place, found, changes)
            except RowError as error:
                yield error


def format_of(config: DataConfig, part: Part) -> tuple[str, str | None]:
    """The name of a part's format and, where it was guessed from the first rows, what was guessed and why."""
    stated = config.test_format or config.format if part == "test" else config.format
    if stated != AUTO:
        return stated, None
    first: list[dict[str, Any]] = []
    for file, found in _sources(config, part, None):
        usable = (row[1] for row in _told(config, part, file, found) if not isinstance(row, RowError))
        first += itertools.islice(usable, _GUESSED_FROM)
        break
    try:
        name, why = formats.guess(first)
    except ValueError as error:
        raise DataError(f"data.{part}: {getattr(config, part)}: {error}") from None
    return name, f"data.{part}: guessed format {name}: the first {len(first)} rows have {why}"


def total(config: DataConfig, part: Part) -> int:
    """About how many rows a part has, to show what is left of them; 0 where only reading would tell."""
    place = getattr(config, part)
    if place is None or _files.is_hub(place):
        return 0
    counts = [_files.count(file) for file in _files.files_in(Path(place))]
    return 0 if None in counts else sum(filter(None, counts))


def found_beside(config: DataConfig, part: Part) -> str | None:
    """The file beside a part's that completes its rows, or None; where the part is a folder, it lies in there."""
    place = getattr(config, part)
    if place is None or not Path(place).is_file():
        return None
    try:
        reader = formats.get(format_of(config, part)[0])
    except DataError:  # told when the rows are read
        return None
    if not hasattr(reader, "companions"):
        return None
    companion = _companion(config, reader, Path(place))
    return str(companion) if companion else None


def _sources(
    config: DataConfig, part: Part, reader: ModuleType | None
) -> Iterator[tuple[Path, Iterator[_files.Found]]]:
    """Each file of a part with its rows; files that complete the rows of others are left out."""
    place = getattr(config, part)
    if _files.is_hub(place):
        yield Path(place), _files.read_hub(place)
        return
    files = _files.files_in(Path(place))
    companions = getattr(reader, "companions", lambda file: ())
    beside = {path for file in files for path in companions(file)}
    for file in files:
        if len(files) == 1 or file not in beside:
            yield file, _files.read(file)


def _told(config: DataConfig, part: Part, file: Path, found: Iterator[_files.Found]) -> Iterator[_files.Found]:
    """The rows of a file; DataError where it cannot be read as a whole, or holds none."""
    name, empty = f"data.{part}: {file}", True
    try:
        for row in found:
            empty = False
            yield row
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{name} must hold a list of rows; {error}") from None
    if empty:
        raise DataError(f"{name} is empty; it must hold at least one row")


def _completing(config: DataConfig, reader: ModuleType, file: Path) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    """What is done to each row of a file before it is read: tools or answers that stand in another file are put in."""
    if not hasattr(reader, "completing"):
        tools = _tools(config.tools) if config.tools else None
        return lambda row, _: row if tools is None or row.get("tools") else row | {"tools": tools}
    setting: str = reader.BESIDE
    companion = _companion(config, reader, file)
    if companion and is_python(companion):
        name = reader.__name__.rpartition(".")[2]
        raise DataError(f"data.{setting}: {companion}: {name} reads its tools from its own rows, not from Python")
    try:
        complete = reader.completing(file, companion, config.seed, config.distractors)
    except RowError as error:
        raise DataError(f"data.{setting}: {error}") from None
    except OSError as error:
        raise DataError(f"data.{setting}: {companion} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        looked = " and ".join(map(str, reader.companions(file)))
        raise DataError(f"data.{setting}: {file}: {error}; looked for {looked}; name it: data.{setting}=FILE") from None
    return complete


def _companion(config: DataConfig, reader: ModuleType, file: Path) -> Path | None:
    named = getattr(config, reader.BESIDE)
    return Path(named) if named else next((path for path in reader.companions(file) if path.is_file()), None)


def is_python(file: str | Path) -> bool:
    """Whether this names a file of Python."""
    return Path(file).suffix == ".py"


def _tools(file: str) -> list[Any]:
    """The tools of data.tools, as openai rows write them; DataError with every mistake."""
    if is_python(file):
        try:
            return [tool.as_function() for tool in python_tools.tools_of_file(file)]
        except DataError as error:
            raise DataError(*(f"data.tools: {line}" for line in error.lines)) from None

    def read(row: dict[str, Any], place: str) -> dict[str, Any]:
        _rows.tools([row], place)
        return row

    return parsed("data.tools", file, read, "tool")


def parsed(name: str, file: str, parse: Callable[[dict[str, Any], str], T], what: str) -> list[T]:
    """What `parse` makes of each row of a file and its place; DataError with every mistake, behind the setting's name.

    A file without rows is one: it must hold at least one of `what`.
    """
    found: list[T] = []
    mistakes: list[str] = []
    try:
        for row in _files.read(Path(file)):
            try:
                if isinstance(row, RowError):
                    raise row
                found.append(parse(row[1], row[0]))
            except RowError as error:
                mistakes.append(f"{name}: {error}")
    except (OSError, ValueError) as error:
        mistakes.append(f"{name}: {file} cannot be read: {error}")
    if not found and not mistakes:
        mistakes.append(f"{name}: {file} is empty; it must hold at least one {what}")
    if mistakes:
        raise DataError(*mistakes)
    return found
