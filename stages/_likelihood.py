"""How likely a model holds turns that the data gives: one pass over prompts with their turns, nothing generated.

A turn is written in the model's dialect and encoded as a completion is, after the prompt that generation would see. Its
end of turn is left out: what is asked is how likely the words are, not that they are all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from data.transcript import ACTS, Act, Message, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages._job import Job
    from stages._rows import Row


class Likelihood(NamedTuple):
    """The log-probability of a turn at temperature 1, in nats, and over how many tokens it is a sum."""

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        """Log-probability a token."""
        return self.logprob / self.tokens


_MOST_ROWS = 8  # on a CPU 16 of the world's requests at once took an eighth longer: they are padded to the longest
Likelihoods = dict[Act, Likelihood]  # of one request, by the act that the turn is


def answers_in_text(request: Request) -> bool:
    """Whether no call is needed and the right answer is a known text."""
    return request.expected.act == "answer" and bool((request.expected.text or "").strip())


def choices(request: Request) -> dict[Act, Message]:
    """The right turn and those of other acts, in the order of ACTS; none where there is nothing to choose between."""
    if request.gold is None or not request.others:
        return {}
    turns = request.others | {request.expected.act: request.gold}
    return {act: turns[act] for act in ACTS if act in turns}


def turns_of(requests: Sequence[Request], limit: int) -> list[dict[Act, Message]]:
    """What to weigh of each request: its choices, and the right text of at most `limit` that have one."""
    from stages._scoring import spread

    texts = [place for place, request in enumerate(requests) if answers_in_text(request)]
    turns = [choices(request) for request in requests]
    for place in spread(texts, limit):
        turns[place]["answer"] = Message("assistant", requests[place].expected.text or "")
    return turns


def likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    requests: Sequence[Request],
    turns: Sequence[Mapping[Act, Message]],
    batch_size: int,
    label: str = "weighing",
    job: Job | None = None,
) -> list[Likelihoods]:
    """How likely each turn is after its request, in the order of the requests; at most `batch_size` turns at a time.

    A request with a turn that the chat template cannot write has none: a choice without it would be another one.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from stages._sampling import TemplateError
    from stages._student import answer_columns, padded

    rows: list[Row] = []
    names: list[tuple[int, Act]] = []
    for place, (request, given) in enumerate(zip(requests, turns, strict=True)):
        try:
            written = {act: _row(tokenizer, dialect, request, turn) for act, turn in given.items()}
        except TemplateError:
            continue
        names += [(place, act) for act in written]
        rows += written.values()
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number].input_ids))
    width = min(batch_size, _MOST_ROWS)
    batches = [order[start : start + width] for start in range(0, len(order), width)]
    found: list[Likelihoods] = [{} for _ in requests]
    with torch.inference_mode():
        for batch in job.progress(batches, len(batches), label) if job and batches else batches:
            batch_rows = padded([rows[number] for number in batch], pad=0)
            ids, labels, mask = (each.to(next(model.parameters()).device) for each in batch_rows)
            columns = answer_columns(labels)
            wanted = labels[:, columns + 1]
            trained = wanted >= 0
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=columns).logits[trained]
            gains = -cross_entropy(logits.float(), wanted[trained], reduction="none").double()
            for number, gain in zip(batch, gains.split(trained.sum(1).tolist()), strict=True):
                place, act = names[number]
                found[place][act] = Likelihood(gain.sum().item(), len(gain))
    return [{act: each[act] for act in given if act in each} for given, each in zip(turns, found, strict=True)]


def _row(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request, turn: Message) -> Row:
    """The prompt, and the turn as the tokens that count."""
    from stages._rows import IGNORED, Row
    from stages._sampling import TemplateError, encode, split_turn

    prompt, completion = split_turn(tokenizer, dialect, request.tools, (*request.messages, turn))
    context, answer = encode(tokenizer, prompt), encode(tokenizer, completion)
    if not answer:
        raise TemplateError("the chat template writes nothing for this turn")
    return Row(context + answer, [IGNORED] * len(context) + answer)
