"""The cheap part of stage=check, before fine-tuning: seconds for some thousand rows.

Loading has refused rows that cannot be used, and encoding will refuse what the template cannot render and what does not
read back (stages/_rows.py). Labels are right by construction there, so they are not looked at again.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from data import load
from data.transcript import DataError
from stages._content import Seen, no_tool_warning
from stages._encoded import dropped, parts_of
from stages._errors import UserError
from stages._lineage import command

if TYPE_CHECKING:
    from stages._job import Job

_MOST_TWICE = 0.01  # share of rows; the greetings of any data set come more than once


def loaded(job: Job) -> load.Dataset:
    """The data, its notes told; UserError with every mistake, and the command that lists them by line."""
    try:
        data = load.load(job.settings.data)
    except DataError as error:
        raise UserError(*error.lines, _whole(job)) from None
    for note in data.notes:
        job.say(note)
    return data


def check(job: Job, data: load.Dataset, tokenizer: Any, dialect: ModuleType) -> None:
    """UserError where the template leaves out what the rows hold; warnings about the rows taken together."""
    parts = frozenset[str]().union(*map(parts_of, data.sft))
    if lacking := dropped(tokenizer, dialect) & parts:
        raise UserError(
            f"model.dialect={job.settings.model.dialect}: the rows hold {' and '.join(sorted(lacking))}, which the chat"
            f" template of {job.settings.model.path} leaves out; choose model.dialect=json, or a model.chat_template",
            _whole(job),
        )
    seen = Seen()
    for number, request in enumerate(data.test):
        seen.test(f"data.test:{number}", request)
    again = sum(bool([*seen.again(f"data.train:{number}", row)]) for number, row in enumerate(data.sft))
    asked = sum(bool([*seen.overlap(row)]) for row in data.sft)
    warnings = no_tool_warning(data.counts["sft_without_call"] / len(data.sft) if data.sft else None)
    if again > _MOST_TWICE * len(data.sft):
        warnings.append(f"{again} of {len(data.sft)} rows are there twice")
    if asked:
        warnings.append(f"{asked} of {len(data.sft)} rows ask what test requests ask: evaluation will flatter")
    for text in warnings:
        job.say(f"warning: {text}")
    if warnings:
        job.say(_whole(job))


def _whole(job: Job) -> str:
    return f"every problem by line: {command('check', job.settings)}"
