"""Base, every adapter that is done, and merged side by side on the same held-out requests.

    python train.py stage=evaluate run=mine [evaluate.limit=100] [evaluate.constrained=true]

One greedy answer a request and model, computed in float32 on a CPU. Needs sft; other adapters and merged join where
they are done. Writes evaluate/{metrics.json,requests.jsonl,predictions.jsonl,comparisons.json,report.html}, and with
`constrained` the second answers to constrained.jsonl and their rates below each model's `constrained`. Metrics are
defined in stages/_metrics.py, _behaviour.py and _reliability.py, comparisons in _comparisons.py, what of the base's
ability is watched in _ability.py, what rows of bfcl and when2call get besides in _benchmarks.py. After an interruption,
models that have answered are not asked again. Left out: sampling, and judging texts by anything but rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages._lineage import ADAPTERS, Adapter
from stages._tracked import check_installed

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from data.transcript import Request
    from stages._constrained import Guide
    from stages._job import Job
    from stages._likelihood import Likelihoods
    from stages._sampling import Completion
    from stages._settings import Settings

Name = Literal["base", Adapter, "merged"]
STAGE_OF: dict[str, str] = {stage: stage for stage in ADAPTERS} | {"merged": "merge"}

PARENTS = ADAPTERS[:1]
OPTIONAL = (*ADAPTERS[1:], "merge")
BLOCKS = ("model", "data", "reward")
VERSION = 3


class Config(BaseModel):
    """Settings of stage=evaluate, and of the short evaluation at the end of stages that train."""

    model_config = ConfigDict(extra="forbid")
    FREE: ClassVar[tuple[str, ...]] = ("batch_size", "max_perplexity_ratio")
    # The short evaluations ask one model, freely, and compare it with none.
    OWN: ClassVar[tuple[str, ...]] = ("models", "constrained", "ability_requests")

    models: list[Name] | None = Field(None, min_length=1)
    """Which of base, sft, dpo, kto, ppo, grpo and merged; without it, base and all that are done."""
    limit: int | None = Field(None, ge=1)
    """At most so many requests, evenly spaced over the held-out ones."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it counts as cut off."""
    batch_size: int | None = Field(None, ge=1)
    """Requests answered at once; without it, model.sample_batch."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """Share of the requests that the chat template may refuse before it is an error."""
    constrained: bool = False
    """Ask each model a second time, with calls held to the schemas on offer once they open (stages/_constrained.py)."""
    ability_requests: int = Field(48, ge=0)
    """Requests without a call whose right text every model weighs, evenly spaced: its perplexity against the base's."""
    max_perplexity_ratio: float | None = Field(1.5, gt=0)
    """Warn where a model's perplexity is more than so many times the base's; null never does."""

    @field_validator("constrained")
    @classmethod
    def _library_is_installed(cls, constrained: bool) -> bool:
        if constrained:
            check_installed("llguidance")
        return constrained


def run(job: Job) -> dict[str, Any]:
    """Ask every model; returns the contract's fields for each."""
    models = chosen(job)
    from data import dialects, load
    from data.formats.world import write_request
    from stages import _benchmarks, _scoring
    from stages._comparisons import comparisons
    from stages._constrained import Guide
    from stages._files import read_json, write_json, write_jsonl, write_text
    from stages._history import history
    from stages._model import load_tokenizer
    from stages._report import facts, render
    from stages._summary import expected_against_predicted

    settings, config = job.settings, job.config
    dialect = dialects.get(settings.model.dialect)
    data = load.load(settings.data)
    for note in data.notes:
        job.say(note)
    held_out = _scoring.spread(data.test, config.limit)
    requests, refused = _scoring.renderable(load_tokenizer(settings.model), dialect, held_out)
    job.record(data=data.digest, requests=len(requests), requests_refused_by_template=len(refused))
    merged = job.has("merge") and read_json(job.parent("merge") / "metrics.json")
    merged_from = merged["adapter"] if merged else None
    job.record(merged_from=merged_from)
    _scoring.check_refused(refused, len(held_out), config.max_dropped, "evaluate.max_dropped")
    job.say(_scoring.implied(requests, settings.reward))
    rows = [write_request(request) for request in requests]
    write_jsonl(job.folder / "requests.jsonl", rows)

    guide = None
    if config.constrained:
        guide = Guide(load_tokenizer(settings.model), settings.model.dialect, dialect, requests)
    answered, answered_held = (_answered(job, name, requests) for name in ("predictions", "constrained"))
    job.rewind(0)
    metrics: dict[str, Any] = {}
    predictions: dict[str, dict[str, Any]] = {}
    answers: dict[str, _benchmarks.Answers] = {}
    held: list[dict[str, Any]] = []
    for step, model in enumerate(models, 1):
        completions, likelihoods = answered.get(model) or ask(job, model, requests, dialect)
        scored = _scoring.score_singles(requests, completions, dialect, settings.reward)
        metrics[model] = _scoring.measure_more(requests, scored)
        answers[model] = _benchmarks.Answers(scored, likelihoods)
        predictions[model] = {
            request.id: _scoring.prediction(request, model, each) | ({"likelihoods": weighed} if weighed else {})
            for request, each, weighed in zip(requests, scored, likelihoods, strict=True)
        }
        write_jsonl(job.folder / "predictions.jsonl", [row for each in predictions.values() for row in each.values()])
        if guide:
            completions, _ = answered_held.get(model) or ask(job, model, requests, dialect, guide)
            scored = _scoring.score_singles(requests, completions, dialect, settings.reward)
            metrics[model]["constrained"] = _scoring.measure_together(requests, scored)
            held += [_scoring.prediction(request, model, each) for request, each in zip(requests, scored, strict=True)]
            write_jsonl(job.folder / "constrained.jsonl", held)
        numbers = {name: value for name, value in metrics[model].items() if isinstance(value, int | float)}
        job.log({"step": step, "model": model} | numbers)
    if guide:
        job.record(constrained={"loosened": guide.loosened, "released": guide.released})
        for note in guide.notes():
            job.say(f"constrained: {note}")
    of_bfcl = _benchmarks.reads_bfcl(settings.data)
    for model, more in _benchmarks.measure(requests, answers, categories=of_bfcl).items():
        metrics[model] |= more
        if of_bfcl and (
            left := _benchmarks.write_results(job.folder / "bfcl" / model, requests, answers[model].scored)
        ):
            job.say(f"bfcl/{model}: {left} answers left out, whose ids the leaderboard's scorer cannot sort")
    did = {model: each.scored for model, each in answers.items()}
    compared = comparisons(metrics, requests, did, rows, predictions, merged_from, job.seed)
    write_json(job.folder / "comparisons.json", compared)
    about = (facts(job, data.digest), merged_from, history(job.folder, settings), compared)
    write_text(job.folder / "report.html", render(metrics, rows, predictions, *about))
    print("", "expected against predicted", *expected_against_predicted(rows, predictions), sep="\n", flush=True)
    return metrics


