"""The doctor: what will be learned from these rows, or what is wrong with them, by line, before anything is trained.

    python train.py stage=check data=openai data.train=my.jsonl [check.show=3]

Every row of data.train and data.test takes the path of training: it is read, put right, rendered and encoded with this
tokenizer, chat template and dialect, handed over to `datasets`, and what comes back is held against the data. No
weights are loaded. stages/_problems.py says what is looked for. Writes check/{metrics.json,rejected.jsonl,
warnings.jsonl,transcripts.jsonl,report.html}; exits 2 where more rows are rejected than check.max_rejected allows.
Left out: whether answers are true, and overlap by parts of a question: duplicates and overlap are found where the words
are the same, but for case, spaces and punctuation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.transcript import DataError, Request, RowError

if TYPE_CHECKING:
    from data.load import DataConfig
    from data.source import Part, Row
    from stages._content import Found, Seen
    from stages._encoded import Encoded, Encoder
    from stages._job import Job
    from stages._ledger import Ledger, PartCounts

BLOCKS = ("model", "data", "reward")
_CHUNK = 256  # rows held at a time


class Config(BaseModel):
    """Settings of stage=check."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("max_rejected",)

    max_rejected: float | None = Field(None, ge=0, le=1)
    """Share of the rows of data.train, and of data.test, that may be rejected; by default data.max_rejected (0)."""
    show: int = Field(0, ge=0)
    """Rows of data.train to be shown with the tokens that are trained in colour."""
    encoded_rows: int | None = Field(None, ge=0)
    """At most so many rows of each part are rendered and encoded; with 0 no tokenizer is loaded."""

    @model_validator(mode="after")
    def _rows_to_show_are_encoded(self) -> Config:
        if self.encoded_rows is not None and self.show > self.encoded_rows:
            raise ValueError(f"show: {self.show} rows, but encoded_rows lets only {self.encoded_rows} be encoded")
        return self


def run(job: Job) -> dict[str, Any]:
    """Look at every row; returns counts of rows, calls, tools and problems, over all parts and for each."""
    from stages._check_report import page
    from stages._content import Seen
    from stages._files import plain, write_json, write_text, writing
    from stages._ledger import Ledger, PartCounts

    encoder = _encoder(job) if job.config.encoded_rows != 0 else None
    parts: dict[Part, PartCounts] = {}
    mistakes: list[str] = []
    seen = Seen()
    with (
        writing(job.folder / "rejected.jsonl") as rejected,
        writing(job.folder / "warnings.jsonl") as warnings,
        writing(job.folder / "transcripts.jsonl") as shown,
    ):
        ledger = Ledger(rejected, warnings, shown)
        for found in encoder.warnings if encoder else ():
            ledger.warn(job.settings.model.path, found)
        for part in _parts(job.settings.data):
            parts[part] = PartCounts()
            try:
                _look(job, part, parts[part], encoder, ledger, seen)
            except DataError as error:  # about a file as a whole
                mistakes += error.lines
    metrics = plain(_metrics(parts, ledger.problems))
    if mistakes:
        write_json(job.folder / "metrics.json", metrics)
        raise DataError(*dict.fromkeys(mistakes))
    write_text(job.folder / "report.html", page(job.folder, metrics, _facts(job)))
    return metrics


def after(job: Job) -> None:
    """What was found, now or by an earlier call; UserError where too many rows are rejected."""
    from stages._check_report import findings, transcripts
    from stages._errors import UserError
    from stages._files import read_json

    metrics = read_json(job.folder / "metrics.json")
    print(*transcripts(job.folder), *findings(job.folder, metrics), sep="\n", flush=True)
    own = job.config.max_rejected
    share, setting = (job.settings.data.max_rejected, "data") if own is None else (own, "check")
    refusals = [
        f"data.{part}: {count['rows_rejected']} of {count['rows_in']} rows cannot be used, above the allowed share of"
        f" {share:g} ({setting}.max_rejected); each is in {job.folder / 'rejected.jsonl'} with its line and the reason"
        for part, count in metrics["parts"].items()
        if count["rows_rejected"] > share * count["rows_in"]
    ]
    if refusals:
        raise UserError(*refusals)


def _encoder(job: Job) -> Encoder:
    from data import dialects
    from stages._encoded import Encoder
    from stages._model import load_tokenizer

    model = job.settings.model
    return Encoder(load_tokenizer(model), dialects.get(model.dialect), model.max_length)


