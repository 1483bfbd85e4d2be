"""Transcripts as token ids with a loss mask: the assistant's tokens alone, each after exactly what inference will see.

TRL is given ids, not messages: what Arrow does to rows with differing arguments (nulls, 3 for 3.0) cannot reach them,
and templates without {% generation %} markers need no special case. A transcript is one row where its template renders
every turn's prompt as a prefix of the next (and the tokens agree); elsewhere, one row for each assistant turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from data import jsontext
from data.transcript import Message, Request, Tool, ToolCall, Transcript
from stages._control import plain
from stages._errors import UserError
from stages._examples import one_line
from stages._sampling import TemplateError, encode, split_turn, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a label without loss, for torch and TRL alike


class RoundTripError(TemplateError):
    """A turn whose calls are other ones when the dialect reads what would be trained."""


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, and the same ids as labels where they are trained."""

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class Counts:
    """What became of the rows, by reason; `kept` + the dropped ones are all of them."""

    total: int = 0
    kept: int = 0
    split: int = 0
    too_long: int = 0
    refused: int = 0
    examples: list[str] = field(default_factory=list)

    def drop(self, reason: str, place: str, message: str) -> None:
        setattr(self, reason, getattr(self, reason) + 1)
        if len(self.examples) < 5:
            self.examples.append(f"{place}: {message}")

    def check(self, share: float, setting: str) -> None:
        """UserError if more than this share was dropped."""
        dropped = self.total - self.kept
        if not self.kept or dropped > share * self.total:
            raise UserError(
                f"{setting}: {dropped} of {self.total} rows cannot be trained on ({self.too_long} too long,"
                f" {self.refused} refused by the chat template), above the allowed share of {share:g}; raise"
                " model.max_length, choose another model.dialect, mend the rows, or raise the share",
                *(f"  {example}" for example in self.examples),
            )

    def as_dict(self) -> dict[str, int]:
        return {
            "rows": self.total,
            "rows_kept": self.kept,
            "rows_split_by_turn": self.split,
            "rows_too_long": self.too_long,
            "rows_refused_by_template": self.refused,
        }


def turn_row(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, tools: Sequence[Tool], messages: Sequence[Message]
) -> Row:
    """The row of the last message: the prompt before it as generation would encode it, then the turn with its end."""
    prompt, completion = _turn(tokenizer, dialect, tools, messages)
    context, trained = encode(tokenizer, prompt), encode(tokenizer, completion)
    return Row(context + trained, [IGNORED] * len(context) + trained)


def _turn(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, tools: Sequence[Tool], messages: Sequence[Message]
) -> tuple[str, str]:
    """The text before the last message, and that message's with its end; its calls read back as what they are."""
    prompt, completion = split_turn(tokenizer, dialect, tools, messages)
    calls = messages[-1].tool_calls
    if calls and written(dialect.read(plain(completion), tools).calls) != written(calls):
        raise RoundTripError(f"the calls {one_line(completion)!r} read back as other ones than those of the data")
    return prompt, completion + turn_end(tokenizer).text


def written(calls: Iterable[ToolCall]) -> bytes:
    """Names and arguments of calls as canonical JSON: equal bytes are equal calls, 1 and 1.0 are not."""
    return jsontext.canonical([[call.name, call.arguments] for call in calls])


def request_row(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request) -> Row:
    """The row of a request with the turn the data has for it."""
    if request.gold is None:
        raise ValueError(f"{request.id} has no gold turn")
    return turn_row(tokenizer, dialect, request.tools, (*request.messages, request.gold))


def transcript_rows(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, transcript: Transcript) -> list[Row]:
    """The rows of a transcript: one, or one for each assistant turn."""
    ends = [place + 1 for place, message in enumerate(transcript.messages) if message.role == "assistant"]
    if not ends:
        raise TemplateError("no assistant turn")
    ids: list[int] = []
    labels: list[int] = []
    written = ""
    for end in ends:
        prompt, completion = _turn(tokenizer, dialect, transcript.tools, transcript.messages[:end])
        if not prompt.startswith(written):
            break
        context, trained = encode(tokenizer, prompt[len(written) :]), encode(tokenizer, completion)
        if written and encode(tokenizer, prompt) != ids + context:
            break
        ids += context + trained
        labels += [IGNORED] * len(context) + trained
        written = prompt + completion
    else:
        return [Row(ids, labels)]
    return [turn_row(tokenizer, dialect, transcript.tools, transcript.messages[:end]) for end in ends]


def rows_of(
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    transcripts: Iterable[Transcript],
    max_length: int,
) -> tuple[list[Row], Counts]:
    """All rows that can be trained on, and what became of the others. `Counts.total` counts rows, not transcripts."""
    kept: list[Row] = []
    counts = Counts()
    for transcript in transcripts:
        try:
            rows = transcript_rows(tokenizer, dialect, transcript)
        except TemplateError as error:
            counts.total += 1
            counts.drop("refused", transcript.id, str(error))
            continue
        counts.total += len(rows)
        counts.split += len(rows) > 1
        for row in rows:
            if len(row.input_ids) > max_length:
                counts.drop("too_long", transcript.id, f"{len(row.input_ids)} tokens, model.max_length is {max_length}")
            else:
                counts.kept += 1
                kept.append(row)
    return kept, counts
