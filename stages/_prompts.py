"""Requests that a policy answers while it learns from them: encoded, counted, none cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from data.transcript import Request
from stages._rows import Counts
from stages._sampling import Completion, TemplateError, completion_of, encode, prompt_of, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stages._job import Job


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as generation encodes it, and the text of that."""

    request: Request
    text: str
    ids: list[int]


def load_prompts(
    job: Job, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, limit: int | None = None
) -> tuple[list[Prompt], Counts]:
    """The requests that pairs are made of too, evenly spaced to `limit`; UserError where too many cannot be asked."""
    from data import load
    from stages import _scoring

    config, model = job.config, job.settings.model
    data = load.load(job.settings.data)
    room = model.max_length - (config.max_new_tokens or model.max_new_tokens)
    prompts, counts = prompts_within(tokenizer, dialect, _scoring.spread(data.preference, limit), room)
    job.record(data=data.digest, **counts.as_dict())
    counts.check(config.max_dropped, f"{job.name}.max_dropped")
    return prompts, counts


def prompts_within(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, requests: Sequence[Request], longest: int
) -> tuple[list[Prompt], Counts]:
    """Those requests whose prompt the template takes and that has at most `longest` tokens; what became of the rest."""
    kept, counts = [], Counts()
    for request in requests:
        counts.total += 1
        try:
            text = prompt_of(tokenizer, dialect, request)
        except TemplateError as error:
            counts.drop("refused", request.id, str(error))
            continue
        ids = encode(tokenizer, text)
        if len(ids) > longest:
            counts.drop("too_long", request.id, f"{len(ids)} tokens leave no room for an answer in model.max_length")
            continue
        counts.kept += 1
        kept.append(Prompt(request, text, ids))
    return kept, counts


def gold_turn(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request, longest: int
) -> Completion | None:
    """The turn that the data has for a request, as if sampled; None where there is none, where the chat template
    refuses it, or where it has, with its end, more than `longest` tokens.
    """
    if request.gold is None:
        return None
    try:
        text = completion_of(tokenizer, dialect, request, request.gold)
    except TemplateError:
        return None
    ids = tuple(encode(tokenizer, text))
    if len(ids) >= longest:
        return None
    return Completion(text, None, len(ids), False, ids, turn_end(tokenizer).ids[0])
