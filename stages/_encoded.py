"""Rows as this model would be trained on them, held against the data: what is kept, what is trained, what reads back.

Rows are rendered and encoded by what sft calls (stages/_rows.py), go through `datasets` as sft hands them over, and are
judged by what comes back: each run of trained tokens is one assistant turn and its end, read by the dialect into the
same text and, byte for byte in canonical JSON, the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data.dialects._attempt import MAX_LENGTH, without_thinking
from data.source import Row as SourceRow
from data.transcript import Expected, Message, Request, RowError, Tool, ToolCall, Transcript, transcript_of
from stages._content import Found
from stages._control import plain, text_of
from stages._examples import one_line
from stages._rows import IGNORED, RoundTripError, Row, transcript_rows, written
from stages._sampling import TemplateError, completion_of, encode, prompt_of, shown, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOOL = Tool(
    "zqtool", "zqdescription",
    {"type": "object", "properties": {"zqkey": {"type": "string", "description": "zq"}}, "required": ["zqkey"]},
)  # fmt: skip
_CALL = Message("assistant", tool_calls=(ToolCall("zqtool", {"zqkey": "zqvalue"}, "zq0000000"),))
_ASK, _RESULT = Message("user", "zqask"), Message("tool", "zqresult", tool_call_id="zq0000000", name="zqtool")
_PROBE = Request("probe", "", (_TOOL,), (_ASK, _CALL, _RESULT), Expected("answer"))
_SENTINELS = {"tools": ("zqtool", "zqdescription", "zqkey"), "calls": ("zqvalue",), "results": ("zqresult",)}
# What a schema holds that a tokenizer made for prose may not give back.
_SCHEMA_LIKE = '{"name": "get_x-1", "arguments": {"a b": [1.50, -20, null], "ü": "\\n\\t  two  spaces", "例": "👋"}}\n'


@dataclass(slots=True)
class Encoded:
    """A row in tokens: the fault it is rejected for, warnings, and the rows of ids that it became."""

    fault: RowError | None = None
    warnings: list[Found] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class Encoder:
    """A tokenizer with its chat template and a dialect; `warnings` are about these, not about any row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, max_length: int) -> None:
        self.tokenizer, self.dialect, self.max_length = tokenizer, dialect, max_length
        self.dropped = dropped(tokenizer, dialect)
        self.warnings = [*_tokenizer_faults(tokenizer, dialect)]
        self._end = list(turn_end(tokenizer).ids)

    def check(self, rows: Sequence[SourceRow]) -> list[Encoded]:
        """What becomes of each row."""
        found = [self._encoded(row) for row in rows]
        made = [row for each in found for row in each.rows]
        back = iter(_materialised(made)) if made else iter(())
        for row, each in zip(rows, found, strict=True):
            each.rows, before = [next(back) for _ in each.rows], each.rows
            if each.fault is None:
                each.fault = self._judged(row, before, each)
        return found

    def segments(self, rows: Sequence[Row]) -> list[tuple[str, bool]]:
        """The text of rows in runs of tokens that are trained and that are not."""
        return [(plain(text_of(self.tokenizer, ids)), trained) for row in rows for ids, trained in _runs(row)]

    def _encoded(self, row: SourceRow) -> Encoded:
        value, encoded = row.value, Encoded()
        if lacking := self.dropped & parts_of(value):
            message = f"holds {' and '.join(sorted(lacking))}, which the chat template leaves out"
            return Encoded(RowError(row.place, "messages", message, "template_drops"))
        try:
            whole = _learned(value)
            if whole is None:  # only its prompt is ever rendered
                ids = encode(self.tokenizer, prompt_of(self.tokenizer, self.dialect, value))  # type: ignore[arg-type]
                encoded.rows = [Row(ids, [IGNORED] * len(ids))]
            else:
                encoded.rows = transcript_rows(self.tokenizer, self.dialect, whole)
            if isinstance(value, Request) and value.gold and value.rejected:
                sides = [completion_of(self.tokenizer, self.dialect, value, s) for s in (value.gold, value.rejected)]
                if sides[0] == sides[1]:
                    message = "is rendered as the same tokens as chosen"
                    encoded.fault = RowError(row.place, "rejected", message, "same_pair")
        except RoundTripError as error:
            return Encoded(RowError(row.place, "messages", str(error), "round_trip"))
        except TemplateError as error:
            return Encoded(RowError(row.place, "messages", str(error), "template"))
        encoded.warnings += [("too_long", text) for each in encoded.rows if (text := self._too_long(each))]
        return encoded

    def _too_long(self, row: Row) -> str | None:
        over = len(row.input_ids) - self.max_length
        if over <= 0:
            return None
        trained = sum(label != IGNORED for label in row.labels)
        cut = sum(label != IGNORED for label in row.labels[self.max_length :])
        return (
            f"{len(row.input_ids)} tokens, model.max_length is {self.max_length}; beyond it lie {cut} of the {trained}"
            " that would be trained"
        )

    def _judged(self, row: SourceRow, before: Sequence[Row], encoded: Encoded) -> RowError | None:
        """What is wrong with the rows that came back, if anything is."""
        if encoded.rows != before:
            return RowError(row.place, "tokens", "come back from `datasets` as other ones", "arrow")
        whole = _learned(row.value)
        turns = [turn for turn in whole.messages if turn.role == "assistant"] if whole else []
        spans = [ids for each in encoded.rows for ids, trained in _runs(each) if trained]
        if len(spans) != len(turns):
            message = f"{len(spans)} runs of tokens are trained for {len(turns)} assistant turns"
            return RowError(row.place, "messages", message, "labels")
        for number, (turn, ids) in enumerate(zip(turns, spans, strict=True)):
            where = f"assistant turn {number + 1}"
            if ids[-len(self._end) :] != self._end:
                return RowError(row.place, where, "its last trained token is not the end of a turn", "end_of_turn")
            text = plain(text_of(self.tokenizer, ids[: -len(self._end)]))
            reading = self.dialect.read(text, row.value.tools)
            if written(reading.calls) != written(turn.tool_calls) or not _says(reading.text, turn):
                return RowError(row.place, where, f"trained is {one_line(text)!r}, which is another turn", "labels")
            if reading.attempt and not turn.tool_calls:
                encoded.warnings.append(("reads_as_call", f"{where}: {', '.join(reading.malformed)}"))
        return None


