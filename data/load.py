"""From the `data` group of the configuration to what the stages work on: transcripts and requests."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data import formats, jsontext
from data.formats import world as rows_of_the_world
from data.transcript import DataError, Request, RowError, Transcript, mark_unseen, requests_of
from data.world import WorldConfig

_TEST_SHARE = 0.1
_SUFFIXES = {".jsonl", ".json"}
_SHOWN = 20  # mistakes that are listed; the rest is counted


class DataConfig(BaseModel):
    """Where transcripts come from and how they are split. Every split follows data.seed, never the run's seed."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: str = "world"
    """How rows are written: a module of data/formats. world without data.train is the built-in generator."""
    train: str | None = None
    """File of rows to learn from: .jsonl, or .json holding a list."""
    test: str | None = None
    """File of rows held out for evaluation; without it, test_share of data.train is."""
    test_share: float | None = Field(None, gt=0, lt=1)
    """Share of data.train held out where data.test is not given; by default the format's own custom, or 0.1."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Share of the training part kept from training, to watch it by."""
    tools: str | None = None
    """File of tools for rows that bring none: a JSON list, or one a line."""
    seed: int = Field(0, ge=0)
    """Drives the built-in world and every split."""
    world: WorldConfig = Field(default_factory=WorldConfig)
    """The built-in world, where format is world and no file is given."""

    @field_validator("format")
    @classmethod
    def _format_exists(cls, name: str) -> str:
        formats.get(name)
        return name

    @field_validator("train", "test", "tools")
    @classmethod
    def _file_is_there(cls, file: str | None) -> str | None:
        if file is not None and Path(file).suffix not in _SUFFIXES:
            raise ValueError("must be a .jsonl file of rows, or a .json file holding a list of them")
        if file is not None and not Path(file).is_file():
            raise ValueError("there is no such file; the path counts from the folder the command is typed in")
        return file

    @model_validator(mode="after")
    def _format_has_its_file(self) -> DataConfig:
        if self.format != "world" and self.train is None:
            raise ValueError(f"format {self.format} reads a file; name it: data.train=FILE")
        return self


@dataclass(frozen=True, slots=True)
class Dataset:
    """Transcripts for fine-tuning, requests for preference pairs, validation and test; `digest` is of all of it."""

    sft: list[Transcript]
    preference: list[Request]
    validation: list[Request]
    test: list[Request]
    digest: str
    counts: dict[str, Any]


def load(config: DataConfig) -> Dataset:
    """Read or generate everything; DataError lists what is wrong with files and rows, every mistake found at once."""
    if config.format == "world" and config.train is None:
        from data.world import generate

        made = generate(config.world, config.seed)
        return _dataset(made.sft, made.preference, made.validation, made.test)
    train, test = _read_files(config)
    order = random.Random(f"split {config.seed}")
    if config.test is None:
        custom: float = getattr(formats.get(config.format), "TEST_SHARE", _TEST_SHARE)
        share = custom if config.test_share is None else config.test_share
        train, test = _split(train, share, order)
    sft, validation = _split(train, config.validation_share, order)
    if not sft or not test:
        name, part = ("data.train", "train on") if not sft else ("data.test", "test on")
        raise DataError(
            f"{name}: {config.train} has too few rows to hold some out and have one left to {part};"
            " give more rows, or data.test"
        )
    return _dataset(sft, _requests(sft), _requests(validation), _requests(test))


def _dataset(
    sft: Sequence[Transcript], preference: Sequence[Request], validation: Sequence[Request], test: Sequence[Request]
) -> Dataset:
    preference, validation, test = (mark_unseen(part, sft) for part in (preference, validation, test))
    digest = hashlib.sha256()
    for transcript in sft:
        digest.update(jsontext.canonical(rows_of_the_world.write(transcript)) + b"\n")
    for part in (preference, validation, test):
        digest.update(b"--\n")
        for request in part:
            gold = request.gold.as_chat() if request.gold else None
            digest.update(jsontext.canonical([rows_of_the_world.write_request(request), gold]) + b"\n")
    counts = {
        "sft": len(sft),
        "sft_without_call": sum(not any(message.tool_calls for message in row.messages) for row in sft),
        "sft_tools": len({tool.name for row in sft for tool in row.tools}),
        "preference": len(preference),
        "validation": len(validation),
        "test": len(test),
        "test_without_call": sum(request.expected.act != "call" for request in test),
        "test_unseen_tools": sum(request.unseen for request in test),
        "test_by_kind": dict(sorted(Counter(request.kind for request in test).items())),
    }
    return Dataset(list(sft), list(preference), list(validation), list(test), digest.hexdigest(), counts)


