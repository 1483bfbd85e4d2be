"""What a student is taught from: which requests a teacher is asked, and which of its answers pass the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from data.transcript import Message, Request, requests_of
from rewards import right_outcome
from stages._rows import IGNORED, Counts, Row, request_row
from stages._sampling import TemplateError, completion_of, encode, prompt_of, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from data.load import Dataset
    from stages._scoring import Scored

Gold = Literal["none", "missing", "all"]
Fault = Literal["cut_off", "format", "schema", "ungrounded", "outcome"]


@dataclass(slots=True)
class Taught:
    """Rows to learn from; `answers`, what became of each answer; `counts`, of the rows, and `left_out`, by reason."""

    rows: list[Row] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    left_out: Counter[str] = field(default_factory=Counter)
    from_teacher: int = 0
    from_gold: int = 0
    unanswered: int = 0  # requests that gave no row


def all_requests(data: Dataset) -> list[Request]:
    """All that the training data asks: each assistant turn of the transcripts, and the requests of preference pairs.

    Formats whose rows are both give each once.
    """
    asked = {request.id: request for transcript in data.sft for request in requests_of(transcript)}
    return [*asked.values(), *(request for request in data.preference if request.id not in asked)]


def fault(request: Request, scored: Scored) -> Fault | None:
    """Why an answer of the teacher is not learned from; None where it does what is right, in its dialect's form.

    `cut_off`: it ran into the limit; `format`: it does not parse; `schema`: a call of no tool on offer, or that breaks
    its schema; `ungrounded`: a wrong call with values that stand nowhere in the request; `outcome`: wrong otherwise.
    """
    parts = scored.judgement.components
    if scored.completion.truncated:
        return "cut_off"
    if scored.reading.malformed:
        return "format"
    if scored.judgement.outcome == right_outcome(request):
        return None
    if parts["act"] == "call":
        if not (parts["known_tools"] and parts["schema_valid"]):
            return "schema"
        if parts["ungrounded"]:
            return "ungrounded"
    return "outcome"


def teach(
    requests: Sequence[Request],
    answers: Sequence[Sequence[Scored]],
    gold: Gold,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    max_length: int,
    translate: bool,
) -> Taught:
    """Rows of the answers that pass, each text once a request, and of gold turns: never, where none passed, or always.

    `translate` writes each answer anew as the student's own chat template has it, for a teacher with another one.
    """
    taught = Taught()
    for request, row in zip(requests, answers, strict=True):
        seen: set[str] = set()
        for number, scored in enumerate(row):
            text, reason = scored.completion.text, str(fault(request, scored) or "")
            if not reason and translate:
                try:
                    turn = Message("assistant", scored.reading.text, tuple(scored.reading.calls))
                    text = completion_of(tokenizer, dialect, request, turn)
                except TemplateError:
                    reason = "untranslatable"
            if not reason:
                reason = "duplicate" if text in seen else _kept(taught, request, text, tokenizer, dialect, max_length)
            if not reason:
                seen.add(text)
                taught.from_teacher += 1
            else:
                taught.left_out[reason] += 1
            taught.answers.append(_answer(request, "teacher", number, text, scored.judgement.outcome, reason))
        if request.gold is not None and (gold == "all" or (gold == "missing" and not seen)):
            _add_gold(taught, request, seen, tokenizer, dialect, max_length)
        taught.unanswered += not seen
    return taught


def _add_gold(
    taught: Taught,
    request: Request,
    seen: set[str],
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    max_length: int,
) -> None:
    """Add the turn of the data, unless the teacher said just that."""
    assert request.gold is not None
    try:
        text, row = completion_of(tokenizer, dialect, request, request.gold), request_row(tokenizer, dialect, request)
    except TemplateError as error:
        taught.counts.total += 1
        taught.counts.drop("refused", request.id, str(error))
        return
    if text in seen:
        return
    reason = _added(taught, request, row, max_length)
    if not reason:
        seen.add(text)
        taught.from_gold += 1
    taught.answers.append(_answer(request, "gold", None, text, right_outcome(request), reason))


def _kept(
    taught: Taught,
    request: Request,
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    max_length: int,
) -> str:
    """Add the row of an answer as the teacher wrote it; why not, where that cannot be."""
    prompt = encode(tokenizer, prompt_of(tokenizer, dialect, request))
    answer = encode(tokenizer, text) + list(turn_end(tokenizer).ids)
    return _added(taught, request, Row(prompt + answer, [IGNORED] * len(prompt) + answer), max_length)


def _added(taught: Taught, request: Request, row: Row, max_length: int) -> str:
    taught.counts.total += 1
    if (length := len(row.input_ids)) > max_length:
        taught.counts.drop("too_long", request.id, f"{length} tokens, model.max_length is {max_length}")
        return "too_long"
    taught.counts.kept += 1
    taught.rows.append(row)
    return ""


def _answer(request: Request, source: str, sample: int | None, text: str, outcome: str, reason: str) -> dict[str, Any]:
    """A row of answers.jsonl."""
    return {
        "id": request.id,
        "source": source,
        "sample": sample,
        "completion": text,
        "outcome": outcome,
        "left_out": reason or None,
    }
