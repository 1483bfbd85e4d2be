"""Distillation: a small student learns from the run's aligned model, or from any teacher behind an endpoint.

    python train.py stage=distill run=mine [distill.kind=logit distill.divergence=jsd distill.on_policy=0.5]
    python train.py stage=distill run=mine distill.align=true      # and then pairs and DPO on the student itself
    python train.py stage=distill distill.sampler=openai distill.base_url=http://localhost/v1 distill.endpoint_model=…

In order: the training data's requests, the teacher's answers to them, the rules that filter these, fine-tuning on the
rest, and optional alignment. By `kind` the student learns the answers alone (response), the teacher's next-token
distributions on them too (logit, stages/_divergence.py), or its hidden states (feature, stages/_features.py). The
student is a checkpoint with a LoRA adapter, by default the embedded one of a quarter of the size. Writes
distill/adapter, answers.jsonl (each answer and why it was left out; with align=true in distill/student/distill/, where
the student before it lies), requests.jsonl and predictions.jsonl as stage=evaluate does, and the rates on the test
requests; stage=evaluate asks the student beside the other models, and merge.adapter=distill makes a plain model of it.
Left out: full fine-tuning; of teachers with another tokenizer, all but their answers.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from stages import _endpoint
from stages._divergence import Divergence
from stages._errors import UserError
from stages._features import Distance
from stages._lineage import ADAPTERS, Adapter, last_adapter, require
from stages._lora import AdapterConfig
from stages._training import TrainingConfig

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedTokenizerBase

    from data.transcript import Request
    from stages._job import Job
    from stages._model import ModelConfig
    from stages._rows import Row
    from stages._settings import Settings
    from stages._student import Goal
    from stages._teaching import Taught

OPTIONAL = ADAPTERS  # none is needed where an endpoint teaches
BLOCKS = ("model", "data", "reward", "evaluate", "pairs", "dpo")
EMBEDDED = "assets/tiny_student"
# What must be the same for two checkpoints to have the same tokens, where both are folders.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

_OF_ONE_KIND = {
    "logit": ("divergence", "loss_temperature", "top_k"),
    "feature": ("feature_layers", "feature_tokens", "feature_loss", "feature_weight"),
}


class Config(AdapterConfig, TrainingConfig, _endpoint.EndpointConfig):
    """Settings of stage=distill."""

    FREE: ClassVar[tuple[str, ...]] = (*TrainingConfig.FREE, *_endpoint.EndpointConfig.FREE)
    STAGE: ClassVar[str] = "distill"

    kind: Literal["response", "logit", "feature"] = "response"
    """What is learned of the teacher: its answers, its next-token distributions too, or its hidden states too."""
    student: str = EMBEDDED
    """Checkpoint that learns: a folder, or an id on the Hugging Face hub. All else about it is as the model block has
    it for the teacher."""
    teacher: Adapter | None = None
    """Which stage's adapter teaches; without it, that of the preference stage that is done, dpo where several are."""
    sampler: Literal["policy", "openai"] = "policy"
    """Who answers: the run's model with the teacher's adapter, or an OpenAI-compatible endpoint (kind=response)."""
    samples: int = Field(1, ge=0)
    """Answers of the teacher to each request; 0: the turns of the data alone (not for kind=response)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature, of the teacher and, with on_policy, of the student."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it is left out."""
    prompts: int | None = Field(None, ge=1)
    """At most so many requests, evenly spaced over those of the training data."""
    gold: Literal["none", "missing", "all"] = "missing"
    """When the turn of the data is learned from: never, where no answer of the teacher passed, always."""
    cross_entropy: float = Field(1.0, ge=0)
    """Weight of the NLL of the rows, beside the divergence (weight 1) or the features (feature_weight)."""
    divergence: Divergence = "forward_kl"
    """kind=logit: how far the student is from the teacher: forward_kl, reverse_kl or jsd."""
    loss_temperature: float = Field(1.0, gt=0)
    """kind=logit: temperature T of both distributions in the loss, which is multiplied by T^2."""
    top_k: int | None = Field(None, ge=1)
    """kind=logit: the teacher's likeliest tokens that are told apart; all others are one. null: all are."""
    store: bool = False
    """kind=logit: put the teacher's top_k distributions on disk once, and train without the teacher in memory."""
    on_policy: float = Field(0.0, ge=0, le=1)
    """kind=logit: share of the steps that are on the student's own answers, sampled as it is then."""
    feature_layers: list[list[int]] | None = Field(None, min_length=1)
    """kind=feature: pairs [student's, teacher's] of layers, 0 for the embeddings; by default up to three, spaced."""
    feature_tokens: Literal["answer", "all"] = "answer"
    """kind=feature: where hidden states are matched: where answers are predicted, or everywhere."""
    feature_loss: Distance = "mse"
    """kind=feature: mse, relative to the teacher's length, or cosine."""
    feature_weight: float = Field(0.1, gt=0)
    """kind=feature: weight of the distance between hidden states."""
    align: bool = False
    """Afterwards make pairs of the student's own answers and train it on them; pairs.* and dpo.* say how."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the rows."""
    rank: int = Field(64, ge=1)
    """Rank of the student's adapter (LoRA r)."""
    alpha: float = Field(128, gt=0)
    """The adapter's output is scaled by alpha / rank."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Config:
        response, logit = self.kind == "response", self.kind == "logit"
        idle = [
            f"{name}: only kind={kind} has it"
            for kind, names in _OF_ONE_KIND.items()
            for name in names
            if kind != self.kind and getattr(self, name) != type(self).model_fields[name].default
        ]
        wrong = {
            "sampler: an endpoint tells its answers alone, which kind=response learns": (
                self.sampler == "openai" and not response
            ),
            "samples: kind=response learns the teacher's answers, so that it needs one at least": (
                response and not self.samples
            ),
            "gold: neither answers of the teacher nor turns of the data are left to learn from": (
                not self.samples and self.gold == "none"
            ),
            "cross_entropy: kind=response has nothing beside it to weigh it against": (
                response and self.cross_entropy != 1
            ),
            "on_policy: only kind=logit learns from the student's own answers": self.on_policy > 0 and not logit,
            "store: only kind=logit has distributions to store, and top_k says how much of them": (
                self.store and (not logit or self.top_k is None)
            ),
            "feature_layers: pairs of layers, [[student's, teacher's], …]": any(
                len(pair) != 2 for pair in self.feature_layers or ()
            ),
        }
        if said := idle + [text for text, holds in wrong.items() if holds]:
            raise ValueError("; ".join(said))
        return self


def trains(settings: Settings) -> ModelConfig:
    """The model block of the student: the run's, but for where its checkpoint lies."""
    from stages._model import student_config

    return student_config(settings.stage("distill").student, settings.model)


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for a student or a teacher that is not there, or that do not go together."""
    from stages._model import local_path

    config, student = settings.stage("distill"), trains(settings)
    try:
        folder = local_path(student)
    except UserError:
        way_out = "name a checkpoint"
        if config.student == EMBEDDED:
            way_out = "make it: python train.py stage=pretrain model=tiny_student run=student pretrain.install=true"
        raise UserError(f"distill.student: no such folder: {config.student}; {way_out}") from None
    if config.sampler == "policy":
        require("distill", [_teacher(settings, above)], settings, above)
    if config.kind != "response" and not _same_tokens(settings.model, student, (local_path(settings.model), folder)):
        raise UserError(
            f"distill.student: {config.student} has other tokens or another chat template than {settings.model.path},"
            f" so that distill.kind={config.kind} has nothing to compare; choose distill.kind=response, or a student"
            " with the teacher's tokenizer"
        )


def reads(settings: Settings, above: Mapping[str, Path]) -> set[str]:
    """The stage that teaches; none where an endpoint does."""
    return {_teacher(settings, above)} if settings.stage("distill").sampler == "policy" else set()


def _teacher(settings: Settings, above: Mapping[str, Path]) -> Adapter:
    named: Adapter | None = settings.stage("distill").teacher
    return named or last_adapter(above)


def run(job: Job) -> dict[str, Any]:
    """Teach the student, align it if that is asked for; returns its rates on the test requests, counts and losses."""
    return _aligned(job) if job.config.align else _distilled(job)


def _distilled(job: Job) -> dict[str, Any]:
    from data import dialects, load
    from stages._checkpoints import forget_checkpoints
    from stages._files import write_jsonl
    from stages._model import load_tokenizer

    config, settings, student = job.config, job.settings, trains(job.settings)
    tokenizer, dialect = load_tokenizer(student), dialects.get(student.dialect)
    data = load.load(settings.data)
    for note in data.notes:
        job.say(note)
    teacher = config.endpoint_model if config.sampler == "openai" else _teacher_of(job)
    taught = _ask(job, data, tokenizer, dialect)
    write_jsonl(job.folder / "answers.jsonl", taught.answers)
    job.record(data=data.digest, **taught.counts.as_dict())
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(taught.left_out.items()))
    job.say(
        f"{taught.from_teacher} answers of {teacher} and {taught.from_gold} turns of the data to learn from; left out:"
        f" {told or 'nothing'}"
    )
    taught.counts.check(config.max_dropped, "distill.max_dropped")
    results = _train(job, taught.rows, tokenizer)
    gc.collect()  # the trainer's cycles hold the models
    measured = _measure(job, data.test, tokenizer, dialect)
    forget_checkpoints(job)
    left_out = {f"left_out_{reason}": count for reason, count in sorted(taught.left_out.items())}
    counts = {
        "kind": config.kind,
        "teacher": teacher,
        "answers": sum(row["source"] == "teacher" for row in taught.answers),
        "answers_kept": taught.from_teacher,
        "gold_kept": taught.from_gold,
        "requests_without_rows": taught.unanswered,
    }
    return measured | counts | left_out | taught.counts.as_dict() | results


def _teacher_of(job: Job) -> Adapter:
    """The stage whose adapter teaches; `reads` has left no other."""
    return next(stage for stage in ADAPTERS if job.has(stage))


def _ask(job: Job, data: Any, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> Taught:
    """What the teacher answers to the requests of the training data, filtered, and turns of the data."""
    from stages import _samples, _scoring
    from stages._model import load_tokenizer
    from stages._teaching import all_requests, teach

    config, settings = job.config, job.settings
    of_teacher = load_tokenizer(settings.model)
    asked = _scoring.spread(all_requests(data), config.prompts)
    requests, refused = _scoring.renderable(tokenizer, dialect, asked)
    if config.sampler == "policy":
        requests, more = _scoring.renderable(of_teacher, dialect, requests)
        refused += more
    _scoring.check_refused(refused, len(asked), config.max_dropped, "distill.max_dropped")
    job.record(requests=len(requests), requests_refused_by_template=len(refused))
    answers: Sequence[Sequence[Any]] = [[] for _ in requests]
    translate = False
    if config.samples:
        # An endpoint's turns become text for the student's template when they are read (stages/_endpoint.py).
        remote = config.sampler == "openai"
        adapter = None if remote else job.parent(_teacher_of(job)) / "adapter"
        translate = not remote and not _alike(of_teacher, tokenizer)
        completions = _samples.sample(
            job, tokenizer if remote else of_teacher, dialect, requests, adapter, settings.model.sample_batch
        )
        answers = _scoring.score(requests, completions, dialect, settings.reward)
    return teach(requests, answers, config.gold, tokenizer, dialect, settings.model.max_length, translate)


def _train(job: Job, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    from datasets import Dataset
    from trl import SFTConfig

    from stages import _training
    from stages._lora import with_fresh_adapter
    from stages._model import load_base, save_adapter
    from stages._student import student_trainer

    config, student = job.config, trains(job.settings)
    args = _training.arguments(
        SFTConfig, job, config, student.learning_rate, dataset_kwargs={"skip_prepare_dataset": True}
    )
    model = with_fresh_adapter(load_base(student, training=True), config, student, job.seed)
    goal = _goal(job, rows, model, tokenizer)
    trainer_class = _training.ordered(student_trainer(goal), [len(row.input_ids) for row in rows])
    columns = {
        "input_ids": [row.input_ids for row in rows],
        "labels": [row.labels for row in rows],
        "row": list(range(len(rows))),
    }
    adapter = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    with _training.adapters_stay_float32(model):
        trainer = trainer_class(
            model=model, args=args, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer
        )
    results = _training.train(job, trainer)
    save_adapter(model, job.folder / "adapter")
    weights = sum(parameter.numel() for parameter in model.get_base_model().parameters()) - adapter
    trained = sum(label >= 0 for row in rows for label in row.labels)
    last: Mapping[str, Any] = next((row for row in reversed(trainer.state.log_history) if "loss" in row), {})
    parts = {f"loss_{name}": last[name] for name in ("cross_entropy", config.divergence, "features") if name in last}
    return results | parts | {"tokens_trained": trained, "student_weights": weights, "adapter_weights": adapter}


def _goal(job: Job, rows: Sequence[Row], model: Any, tokenizer: PreTrainedTokenizerBase) -> Goal:
    """What the student learns beside its rows, with the teacher in memory where it is asked on the way."""
    from stages import _student
    from stages._features import layer_pairs, projections
    from stages._files import digest
    from stages._memory import device
    from stages._model import load_policy, model_digest
    from stages._sampling import stop_ids, turn_end
    from stages._soft_targets import store

    config, settings = job.config, job.settings
    if config.kind == "response":
        return _student.Goal(config.cross_entropy)
    adapter, ours = job.parent(_teacher_of(job)) / "adapter", model.config.get_text_config()
    loaded: list[Any] = []

    def teacher() -> Any:
        if not loaded:
            loaded.append(load_policy(settings.model, adapter))
        return loaded[0]

    if config.kind == "feature":
        theirs = teacher().config.get_text_config()
        pairs = layer_pairs(config.feature_layers, ours.num_hidden_layers, theirs.num_hidden_layers)
        job.say("hidden states of layers " + ", ".join(f"{one} to {other}" for one, other in pairs))
        maps = projections(ours.hidden_size, theirs.hidden_size, len(pairs), job.seed).to(device())
        everywhere = config.feature_tokens == "all"
        features = _student.Features(maps, pairs, config.feature_loss, config.feature_weight, everywhere)
        return _student.Goal(config.cross_entropy, teacher(), features=features)

    vocabulary = min(ours.vocab_size, _vocabulary(settings.model))
    how = _student.Logits(config.divergence, config.loss_temperature, config.top_k, vocabulary)
    if config.store:
        top_k = min(config.top_k, vocabulary - 1)
        how = _student.Logits(config.divergence, config.loss_temperature, top_k, vocabulary)
        identity = {"adapter": digest(adapter), "model": model_digest(settings.model), "vocabulary": vocabulary}
        identity |= {"top_k": top_k, "temperature": config.loss_temperature, "rows_at_once": settings.model.micro_batch}
        pad: Any = tokenizer.pad_token_id

        def asker() -> Any:
            return lambda part: _student.taught_rows(teacher(), how, part, settings.model.micro_batch, pad)

        stored = store(job, rows, identity, asker)
        how = _student.Logits(config.divergence, config.loss_temperature, top_k, vocabulary, stored)
        if not config.on_policy:
            loaded.clear()
            return _student.Goal(config.cross_entropy, logits=how)
    own = None
    if config.on_policy:
        longest = config.max_new_tokens or settings.model.max_new_tokens
        own = _student.OwnAnswers(
            config.on_policy,
            job.seed,
            config.temperature,
            longest,
            stop_ids(model, tokenizer),
            turn_end(tokenizer).ids,
        )
    return _student.Goal(config.cross_entropy, teacher(), logits=how, own=own)


def _vocabulary(model: ModelConfig) -> int:
    """How many logits a checkpoint has, by its configuration alone."""
    from transformers import AutoConfig

    from stages._model import local_path

    place, revision = local_path(model), model.revision or "main"
    found = AutoConfig.from_pretrained(place) if place else AutoConfig.from_pretrained(model.path, revision=revision)
    return found.get_text_config().vocab_size


def _aligned(job: Job) -> dict[str, Any]:
    """Distil within this folder, then pairs and DPO on the student; the adapter and the rates are those after it."""
    from data import dialects, load
    from stages._files import read_json
    from stages._model import load_tokenizer

    student = trains(job.settings)
    above: dict[str, Path] = {stage: job.parent(stage) for stage in ADAPTERS if job.has(stage)}
    distilled = job.within("student", job.name, above, align=False)
    pairs = job.within("aligned", "pairs", {"sft": distilled}, model=student)
    aligned = job.within("aligned", "dpo", {"sft": distilled, "pairs": pairs}, model=student)
    shutil.copytree(aligned / "adapter", job.folder / "adapter", dirs_exist_ok=True)
    tokenizer, dialect = load_tokenizer(student), dialects.get(student.dialect)
    measured = _measure(job, load.load(job.settings.data).test, tokenizer, dialect)
    before = read_json(distilled / "metrics.json") or {}
    kept = {name: before[name] for name in before if name not in measured}
    told = {f"before_alignment_{name}": before[name] for name in measured if not isinstance(measured[name], dict)}
    return measured | kept | told


def _measure(
    job: Job, held_out: Sequence[Request], tokenizer: PreTrainedTokenizerBase, dialect: ModuleType
) -> dict[str, Any]:
    """The contract's fields of the student on the test requests, by the adapter as it lies on disk."""
    from data.formats.world import write_request
    from stages import _scoring
    from stages._files import write_jsonl
    from stages._model import load_policy

    how = job.settings.stage("evaluate")
    asked = _scoring.spread(held_out, how.limit)
    requests, refused = _scoring.renderable(tokenizer, dialect, asked)
    _scoring.check_refused(refused, len(asked), how.max_dropped, "evaluate.max_dropped")
    model = load_policy(trains(job.settings), job.folder / "adapter")
    scored = _scoring.answer_as_evaluated(model, tokenizer, dialect, requests, job.settings, "student", job)
    write_jsonl(job.folder / "requests.jsonl", [write_request(request) for request in requests])
    rows = [_scoring.prediction(request, "student", each) for request, each in zip(requests, scored, strict=True)]
    write_jsonl(job.folder / "predictions.jsonl", rows)
    measured = _scoring.measure(requests, scored)
    shown = ("exact_call_rate", "false_tool_call_rate", "missed_call_rate")
    said = ", ".join(f"{name} {'-' if measured[name] is None else f'{measured[name]:.1%}'}" for name in shown)
    job.say(f"{len(requests)} test requests: {said}")
    return measured


def _same_tokens(teacher: ModelConfig, student: ModelConfig, folders: tuple[Path | None, Path | None]) -> bool:
    """Whether both read and write the same tokens; where their files are the same, without loading any."""
    first, second = folders
    if first and second and all(_content(first / name) == _content(second / name) for name in _TOKENIZER_FILES):
        return True
    from stages._model import load_tokenizer

    return _alike(load_tokenizer(teacher), load_tokenizer(student))


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _alike(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    return bool(one.get_vocab() == other.get_vocab() and one.chat_template == other.chat_template)