def _requests(transcripts: Iterable[Transcript]) -> list[Request]:
    """The requests of transcripts; a row of no kind is of the kind of act that it asks for."""
    requests = [request for transcript in transcripts for request in requests_of(transcript)]
    return [request if request.kind else replace(request, kind=request.expected.act) for request in requests]


def _split(rows: Sequence[Transcript], share: float, order: random.Random) -> tuple[list[Transcript], list[Transcript]]:
    """The rows without a random share of them, and that share; in file order, neither empty if there are two rows."""
    count = min(max(round(share * len(rows)), 1), len(rows) - 1) if share and len(rows) > 1 else 0
    held = set(order.sample(range(len(rows)), count))
    return [row for n, row in enumerate(rows) if n not in held], [row for n, row in enumerate(rows) if n in held]


def _read_files(config: DataConfig) -> tuple[list[Transcript], list[Transcript]]:
    """The transcripts of data.train and data.test; every mistake of both in one DataError."""
    reader = formats.get(config.format)
    mistakes: list[str] = []
    bad_rows: list[RowError] = []
    tools = _tools(config.tools, mistakes) if config.tools else None
    parts: list[list[Transcript]] = []
    for name, file in (("data.train", config.train), ("data.test", config.test)):
        found: list[Transcript] = []
        for row in _rows(name, file, mistakes) if file else ():
            try:
                if isinstance(row, RowError):
                    raise row
                place, value = row
                if tools is not None and not value.get("tools"):
                    value = value | {"tools": tools}
                found.append(reader.read(value, place))
            except RowError as error:
                bad_rows.append(error)
        parts.append(_with_ids_apart(found))
    mistakes += [str(error) for error in bad_rows[:_SHOWN]]
    if len(bad_rows) > _SHOWN:
        mistakes.append(f"and {len(bad_rows) - _SHOWN} more rows that cannot be used, {len(bad_rows)} in all")
    if mistakes:
        raise DataError(*mistakes)
    return parts[0], parts[1]


def _with_ids_apart(transcripts: Iterable[Transcript]) -> list[Transcript]:
    """Transcripts whose ids tell them apart: the second row of one id gets `~2` behind it."""
    seen: Counter[str] = Counter()
    apart = []
    for transcript in transcripts:
        seen[transcript.id] += 1
        number = seen[transcript.id]
        apart.append(transcript if number == 1 else replace(transcript, id=f"{transcript.id}~{number}"))
    return apart


def _rows(name: str, file: str, mistakes: list[str]) -> Iterator[tuple[str, dict[str, Any]] | RowError]:
    """Each row with its place, or the RowError that it is; a file that cannot be read at all goes into `mistakes`."""
    path, empty = Path(file), True
    try:
        for row in _lines(path) if path.suffix == ".jsonl" else _entries(path):
            empty = False
            yield row
    except OSError as error:
        mistakes.append(f"{name}: {file} cannot be read: {error.strerror or error}")
    except ValueError as error:
        mistakes.append(f"{name}: {file} must hold a list of rows; {error}")
    else:
        if empty:
            mistakes.append(f"{name}: {file} is empty; it must hold at least one row")


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]] | RowError]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                place = f"{path}:{number}"
                try:
                    value = jsontext.loads(text.decode("utf-8"))
                except ValueError as error:  # JsonError, or no UTF-8
                    yield RowError(place, "row", f"must be a JSON object on one line; {error}")
                else:
                    yield _object(value, place)


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]] | RowError]:
    content = path.read_bytes()
    value = jsontext.loads(content.decode("utf-8-sig"), max_length=None) if content.strip() else []
    if not isinstance(value, list):
        raise ValueError(f"it is {type(value).__name__}")
    for number, entry in enumerate(value, start=1):
        yield _object(entry, f"{path}:row {number}")


def _object(value: Any, place: str) -> tuple[str, dict[str, Any]] | RowError:
    if isinstance(value, dict):
        return place, value
    return RowError(place, "row", f"must be an object, is {str(value)[:60]!r}")


def _tools(file: str, mistakes: list[str]) -> list[Any] | None:
    """The tools of data.tools, as openai rows write them."""
    from data.formats._rows import tools as tools_of

    found: list[Any] = []
    for row in _rows("data.tools", file, mistakes):
        if isinstance(row, RowError):
            mistakes.append(f"data.tools: {row}")
            continue
        try:
            tools_of([row[1]], row[0])
            found.append(row[1])
        except RowError as error:
            mistakes.append(f"data.tools: {error}")
    return found or None