def dropped(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> frozenset[str]:
    """Which of tools, calls and results the template leaves out of a prompt, by a probe of words nobody else says.

    Nothing where it refuses the probe: it will refuse such rows too, one by one.
    """
    try:
        text = prompt_of(tokenizer, dialect, _PROBE)
    except TemplateError:
        return frozenset()
    return frozenset(part for part, words in _SENTINELS.items() if not all(word in text for word in words))


def parts_of(value: Transcript | Request) -> frozenset[str]:
    """Which of tools, calls and results a row has."""
    found = {
        "tools": bool(value.tools),
        "calls": any(turn.tool_calls for turn in value.messages),
        "results": any(turn.role == "tool" for turn in value.messages),
    }
    return frozenset(part for part, there in found.items() if there)


def _learned(value: Transcript | Request) -> Transcript | None:
    """The row with what is to be learned from it; where that is no turn of the data, one that makes the right calls."""
    if isinstance(value, Transcript):
        return value
    if value.gold is None and value.expected.calls:
        calls = (
            ToolCall(right.name, {key: values[0] for key, values in right.arguments.items() if values})
            for right in value.expected.calls
        )
        value = replace(value, gold=Message("assistant", tool_calls=tuple(calls)))
    return transcript_of(value)


def _runs(row: Row) -> Iterator[tuple[list[int], bool]]:
    """Runs of tokens that are trained, True, and that are not."""
    pairs = zip(row.input_ids, row.labels, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        yield [token for token, _ in run], trained


def _materialised(rows: Sequence[Row]) -> list[Row]:
    """The rows as they come back from a `datasets` table, made as sft makes it."""
    from datasets import Dataset

    columns = {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
    return [Row(row["input_ids"], row["labels"]) for row in Dataset.from_dict(columns)]


def _says(text: str, turn: Message) -> bool:
    """Whether this is the text of a turn; some dialects have no room for one beside calls, and none keeps thoughts."""
    content = without_thinking(turn.content).strip()
    return text.strip() in (content, content[:MAX_LENGTH].strip()) or (bool(turn.tool_calls) and not text.strip())


def _tokenizer_faults(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> Iterator[Found]:
    ids = encode(tokenizer, _SCHEMA_LIKE)
    if text_of(tokenizer, ids) != _SCHEMA_LIKE:
        yield "tokenizer", f"{_SCHEMA_LIKE!r} comes back as {text_of(tokenizer, ids)!r}"
    bos: Any = tokenizer.bos_token_id
    if bos is None:
        return

    def leading(ids: Sequence[int]) -> int:
        return next((place for place, token in enumerate(ids) if token != bos), len(ids))

    ask, answer = Request("probe", "", (), (_ASK,), Expected("answer")), Message("assistant", "zqanswer")
    try:
        tools, chat = shown(tokenizer, dialect, (), (_ASK,))
        counts = {
            "training": leading(
                transcript_rows(tokenizer, dialect, Transcript("probe", (), (_ASK, answer)))[0].input_ids
            ),
            "sampling": leading(encode(tokenizer, prompt_of(tokenizer, dialect, ask))),
            "serving": leading(tokenizer.apply_chat_template(chat, tools=tools, return_dict=False)),
        }
    except TemplateError:
        return
    if len(set(counts.values())) > 1 or max(counts.values()) > 1:
        yield "bos", ", ".join(f"{where} begins with {n} {tokenizer.bos_token}" for where, n in counts.items())
    elif not counts["training"] and leading(tokenizer("zq")["input_ids"]):
        yield "bos", f"the tokenizer puts {tokenizer.bos_token} before a text, and the chat template leaves it out"
