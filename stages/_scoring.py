"""From completions to points: read by the dialect, judged against what was expected, weighed by the reward table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from data.transcript import Reading, Request
from rewards._outcome import Judgement, judge
from rewards._policies import blind
from rewards._table import RewardConfig, Score, points, threshold
from stages._behaviour import behaviour
from stages._control import plain
from stages._errors import UserError
from stages._metrics import Row, attempted, block, metrics, needs_call
from stages._reliability import reliability

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages._job import Job
    from stages._sampling import Completion
    from stages._settings import Settings


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """A completion with what was read out of it, what that amounts to, and what it is worth."""

    completion: Completion
    reading: Reading
    judgement: Judgement
    score: Score


def score(
    requests: Sequence[Request], completions: Sequence[Sequence[Completion]], dialect: ModuleType, reward: RewardConfig
) -> list[list[Scored]]:
    """Score every completion of every request; a scorer that crashes stops here and names the row."""
    return [
        [score_one(request, completion, dialect, reward) for completion in row]
        for request, row in zip(requests, completions, strict=True)
    ]


def score_singles(
    requests: Sequence[Request], completions: Sequence[Completion], dialect: ModuleType, reward: RewardConfig
) -> list[Scored]:
    """`score` where each request has one completion."""
    return [row[0] for row in score(requests, [[each] for each in completions], dialect, reward)]


def score_one(request: Request, completion: Completion, dialect: ModuleType, reward: RewardConfig) -> Scored:
    """Score one completion of one request."""
    try:
        reading = dialect.read(plain(completion.text), request.tools)
        judgement = judge(request, reading, truncated=completion.truncated)
        return Scored(completion, reading, judgement, points(judgement, reward, request, reading))
    except Exception as error:
        error.add_note(f"while scoring request {request.id}, completion {completion.text[:200]!r}")
        raise


def measure(requests: Sequence[Request], scored: Sequence[Scored]) -> dict[str, Any]:
    """The contract's fields of one model, from its one answer to each request."""
    return metrics(requests, [each.reading for each in scored], [each.judgement for each in scored])


def measure_together(requests: Sequence[Request], scored: Sequence[Scored]) -> dict[str, Any]:
    """`measure` over all requests alone, without kinds and unseen tools."""
    return block([Row(request, each.reading, each.judgement) for request, each in zip(requests, scored, strict=True)])


def measure_more(requests: Sequence[Request], scored: Sequence[Scored]) -> dict[str, Any]:
    """Those and what stands beside them in evaluate/metrics.json, for all requests and for those of unseen tools."""

    def beside(rows: list[tuple[Request, Scored]]) -> dict[str, Any]:
        done = [Row(request, each.reading, each.judgement) for request, each in rows]
        told = [each.completion.p_call for _, each in rows]
        tokens = [each.completion.tokens for _, each in rows]
        return behaviour(done, tokens) | reliability(told, [needs_call(request) for request, _ in rows])

    rows = list(zip(requests, scored, strict=True))
    fields = measure(requests, scored)
    fields["unseen_tools"] |= beside([row for row in rows if row[0].unseen])
    return fields | beside(rows)


def prediction(request: Request, model: str, scored: Scored) -> dict[str, Any]:
    """A row of predictions.jsonl; `truncated` and `tokens` let it be scored again, `parts` add up to its points, and
    rules that add nothing are no part of them.
    """
    return {
        "id": request.id,
        "model": model,
        "completion": plain(scored.completion.text),
        "calls": [{"name": call.name, "arguments": call.arguments} for call in scored.reading.calls],
        "attempt": attempted(scored.judgement),
        "outcome": scored.judgement.outcome,
        "components": scored.judgement.components,
        "points": scored.score.points,
        "parts": {name: part for name, part in scored.score.parts.items() if part or name == "outcome"},
        "truncated": scored.completion.truncated,
        "tokens": scored.completion.tokens,
        "p_call": scored.completion.p_call,
    }


def implied(requests: Sequence[Request], reward: RewardConfig) -> str:
    """What a table makes of calling, in a line: from which probability on it pays, and what is paid blindly."""
    t, shares = threshold(reward), blind(requests, reward)
    when = (
        "neither a needless nor a missed call costs anything"
        if t is None
        else f"call when it is needed with p > {t:.2f}"
    )
    never, always = ("nothing" if each is None else f"{each:.2f}" for each in shares.values())
    return (
        f"these rewards say: {when}; of a perfect policy's points, never calling earns {never}, always calling {always}"
    )


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` requests, or others, evenly spaced: every kind keeps its share in any order; None takes all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


def renderable(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, requests: Sequence[Request]
) -> tuple[list[Request], list[str]]:
    """The requests that the chat template takes, and for each other one why it does not."""
    from stages._sampling import TemplateError, prompt_of

    kept, refused = [], []
    for request in requests:
        try:
            prompt_of(tokenizer, dialect, request)
            kept.append(request)
        except TemplateError as error:
            refused.append(f"{request.id}: {error}")
    return kept, refused


def check_refused(refused: Sequence[str], total: int, share: float, setting: str) -> None:
    """UserError where nothing is left, or more than this share was refused."""
    if len(refused) == total or len(refused) > share * total:
        raise UserError(
            f"{setting}: the chat template refuses {len(refused)} of {total} requests, above the allowed share of"
            f" {share:g}; choose another model.dialect or model.chat_template, mend the rows, or raise the share",
            *(f"  {reason}" for reason in refused[:5]),
        )


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    requests: Sequence[Request],
    reward: RewardConfig,
    *,
    max_new_tokens: int,
    batch_size: int,
    label: str,
    job: Job | None = None,
) -> list[Scored]:
    """One greedy answer to each request, scored."""
    from stages._sampling import generate

    completions = generate(
        model, tokenizer, dialect, requests, max_new_tokens=max_new_tokens, batch_size=batch_size, label=label, job=job
    )
    return [row[0] for row in score(requests, completions, dialect, reward)]


def answer_as_evaluated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    requests: Sequence[Request],
    settings: Settings,
    label: str,
    job: Job | None = None,
) -> list[Scored]:
    """One greedy answer to each request, of the length and in batches of the size that the evaluate block says."""
    how = settings.stage("evaluate")
    return answer(
        model,
        tokenizer,
        dialect,
        requests,
        settings.reward,
        max_new_tokens=how.max_new_tokens or settings.model.max_new_tokens,
        batch_size=how.batch_size or settings.model.sample_batch,
        label=label,
        job=job,
    )
