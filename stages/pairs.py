"""Preference pairs from the policy's own behaviour: sample answers, see what each did, pair the right with the wrong.

    python train.py stage=pairs run=mine [pairs.samples=8 reward.needless_call=-15]

Samples K answers a request from the SFT policy, reads and scores them, adds the turn of the data and constructed
mistakes, and pairs them in both directions (stages/_pairing.py says how). Writes candidates.jsonl, pairs.jsonl,
report.json and report.html, which shows a few pairs of each kind. Samples are kept in the run's cache as they come, by
policy, prompt and sampling settings: an interrupted run goes on where it was; another reward table or other pairing
rules never sample again.

    python train.py stage=pairs pairs.sampler=openai pairs.base_url=http://localhost:8000/v1 pairs.endpoint_model=…

takes the samples from any OpenAI-compatible endpoint instead (stages/_endpoint.py). The SFT stage is its parent all the
same, since DPO goes on with that adapter: `samples_of` in the manifest says who took the policy's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from stages import _endpoint
from stages._errors import UserError
from stages._pairing import Candidate, Pair, PairingConfig

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedTokenizerBase

    from data.transcript import Message, Request
    from stages._job import Job
    from stages._sampling import Completion
    from stages._scoring import Scored

PARENTS = ("sft",)
BLOCKS = ("model", "data", "reward")
_CHUNK = 8  # batches between writes: what an interruption loses at most


class Config(PairingConfig, _endpoint.EndpointConfig):
    """Settings of stage=pairs."""

    FREE: ClassVar[tuple[str, ...]] = ("batch_size", *_endpoint.EndpointConfig.FREE)

    samples: int = Field(4, ge=1)
    """Answers sampled for each request."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature: 1 is what the policy would do of itself."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it counts as cut off."""
    batch_size: int | None = Field(64, ge=1)
    """Answers sampled at once; null takes model.sample_batch."""
    prompts: int | None = Field(None, ge=1)
    """At most so many requests, evenly spaced over those of the data."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """Share of the requests that the chat template may refuse before it is an error."""


def run(job: Job) -> dict[str, Any]:
    """Sample, score, pair; returns counts of candidates and pairs, and what the policy did."""
    from data import dialects, load
    from rewards import blind, threshold
    from stages import _pairing, _scoring
    from stages._files import write_json, write_jsonl, write_text
    from stages._model import load_tokenizer
    from stages._negatives import Pool
    from stages._pairs_report import page, ways_out
    from stages._report import facts
    from stages._sampling import encode

    config, settings = job.config, job.settings
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    data = load.load(settings.data)
    asked = _scoring.spread(data.preference, config.prompts)
    requests, refused = _scoring.renderable(tokenizer, dialect, asked)
    _scoring.check_refused(refused, len(asked), config.max_dropped, "pairs.max_dropped")
    sampled = _scoring.score(requests, _sample(job, tokenizer, dialect, requests), dialect, settings.reward)

    pool, filtered = Pool.of(data.preference), Counter[str]()
    own = [[_candidate(scored, "policy", None) for scored in row] for row in sampled]
    found: dict[str, list[Pair]] = {}
    rows: list[dict[str, Any]] = []
    for request, row, candidates in zip(requests, sampled, own, strict=True):
        others = _other_turns(job, tokenizer, dialect, request, pool, filtered)
        rows += [_row(request, scored, "policy", sample=number) for number, scored in enumerate(row)]
        rows += [_row(request, scored, source, recipe=recipe) for source, recipe, scored in others]
        candidates = [*candidates, *(_candidate(scored, source, recipe) for source, recipe, scored in others)]
        found[request.id] = _pairing.pairs_of(request, candidates, config, filtered)
    pairs = _pairing.select(found, _pairing.has_both_sides(requests), config, job.seed, filtered)

    write_jsonl(job.folder / "candidates.jsonl", rows)
    write_jsonl(job.folder / "pairs.jsonl", [_pair_row(pair, tokenizer, dialect) for pair in pairs])
    report = {
        "prompts": len(asked),
        "prompts_refused_by_template": len(refused),
        **_pairing.behaviour(requests, own),
        **_pairing.summary(pairs, lambda text: len(encode(tokenizer, text))),
        "constructed": dict(sorted(Counter(row["recipe"] for row in rows if row["recipe"]).items())),
        "requests_without_pairs": _pairing.unpaired(requests, own, found, pairs),
        "filtered": dict(sorted((+filtered).items())),
        "call_threshold": threshold(settings.reward),
        "blind_shares": blind(requests, settings.reward),
    }
    write_json(job.folder / "report.json", report)
    job.record(data=data.digest, requests=len(requests), requests_refused_by_template=len(refused))
    if not pairs:
        raise UserError(
            f"pairs: none from {len(requests)} requests ({report['always_right']} answered rightly by every sample;"
            f" left out: {_counted(report['filtered']) or 'nothing'}); {ways_out(report)}"
        )
    write_text(job.folder / "report.html", page(job.folder, report, facts(job, data.digest)))
    _tell(job, report)
    job.say(_scoring.implied(requests, settings.reward))
    job.say(f"report: {job.folder / 'report.html'}")
    kinds = {f"pairs_{kind}": count for kind, count in report["by_kind"].items()}
    names = ("prompts", "samples", "always_right", "never_right", "tied", "pairs", "call_threshold")
    return {name: report[name] for name in names} | kinds


def _sample(
    job: Job, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, requests: Sequence[Request]
) -> list[list[Completion]]:
    """K answers to each request, those in the cache taken from there and new ones put there as they come."""
    from stages._files import append_jsonl, digest, locked, read_jsonl
    from stages._model import load_policy, model_digest
    from stages._sampling import Completion, generate, prompt_of

    if job.config.sampler == "openai":
        return _endpoint.sample(job, tokenizer, dialect, requests)
    config, model_config = job.config, job.settings.model
    adapter = job.parent("sft") / "adapter"
    longest = config.max_new_tokens or model_config.max_new_tokens
    how = {"n": config.samples, "temperature": config.temperature, "max_new_tokens": longest}
    policy = {"adapter": digest(adapter), "model": model_digest(model_config), "seed": job.seed}
    cache = job.cache / f"candidates-{digest(policy | how)[:16]}.jsonl"
    keys = [digest([request.id, prompt_of(tokenizer, dialect, request)]) for request in requests]
    with locked(cache.with_suffix(".lock"), "", wait=True):
        known = {row["key"]: row["completions"] for row in read_jsonl(cache)} if cache.exists() else {}
        left = sum(key not in known for key in keys)
        if left < len(keys):
            job.say(f"{len(keys) - left} of {len(keys)} requests have their samples already")
        if left:
            batch = config.batch_size or model_config.sample_batch
            size = max(1, batch // config.samples) * _CHUNK
            model = load_policy(model_config, adapter)
            with job.bar(len(keys), "sampling", len(keys) - left) as bar:
                for start in range(0, len(keys), size):
                    # Always whole chunks: rounding depends on what shares a batch, and a resumed run must not differ.
                    chunk, asked = keys[start : start + size], requests[start : start + size]
                    if all(key in known for key in chunk):
                        continue
                    answers = generate(model, tokenizer, dialect, asked, **how, batch_size=batch, seed=job.seed)
                    new = {key: row for key, row in zip(chunk, answers, strict=True) if key not in known}
                    for key, row in new.items():
                        known[key] = [[each.text, each.logprob, each.tokens, each.truncated] for each in row]
                        append_jsonl(cache, {"key": key, "completions": known[key]})
                    bar.update(bar.done + len(new))
    return [[Completion(*fields) for fields in known[key]] for key in keys]


def _other_turns(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    request: Request,
    pool: Any,
    filtered: Counter[str],
) -> list[tuple[str, str | None, Scored]]:
    """The turn of the data and constructed mistakes, as the template renders them: (source, recipe, scored)."""
    from stages import _scoring
    from stages._negatives import PROMISED, construct
    from stages._sampling import Completion, TemplateError, completion_of

    turns: list[tuple[str, str | None, Message]] = [("gold", None, request.gold)] if request.gold else []
    mistakes = construct(request, pool, job.config.constructed, job.seed)
    turns += [("constructed", recipe, turn) for recipe, turn in mistakes.items()]
    scored = []
    for source, recipe, turn in turns:
        try:
            text = completion_of(tokenizer, dialect, request, turn)
        except TemplateError:
            filtered["turn_refused_by_template"] += 1
            continue
        one = _scoring.score_one(request, Completion(text, 0.0, 0, False), dialect, job.settings.reward)
        if recipe and one.judgement.outcome != PROMISED[recipe]:
            filtered["not_as_constructed"] += 1
            continue
        scored.append((source, recipe, one))
    return scored


def _candidate(scored: Scored, source: Any, recipe: str | None) -> Candidate:
    completion = scored.completion
    return Candidate(
        completion.text,
        scored.judgement.outcome,
        scored.score.points,
        source,
        recipe,
        completion.logprob if source == "policy" else None,
        completion.truncated,
    )


def _row(
    request: Request, scored: Scored, source: str, sample: int | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """A row of candidates.jsonl. It holds what was done and no points: another reward table is no other candidate."""
    completion, own = scored.completion, source == "policy"
    return {
        "id": request.id,
        "source": source,
        "recipe": recipe,
        "sample": sample,
        "completion": completion.text,
        "logprob": completion.logprob if own else None,
        "tokens": completion.tokens if own else None,
        "truncated": completion.truncated,
        "outcome": scored.judgement.outcome,
        "components": scored.judgement.components,
    }


def _pair_row(pair: Pair, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> dict[str, Any]:
    """A row of pairs.jsonl: prompt and tools as the chat template takes them, completions as it would write them.

    Control tokens that were only said stay broken in it (stages/_control.py): nothing else tells them from real ones.
    """
    from stages._sampling import shown

    tools, prompt = shown(tokenizer, dialect, pair.request.tools, pair.request.messages)
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    return {
        "id": pair.request.id,
        "prompt": prompt,
        "tools": tools,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "kind": pair.kind,
        "margin": pair.margin,
        "outcomes": {side: each.outcome for side, each in sides.items()},
        "provenance": {
            side: {"source": each.source, "recipe": each.recipe, "logprob": each.logprob}
            for side, each in sides.items()
        },
    }


def _tell(job: Job, report: dict[str, Any]) -> None:
    """The report in a few lines."""
    for act, outcomes in report["outcomes"].items():
        shares = (f"{name} {count / sum(outcomes.values()):.1%}" for name, count in outcomes.items())
        job.say(f"samples where to {act} is right: {', '.join(shares)}")
    job.say(f"{report['pairs']} pairs: {_counted(report['by_kind'])}")
    if report["filtered"]:
        job.say(f"left out: {_counted(report['filtered'])}")
    job.say(f"requests without a pair: {_counted(report['requests_without_pairs'])}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