def after(job: Job) -> None:
    """What was found, now or by an earlier call; the merged model's card gets it too."""
    from stages import _card
    from stages._ability import warnings
    from stages._files import read_json
    from stages._summary import evaluation_in, findings

    if job.has("merge"):
        _card.write(job.parent("merge"), job.settings)

    for line in warnings(read_json(job.folder / "metrics.json"), job.config.max_perplexity_ratio):
        job.say(line)
    if job.settings.asked == job.name:  # a longer run ends with these lines itself
        print(
            "", *findings(*evaluation_in(job.folder)), "", f"report: {job.folder / 'report.html'}", sep="\n", flush=True
        )


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for models that are named and not there, and for calls that cannot be held."""
    from stages._constrained import check
    from stages._errors import UserError
    from stages._lineage import command

    if settings.stage("evaluate").constrained:
        check(settings.model.dialect)
    named = settings.stage("evaluate").models or ()
    missing = [stage for model, stage in STAGE_OF.items() if model in named and stage not in above]
    if missing:
        raise UserError(*(f"run first: {command(stage, settings)}" for stage in missing))


def chosen(job: Job) -> list[str]:
    """The models to ask, in the order of the stages."""
    there = ["base", *(model for model, stage in STAGE_OF.items() if job.has(stage))]
    return [model for model in there if model in (job.config.models or there)]


def ask(
    job: Job, model: str, requests: Sequence[Request], dialect: ModuleType, guide: Guide | None = None
) -> tuple[list[Completion], list[Likelihoods]]:
    """One greedy completion of each request, by one model, which is let go of afterwards, and how likely the turns of
    the data are; with a guide, completions held to it alone.
    """
    from stages._likelihood import likelihoods, turns_of
    from stages._model import load_base, load_policy, load_tokenizer, plain_config
    from stages._sampling import generate

    config = job.settings.model
    if model == "merged":
        config = plain_config(job.parent("merge") / "model", config)
    adapter = job.parent(model) / "adapter" if model in ADAPTERS else None
    policy = load_policy(config, adapter) if adapter else load_base(config)
    tokenizer = load_tokenizer(config)
    completions = [
        row[0]
        for row in generate(
            policy,
            tokenizer,
            dialect,
            requests,
            max_new_tokens=job.config.max_new_tokens or config.max_new_tokens,
            batch_size=job.config.batch_size or config.sample_batch,
            seed=job.seed,
            label=f"{model}, constrained" if guide else model,
            job=job,
            guide=guide,
            p_call=guide is None,
        )
    ]
    if guide:
        return completions, []
    turns = turns_of(requests, job.config.ability_requests)
    label = f"{model}, given turns"
    return completions, likelihoods(policy, tokenizer, dialect, requests, turns, config.micro_batch, label, job)


def _answered(
    job: Job, name: str, requests: Sequence[Request]
) -> dict[str, tuple[list[Completion], list[Likelihoods]]]:
    """The completions in a file of rows, of models that an interrupted attempt had been through with, and what they
    weighed.
    """
    from stages._files import read_jsonl
    from stages._likelihood import Likelihood
    from stages._sampling import Completion

    path = job.folder / f"{name}.jsonl"
    found: dict[str, dict[str, tuple[Completion, Likelihoods]]] = {}
    for row in read_jsonl(path) if job.resuming and path.exists() else ():
        completion = Completion(row["completion"], 0.0, row["tokens"], row["truncated"], p_call=row.get("p_call"))
        weighed: Likelihoods = {act: Likelihood(*each) for act, each in row.get("likelihoods", {}).items()}
        found.setdefault(row["model"], {})[row["id"]] = completion, weighed
    whole = {
        model: ([rows[each.id][0] for each in requests], [rows[each.id][1] for each in requests])
        for model, rows in found.items()
        if len(rows) == len(requests)
    }
    if whole:
        job.say(f"{name} of {', '.join(whole)} are there already")
    return whole