def _parts(data: DataConfig) -> list[Part]:
    """What there is, data.test first: what it asks is looked for in data.train."""
    return ["test", "train"] if data.test is not None or data.train is None else ["train"]


def _total(data: DataConfig, part: Part) -> int:
    from data import source

    if getattr(data, part) is not None:
        return source.total(data, part)
    return data.world.sft_rows if part == "train" else data.world.test_rows + data.world.unseen_rows


def _rows(job: Job, part: Part) -> Iterator[Row | RowError]:
    """The rows of a part: of its file, or those of the built-in world."""
    from data import source
    from data.world import generate

    data = job.settings.data
    if getattr(data, part) is not None:
        name, guessed = source.format_of(data, part)
        if guessed:
            job.say(guessed)
        yield from source.rows(data, part, name)
        return
    world = generate(data.world, data.seed)
    made: list[Any] = world.sft if part == "train" else world.test
    for number, value in enumerate(made, start=1):
        yield source.Row(f"world {part}:row {number}", value, ())


def _look(job: Job, part: Part, count: PartCounts, encoder: Encoder | None, ledger: Ledger, seen: Seen) -> None:
    """Reject or keep every row of a part, and write down what deserves a look."""
    rows = _rows(job, part)
    with job.bar(_total(job.settings.data, part), f"data.{part}") as bar:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            for row, encoded in _encoded(chunk, encoder, job.config.encoded_rows, count.rows_in):
                count.rows_in += 1
                if isinstance(row, RowError):
                    count.rows_rejected += 1
                    ledger.reject(row)
                elif encoded and encoded.fault:
                    count.rows_rejected += 1
                    ledger.reject(encoded.fault)
                else:
                    count.keep(row, encoded)
                    for found in (*_found(part, row, seen, job), *(encoded.warnings if encoded else ())):
                        ledger.warn(row.place, found)
                    if encoder and encoded and part == "train" and count.rows_encoded <= job.config.show:
                        ledger.show(row.place, encoder.segments(encoded.rows))
            bar.update(count.rows_in)


def _encoded(
    chunk: list[Row | RowError], encoder: Encoder | None, limit: int | None, done: int
) -> Iterator[tuple[Row | RowError, Encoded | None]]:
    """The rows, those that could be read with what became of them in tokens, as far as the limit goes."""
    readable = [row for row in chunk if not isinstance(row, RowError)]
    room = None if limit is None else max(limit - done, 0)
    found = iter(encoder.check(readable[:room])) if encoder else iter(())
    for row in chunk:
        yield row, None if isinstance(row, RowError) else next(found, None)


def _found(part: Part, row: Row, seen: Seen, job: Job) -> Iterator[Found]:
    """What a row says that deserves a look."""
    from stages._content import doubtful_pair, unusual

    value = row.value
    yield from unusual(value)
    if isinstance(value, Request):
        yield from doubtful_pair(value, job.settings.reward)
    if part == "test":
        seen.test(row.place, value)
    else:
        yield from seen.again(row.place, value)
        yield from seen.overlap(value)


def _metrics(parts: dict[Part, PartCounts], problems: dict[str, int]) -> dict[str, Any]:
    """The sums over all parts, and the counts of each; the share without a call is that of data.train."""
    names = ("rows_in", "rows_kept", "rows_rejected", "transcripts", "requests", "calls", "rows_encoded")
    sums = {name: sum(getattr(count, name) for count in parts.values()) for name in names}
    if sums["rows_in"] != sums["rows_kept"] + sums["rows_rejected"]:
        raise AssertionError(f"rows were lost: {sums}")
    tools = set[str]().union(*(count.tools for count in parts.values()))
    return sums | {
        "tools": len(tools),
        "no_tool_share": parts["train"].no_tool_share if "train" in parts else None,
        "problems": dict(sorted(problems.items())),
        "parts": {part: parts[part].as_dict() for part in sorted(parts, reverse=True)},
    }


def _facts(job: Job) -> dict[str, str]:
    """What made the report, for people; the manifest has all of it."""
    from stages._lineage import command

    model, data = job.settings.model, job.settings.data
    return {
        "run": job.settings.run,
        "command": command("check", job.settings),
        "data": ", ".join(str(value) for value in (data.format, data.train, data.test) if value),
        "model": f"{model.name} ({model.path}), dialect {model.dialect}, max_length {model.max_length}",
    }
