"""Base, every adapter that is done, and merged side by side on the same held-out requests.

    python train.py stage=evaluate run=mine [evaluate.limit=100] [evaluate.constrained=true]
                    [evaluate.renderings=4] [evaluate.sampled=3]

One greedy answer a request and model, computed in float32 on a CPU. Needs sft; other adapters and merged join where
they are done, and a student that stage=distill taught, with its own checkpoint. Writes evaluate/{metrics.json,
requests.jsonl,predictions.jsonl,comparisons.json,report.html}; with `constrained`, `renderings` and `sampled`
(stages/_passes.py) also the answers in a file of that name, and their rates below each model's field of that name.
Metrics are defined in stages/_metrics.py, _behaviour.py and _reliability.py, and

    seconds_per_request    seconds of the greedy pass, loading left out / requests

which batches share, so that none has a time of its own. Comparisons are in _comparisons.py, what of the base's ability
is watched in _ability.py, what rows of bfcl and when2call get in _benchmarks.py. After an interruption, models that
have answered are not asked again. Left out: judging texts by anything but rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages._lineage import ADAPTERS, STAGE_OF, STUDENT, ModelName, fitted
from stages._renderings import NAMES as RENDERINGS
from stages._tracked import check_installed

if TYPE_CHECKING:
    from pathlib import Path

    from data.load import Dataset
    from data.transcript import Request
    from stages._ability import Answers
    from stages._job import Job
    from stages._model import ModelConfig
    from stages._settings import Settings

PARENTS = ADAPTERS[:1]
OPTIONAL = tuple(stage for stage in STAGE_OF.values() if stage not in PARENTS)
BLOCKS = ("model", "data", "reward")
VERSION = 3


class Config(BaseModel):
    """Settings of stage=evaluate, and of the short evaluation at the end of stages that train."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("batch_size", "max_perplexity_ratio")
    # The short evaluations ask one model, freely, and compare it with none.
    OWN: ClassVar[tuple[str, ...]] = (
        *("models", "constrained", "ability_requests"),
        *("renderings", "rendering_requests", "sampled"),
    )

    models: list[ModelName] | None = Field(None, min_length=1)
    """Which of base, sft, dpo, kto, ppo, grpo, distill and merged; without it, base and all that are done."""
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
    renderings: int = Field(0, ge=0, le=len(RENDERINGS))
    """Show the tools in so many ways (stages/_renderings.py), of which the usual one is the first, and tell how far the
    rates differ."""
    rendering_requests: int = Field(200, ge=1)
    """At most so many requests for these, drawn by data.seed."""
    sampled: int = Field(0, ge=0)
    """Answers a request at temperature 0.7 beside the greedy one: mean and range of the rates."""
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
    from data import load
    from data.formats.world import write_request
    from stages import _asking, _benchmarks
    from stages._comparisons import comparisons
    from stages._files import write_json, write_jsonl, write_text
    from stages._history import history
    from stages._report import facts, render
    from stages._summary import expected_against_predicted

    of = _asking.bases(job, models)
    data = load.load(job.settings.data)
    for note in data.notes:
        job.say(note)
    requests = _renderable(job, data, of)
    merged_from = _merged_from(job)
    rows = [write_request(request) for request in requests]
    write_jsonl(job.folder / "requests.jsonl", rows)
    metrics, answers, predictions = _ask(job, models, requests, of)
    of_bfcl = _benchmarks.reads_bfcl(job.settings.data)
    for model, more in _benchmarks.measure(requests, answers, categories=of_bfcl).items():
        metrics[model] |= more
        if of_bfcl and (
            left := _benchmarks.write_results(job.folder / "bfcl" / model, requests, answers[model].scored)
        ):
            job.say(f"bfcl/{model}: {left} answers left out, whose ids the leaderboard's scorer cannot sort")
    did = {model: each.scored for model, each in answers.items()}
    compared = comparisons(metrics, requests, did, rows, predictions, merged_from, job.seed, teacher=_teacher(job))
    write_json(job.folder / "comparisons.json", compared)
    about = (
        facts(job, data.digest) | _student(job, of, answers),
        merged_from,
        history(job.folder, job.settings),
        compared,
    )
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


def wants(settings: Settings) -> set[str]:
    """Fine-tuning, but for a student by itself: a teacher at an endpoint has none."""
    named = set(settings.stage("evaluate").models or ())
    return set() if STUDENT in named and not named & {*ADAPTERS} else {*PARENTS}


