"""Sampled answers, kept in the run's cache as they come: by policy, prompt and sampling settings.

What stages share that have a policy or an endpoint answer requests. Their settings have `samples`, `temperature`,
`max_new_tokens` and those of stages/_endpoint.py. An interrupted stage goes on where it was; nothing is asked twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stages import _endpoint
from stages._files import append_jsonl, digest, locked, read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from data.transcript import Request
    from stages._job import Job
    from stages._sampling import Completion

_ASKED = ".asked.jsonl"  # in the stage's folder: the requests that this stage had answered, and found in no cache
_CHUNK = 8  # batches between writes: what an interruption loses at most


def sample(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    requests: Sequence[Request],
    adapter: Path | None,
    batch: int,
    samples: int | None = None,
) -> list[list[Completion]]:
    """So many answers to each request, by default the stage's `samples`, in the order of the requests; those in the
    cache are taken from there.

    Who answers is the run's model with this adapter, `batch` rows at once, or the endpoint where the settings name one.
    """
    from stages._model import load_policy, model_digest
    from stages._sampling import Completion, generate, prompt_of

    count = samples or job.config.samples
    if job.config.sampler == "openai":
        return _endpoint.sample(job, tokenizer, dialect, requests, count)
    assert adapter is not None
    config, model_config = job.config, job.settings.model
    longest = config.max_new_tokens or model_config.max_new_tokens
    how = {"n": count, "temperature": config.temperature, "max_new_tokens": longest}
    policy = {"adapter": digest(adapter), "model": model_digest(model_config), "seed": job.seed}
    cache = job.cache / f"candidates-{digest(policy | how)[:16]}.jsonl"
    job.record(samples=cache.name)
    keys = [digest([request.id, prompt_of(tokenizer, dialect, request)]) for request in requests]
    with locked(cache.with_suffix(".lock"), "", wait=True), counted(job, keys):
        known = {row["key"]: row["completions"] for row in read_jsonl(cache)} if cache.exists() else {}
        left = sum(key not in known for key in keys)
        if left < len(keys):
            job.say(f"{len(keys) - left} of {len(keys)} requests have their samples already")
        if left:
            size = max(1, batch // count) * _CHUNK
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
                        put(job, cache, {"key": key, "completions": known[key]})
                    bar.update(bar.done + len(new))
    return [[Completion(*fields) for fields in known[key]] for key in keys]


def put(job: Job, cache: Path, row: dict[str, Any]) -> None:
    """Put a request's row into a cache of samples, and note before that this stage had it answered: killed in between,
    it does so again, which counts once.
    """
    append_jsonl(job.folder / _ASKED, {"key": row["key"]})
    append_jsonl(cache, row)


@contextlib.contextmanager
def counted(job: Job, keys: Sequence[str]) -> Iterator[None]:
    """Add to what the job records how many of these requests the stage had answered itself, all of its attempts
    together and however this one ends, and how many had their samples already.
    """
    own = job.folder / _ASKED
    before, found = (job.notes.get(name, 0) for name in ("requests_sampled", "requests_from_cache"))
    try:
        yield
    finally:
        sampled = len({row["key"] for row in read_jsonl(own)} & set(keys)) if own.exists() else 0
        job.record(requests_sampled=before + sampled)
    job.record(requests_from_cache=found + len(set(keys)) - sampled)
