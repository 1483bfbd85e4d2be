"""Rows of files, each with its place: .jsonl, .json, .csv, .parquet, a folder of these, or a data set of the hub.

JSON Lines, CSV and Parquet are read row by row; a .json list is held in memory as a whole. Columns of Parquet and of
the hub cannot tell a field that is absent from one that is null, so null fields of their objects are left out. A data
set of the hub (`org/name`, `org/name:split`, `org/name/configuration:split`) is streamed through `datasets`. That path
has been run on a local folder that `datasets` can load, never against the hub itself.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data import jsontext
from data.transcript import RowError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w.-]+))?(?::([\w.-]+))?")  # data set, configuration, split
_BATCH = 256  # rows of Parquet held at a time

Found = tuple[str, dict[str, Any]] | RowError


def refusal(place: str) -> str | None:
    """Why rows cannot be read from here, told before anything is opened; None where they can."""
    path = Path(place)
    if path.is_dir():
        return None if files_in(path) else f"this folder holds no {', '.join(SUFFIXES)} file"
    if path.is_file():
        return None if path.suffix in SUFFIXES else f"must be a {', '.join(SUFFIXES)} file, or a folder of such files"
    if is_hub(place):
        return None
    return (
        "there is no such file or folder (the path counts from the folder the command is typed in), and it is no"
        " data set of the hub, which would be org/name"
    )


def is_hub(place: str) -> bool:
    """Whether this names a data set of the hub: `org/name`, where no such file or folder is here."""
    return bool(_HUB.fullmatch(place)) and Path(place).suffix not in SUFFIXES and not Path(place).exists()


def files_in(path: Path) -> list[Path]:
    """The file itself, or the files of a folder and the folders in it, sorted; hidden ones are left out."""
    if not path.is_dir():
        return [path]
    found = (file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(path).parts))


def count(path: Path) -> int | None:
    """About how many rows a file has, where that can be told without reading them: its lines, or what Parquet says."""
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            return sum(part.count(b"\n") for part in iter(lambda: lines.read(1 << 20), b""))
    if path.suffix == ".parquet":
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_metadata

        with contextlib.suppress(ArrowInvalid):
            return int(read_metadata(path).num_rows)
    return None


def read(path: Path) -> Iterator[Found]:
    """The rows of one file, each with its place, or the RowError that it is.

    OSError or ValueError where the file as a whole cannot be read.
    """
    if path.suffix == ".csv":
        return _csv(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    return _lines(path) if path.suffix == ".jsonl" or _is_lines(path) else _entries(path)


def read_hub(place: str) -> Iterator[Found]:
    """The rows of a data set of the hub, streamed; OSError or ValueError where there is none."""
    named = _HUB.fullmatch(place)
    if named is None:
        raise ValueError(f"{place!r} names no data set: org/name, org/name:split or org/name/configuration:split")
    return _streamed(named[1], named[2], named[3], place)


def _streamed(name: str, configuration: str | None, split: str | None, place: str) -> Iterator[Found]:
    import datasets

    rows: Iterable[dict[str, Any]] = datasets.load_dataset(name, configuration, split=split or "train", streaming=True)
    for number, row in enumerate(rows, start=1):
        yield f"{place}:row {number}", _without_nulls(row)


def _lines(path: Path) -> Iterator[Found]:
    name = str(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                place = f"{name}:{number}"
                try:
                    value = jsontext.loads(text.decode("utf-8"))
                except ValueError as error:  # JsonError, or no UTF-8
                    yield RowError(place, "row", f"must be a JSON object on one line; {error}", "unreadable")
                else:
                    yield _object(value, place)


def _is_lines(path: Path) -> bool:
    """Whether a .json file is JSON Lines in truth, as BFCL's are: its first line is an object, and not the only one."""
    with path.open("rb") as lines:
        first = lines.readline().strip()
        return first[:1] == b"{" and first[-1:] == b"}" and bool(lines.readline().strip())


def _entries(path: Path) -> Iterator[Found]:
    content = path.read_bytes()
    value = jsontext.loads(content.decode("utf-8-sig"), max_length=None) if content.strip() else []
    if not isinstance(value, list):
        raise ValueError(f"it must hold a list of rows, and is {type(value).__name__}")
    for number, entry in enumerate(value, start=1):
        yield _object(entry, f"{path}:row {number}")


def _csv(path: Path) -> Iterator[Found]:
    csv.field_size_limit(jsontext.MAX_LENGTH)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        try:
            header = next(rows, [])
            start = rows.line_num + 1
            for cells in rows:
                place, start = f"{path}:{start}", rows.line_num + 1  # a quoted cell may run over several lines
                if not cells:
                    continue
                if len(cells) == len(header):
                    yield place, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
                else:
                    message = f"must have {len(header)} cells, as the first line has, not {len(cells)}"
                    yield RowError(place, "row", message, "unreadable")
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num} is no CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Found]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"it is no Parquet file: {str(error).splitlines()[0]}") from None
    number = 0
    with file:
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:row {number}", _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _object(value: Any, place: str) -> Found:
    if isinstance(value, dict):
        return place, value
    return RowError(place, "row", f"must be an object, is {str(value)[:60]!r}", "unreadable")