def reads(settings: Settings, above: Mapping[str, Path]) -> set[str]:
    """All that is there, but for a student that is not asked: it is no part of how the others came to be."""
    named = settings.stage("evaluate").models
    return {stage for stage in above if stage != STUDENT or named is None or STUDENT in named}


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for models that are named and not there, and for calls that cannot be held."""
    from stages._constrained import check
    from stages._errors import UserError
    from stages._lineage import command

    if settings.stage("evaluate").constrained:
        check(settings.model.dialect)
        for stage in reads(settings, above):
            check(fitted(above[stage], settings).dialect)
    named = settings.stage("evaluate").models or ()
    missing = [stage for model, stage in STAGE_OF.items() if model in named and stage not in above]
    if missing:
        raise UserError(*(f"run first: {command(stage, settings)}" for stage in missing))


def chosen(job: Job) -> list[str]:
    """The models to ask, in the order of the stages."""
    there = ["base", *(model for model, stage in STAGE_OF.items() if job.has(stage))]
    return [model for model in there if model in (job.config.models or there)]


def _renderable(job: Job, data: Dataset, of: Sequence[ModelConfig]) -> list[Request]:
    """The test requests, or `limit` of them, that every chat template takes; UserError where too many are refused."""
    from data import dialects
    from stages import _scoring
    from stages._model import load_tokenizer

    requests = held_out = _scoring.spread(data.test, job.config.limit)
    refused: list[str] = []
    for model in of:
        requests, more = _scoring.renderable(load_tokenizer(model), dialects.get(model.dialect), requests)
        refused += more
    job.record(data=data.digest, requests=len(requests), requests_refused_by_template=len(refused))
    _scoring.check_refused(refused, len(held_out), job.config.max_dropped, "evaluate.max_dropped")
    job.say(_scoring.implied(requests, job.settings.reward))
    return requests


def _merged_from(job: Job) -> str | None:
    """The model whose adapter was merged."""
    from stages._files import read_json

    merged = job.has("merge") and read_json(job.parent("merge") / "metrics.json")
    name: str | None = merged["adapter"] if merged else None
    job.record(merged_from=name)
    return name


def _teacher(job: Job) -> str | None:
    """The model that taught the student; None without a student, or where its teacher was at an endpoint."""
    from stages._manifest import read_manifest

    taught = read_manifest(job.parent(STUDENT)) if job.has(STUDENT) else None
    return next((stage for stage in ADAPTERS if taught and stage in taught["parents"]), None)


def _student(job: Job, of: Sequence[ModelConfig], answers: Mapping[str, Answers]) -> dict[str, str]:
    """What the report says of a student's checkpoint, beside what it says of the run's model."""
    student = next((model for model in of if model != job.settings.model), None)
    if student is None:
        return {}
    own = "" if all(each.shares_tokens for each in answers.values()) else ", tokens of its own, which it is counted in"
    return {"student": f"{student.name} ({student.path}), dialect {student.dialect}{own}"}


def _ask(
    job: Job, models: Sequence[str], requests: Sequence[Request], of: Sequence[ModelConfig]
) -> tuple[dict[str, dict[str, Any]], dict[str, Answers], dict[str, dict[str, dict[str, Any]]]]:
    """Each model's metrics, its greedy answers, and their rows by id; each is logged once it has answered."""
    from stages import _asking, _passes, _scoring
    from stages._ability import Answers

    kept, took = _asking.Kept(job, "predictions"), _asking.took(job)
    passes = _passes.chosen(job, requests, of)
    job.rewind(0)
    metrics: dict[str, dict[str, Any]] = {}
    answers: dict[str, Answers] = {}
    predictions: dict[str, dict[str, dict[str, Any]]] = {}
    for step, name in enumerate(models, 1):
        model = _asking.Model(job, name)
        completions, likelihoods, seconds = _asking.greedy(model, requests, kept, took)
        scored = _scoring.score_singles(requests, completions, model.dialect, job.settings.reward)
        metrics[name] = _scoring.measure_more(requests, scored) | {"seconds_per_request": seconds}
        answers[name] = Answers(scored, likelihoods, model.shares_tokens)
        predictions[name] = {
            request.id: _scoring.prediction(request, name, each) | ({"likelihoods": weighed} if weighed else {})
            for request, each, weighed in zip(requests, scored, likelihoods, strict=True)
        }
        kept.add(list(predictions[name].values()))
        numbers = {key: value for key, value in metrics[name].items() if isinstance(value, int | float)}
        job.log({"step": step, "model": name} | numbers)
        for each_pass in passes:
            metrics[name] |= each_pass(model, scored)
    for each_pass in passes:
        each_pass.close()
    return metrics, answers, predictions
