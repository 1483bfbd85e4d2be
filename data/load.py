"""From the `data` group of the configuration to what the stages work on: transcripts and requests."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from data import _files, formats, jsontext, source
from data.formats import world as rows_of_the_world
from data.source import AUTO, Part
from data.transcript import DataError, Request, RowError, Transcript, mark_unseen, requests_of, transcript_of
from data.world import WorldConfig

_TEST_SHARE = 0.1
_SHOWN = 20  # mistakes that are listed; the rest is counted

T = TypeVar("T", bound=Transcript | Request)


class DataConfig(BaseModel):
    """Where transcripts come from and how they are split. Every split follows data.seed, never the run's seed."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FILES: ClassVar[tuple[str, ...]] = ("train", "test", "tools", "answers", "beside_train", "beside_test")

    format: str = "world"
    """How rows are written: a module of data/formats, or auto. world without data.train is the built-in generator."""
    train: str | None = None
    """Rows to learn from: a .jsonl, .json, .csv or .parquet file, a folder of such, or org/name on the hub."""
    test: str | None = None
    """Rows held out for evaluation, as for data.train; without it, test_share of data.train is."""
    test_format: str | None = None
    """How data.test is written, where that is not as data.train is."""
    test_share: float | None = Field(None, gt=0, lt=1)
    """Share of data.train held out where data.test is not given; by default the format's own custom, or 0.1."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Share of the training part kept from training, to watch it by."""
    no_call_share: float | None = Field(None, ge=0, lt=1)
    """Share of the transcripts for fine-tuning that hold no call: rows of the sort that is too many are left out, drawn
    by data.seed. Without it they stay as they are."""
    max_rejected: float = Field(0.0, ge=0, lt=1)
    """Share of a file's rows that may be left out because they cannot be used; above it, nothing runs."""
    tools: str | None = None
    """Tools for rows that bring none: a file of them, or your own Python file of functions and pydantic models, which
    is run. seal_tools looks for its own beside the rows."""
    answers: str | None = None
    """File of accepted calls for formats that keep them apart (bfcl), where it does not stand beside the rows."""
    distractors: int = Field(4, ge=0)
    """Tools offered beside those that are called, where a format leaves the choice (seal_tools)."""
    seed: int = Field(0, ge=0)
    """Drives the built-in world, every split and the choice of distractors."""
    world: WorldConfig = Field(default_factory=WorldConfig)
    """The built-in world, where format is world and no file is given."""

    @field_validator("format", "test_format")
    @classmethod
    def _format_exists(cls, name: str | None) -> str | None:
        if name not in (None, AUTO):
            formats.get(name)
        return name

    @field_validator("train", "test")
    @classmethod
    def _rows_are_there(cls, place: str | None) -> str | None:
        if place is not None and (refusal := _files.refusal(place)):
            raise ValueError(refusal)
        return place

    @field_validator("tools", "answers")
    @classmethod
    def _file_is_there(cls, file: str | None, field: ValidationInfo) -> str | None:
        if file is None or (field.field_name == "tools" and source.is_python(file) and Path(file).is_file()):
            return file
        if not Path(file).is_file() or (refusal := _files.refusal(file)):
            raise ValueError(refusal if Path(file).is_file() else "there is no such file")
        return file

    @model_validator(mode="after")
    def _format_has_its_file(self) -> DataConfig:
        if self.format != "world" and self.train is None:
            raise ValueError(f"format {self.format} reads a file; name it: data.train=FILE")
        return self

    @property
    def beside_train(self) -> str | None:
        """The file that was found beside data.train and completes its rows."""
        return source.found_beside(self, "train")

    @property
    def beside_test(self) -> str | None:
        """The same for data.test."""
        return source.found_beside(self, "test")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Transcripts for fine-tuning, requests for preference pairs, validation and test; `digest` is of all they say.

    `notes` are lines for the user: what was guessed, left out and put right.
    """

    sft: list[Transcript]
    preference: list[Request]
    validation: list[Request]
    test: list[Request]
    digest: str
    counts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def load(config: DataConfig) -> Dataset:
    """Read or generate everything; DataError lists what is wrong with files and rows, every mistake found at once."""
    parts: dict[Part, list[Transcript | Request]] = {}
    notes: list[str] = []
    mistakes: list[str] = []
    for part in ("train", "test"):
        if getattr(config, part) is not None:
            parts[part] = _read(config, part, notes, mistakes)
    if mistakes:
        raise DataError(*dict.fromkeys(mistakes))  # one about data.tools is met with each part
    if config.train is None:
        from data.world import generate

        made = generate(config.world, config.seed)
        test = _requests(parts["test"]) if "test" in parts else made.test
        return _dataset(_mixed(made.sft, config, notes), made.preference, made.validation, test, notes)
    train, held = parts["train"], parts.get("test", [])
    order = random.Random(f"split {config.seed}")
    if "test" not in parts:
        custom: float = getattr(formats.get(source.format_of(config, "train")[0]), "TEST_SHARE", _TEST_SHARE)
        train, held = _split(train, custom if config.test_share is None else config.test_share, order)
    train, validation = _split(train, config.validation_share, order)
    if not train or not held:
        name, to = ("data.train", "train on") if not train else ("data.test", "test on")
        raise DataError(
            f"{name}: {config.train} has too few rows to hold some out and have one left to {to};"
            " give more rows, or data.test"
        )
    sft = [row for row in map(_transcript, train) if row]
    return _dataset(_mixed(sft, config, notes), _requests(train), _requests(validation), _requests(held), notes)


def _read(config: DataConfig, part: Part, notes: list[str], mistakes: list[str]) -> list[Transcript | Request]:
    """The usable rows of a part; what is wrong goes into `mistakes`, what the user should know into `notes`."""
    kept: list[Transcript | Request] = []
    rejected: list[RowError] = []
    changes: Counter[str] = Counter()
    bare: list[str] = []  # places of requests without a turn to learn from
    try:
        name, guessed = source.format_of(config, part)
        for row in source.rows(config, part, name):
            if isinstance(row, RowError):
                rejected.append(row)
                continue
            kept.append(row.value)
            changes.update(row.changes)
            if isinstance(row.value, Request) and row.value.gold is None:
                bare.append(row.place)
    except DataError as error:
        mistakes += error.lines
        return []
    total = len(kept) + len(rejected)
    if len(rejected) > config.max_rejected * total:
        mistakes += [str(error) for error in rejected[:_SHOWN]]
        if len(rejected) > _SHOWN:
            mistakes.append(f"and {len(rejected) - _SHOWN} more rows that cannot be used, {len(rejected)} in all")
    elif part == "train" and bare:
        mistakes.append(
            f"data.train: {len(bare)} of {total} rows of {config.train} are requests with no turn to learn from, the"
            f" first at {bare[0]}; they can be evaluated on: data.test={config.train} data.test_format={name}"
        )
    notes += [guessed] if guessed else []
    if rejected:
        notes.append(f"data.{part}: {len(rejected)} of {total} rows left out, the first: {rejected[0]}")
    if changes:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(changes.items()))
        notes.append(f"data.{part}: put right in {total} rows: {told}")
    return _with_ids_apart(kept)


def _transcript(row: Transcript | Request) -> Transcript | None:
    return row if isinstance(row, Transcript) else transcript_of(row)


def _mixed(sft: Sequence[Transcript], config: DataConfig, notes: list[str]) -> list[Transcript]:
    """The transcripts, without as many of one sort as data.no_call_share wants fewer; in their order."""
    share = config.no_call_share
    if share is None:
        return list(sft)
    call = [number for number, row in enumerate(sft) if _calls(row)]
    none = [number for number, row in enumerate(sft) if not _calls(row)]
    if not call or (share and not none):
        lacking = "a call" if not call else "no call"
        raise DataError(f"data.no_call_share={share:g}: no row of the training data holds {lacking}; leave it out")
    if len(none) >= share * len(sft):
        many, room = none, len(call) * share / (1 - share)
    else:
        many, room = call, len(none) * (1 - share) / share
    left_out = {*many} - {*random.Random(f"mix {config.seed}").sample(many, round(room))}
    notes.append(f"data.no_call_share={share:g}: {len(left_out)} of {len(sft)} rows left out")
    return [row for number, row in enumerate(sft) if number not in left_out]


def _calls(row: Transcript) -> bool:
    return any(message.tool_calls for message in row.messages)


def _dataset(
    sft: Sequence[Transcript],
    preference: Sequence[Request],
    validation: Sequence[Request],
    test: Sequence[Request],
    notes: list[str],
) -> Dataset:
    preference, validation, test = (mark_unseen(part, sft) for part in (preference, validation, test))
    digest = hashlib.sha256()
    for transcript in sft:
        digest.update(jsontext.canonical(_said(rows_of_the_world.write(transcript))) + b"\n")
    for part in (preference, validation, test):
        digest.update(b"--\n")
        for request in part:
            said = [request.gold, *([request.rejected] if request.rejected else [])]
            row = [_said(rows_of_the_world.write_request(request)), *(turn and turn.as_chat() for turn in said)]
            row += [{act: turn.as_chat() for act, turn in request.others.items()}] if request.others else []
            digest.update(jsontext.canonical(row) + b"\n")
    counts = {
        "sft": len(sft),
        "sft_without_call": sum(not _calls(row) for row in sft),
        "sft_tools": len({tool.name for row in sft for tool in row.tools}),
        "preference": len(preference),
        "validation": len(validation),
        "test": len(test),
        "test_without_call": sum(request.expected.act != "call" for request in test),
        "test_unseen_tools": sum(request.unseen for request in test),
        "test_by_kind": dict(sorted(Counter(request.kind for request in test).items())),
    }
    return Dataset(list(sft), list(preference), list(validation), list(test), digest.hexdigest(), counts, notes)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """A written row without what no model is shown and no answer is judged by."""
    for about in ("source", "language"):
        row.pop(about, None)
    expected = row.get("expected") or []
    for entry in filter(None, expected if isinstance(expected, list) else [expected]):
        entry.pop("lacking", None)
    return row


def _requests(found: Iterable[Transcript | Request]) -> list[Request]:
    """The requests of rows; one of no kind is of the kind of act that it asks for."""
    requests = [one for row in found for one in ([row] if isinstance(row, Request) else requests_of(row))]
    return [request if request.kind else replace(request, kind=request.expected.act) for request in requests]


def _split(found: Sequence[T], share: float, order: random.Random) -> tuple[list[T], list[T]]:
    """The rows without a random share of them, and that share; in file order, neither empty if there are two rows."""
    count = min(max(round(share * len(found)), 1), len(found) - 1) if share and len(found) > 1 else 0
    held = set(order.sample(range(len(found)), count))
    return [row for n, row in enumerate(found) if n not in held], [row for n, row in enumerate(found) if n in held]


def _with_ids_apart(found: Iterable[T]) -> list[T]:
    """Rows whose ids tell them apart: the second row of one id gets `~2` behind it, and all of them share a source."""
    rows = list(found)
    times = Counter(row.id for row in rows)
    seen: Counter[str] = Counter()
    apart = []
    for row in rows:
        seen[row.id] += 1
        number, own = seen[row.id], row.id
        if times[own] > 1:
            row = replace(row, id=own if number == 1 else f"{own}~{number}", source=row.source or own)
        apart.append(row)
    return apart
