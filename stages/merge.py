"""The adapter put into the base's weights: a plain model that loads anywhere, checked against what it was made from.

    python train.py stage=merge run=mine [merge.adapter=kto merge.dtype=bf16 merge.push_to_folder=out]

Merges the adapter of the preference stage that is done (dpo where several are), or else of sft; each stage goes on from
the adapter before it, so that the last one holds the whole chain. With merge.adapter=distill the base is the student's
checkpoint. A 4-bit base is merged both ways: dequantised, which is what the adapter was trained on, and in its original
weights, which is the custom. Merging into 4-bit weights would round the adapter away. The sum is made in float32 on the
CPU. Each saved model is read back from disk and compared with base + adapter on held-out requests; the nearer one is
kept. Writes merge/model, with a card and Ollama's Modelfile.
Left out: weighted sums of several adapters.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from stages._errors import UserError
from stages._lineage import (
    ADAPTERS,
    STUDENT,
    Adapter,
    Student,
    check_adapter,
    command,
    done_folder,
    fitted,
    last_adapter,
    made_of,
)

if TYPE_CHECKING:
    import torch

    from data.transcript import Request
    from stages._job import Job
    from stages._model import ModelConfig
    from stages._settings import Settings

PARENTS = ADAPTERS[:1]
OPTIONAL = (*ADAPTERS[1:], STUDENT)
BLOCKS = ("model", "data", "reward")
VERSION = 2
_POSITIONS = 16  # at the end of each row: where the call or the answer is
_LOGITS = 2**27  # kept of a model, 0.5 GiB: 55 requests with a vocabulary of 150,000 tokens
_MOST_WITH_LOGITS = 64  # more take a minute on two cores, and say the same: each has 16 rows of logits
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Config(BaseModel):
    """Settings of stage=merge."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("license", "llama_cpp", "gguf", "push", "push_private", "push_to_folder")

    adapter: Adapter | Student | None = None
    """Which stage's adapter to merge; without it, that of the preference stage that is done, dpo where several are.
    distill: that of the student, into the student's own checkpoint."""
    base: Literal["better", "dequantized", "original"] = "better"
    """What a 4-bit base becomes: better measures both ways and keeps the one nearer to base + adapter, by mean KL."""
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], BeforeValidator(lambda name: _SHORT.get(str(name), name))
    ] = "float32"
    """How the merged weights are stored; fp32, bf16 and fp16 will do. Stored in float32, the model can be equal."""
    requests: int = Field(300, ge=1)
    """Held-out requests to compare on."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer compared."""
    mean_tolerance: float | None = Field(None, gt=0)
    """Largest mean difference of the logits that passes; without it, 1e-5 where stored in float32, else 0.1."""
    tolerance: float | None = Field(None, gt=0)
    """Largest difference of a single logit that passes; without it, 0.001 where stored in float32, else 1."""
    agreement: float | None = Field(None, ge=0, le=1)
    """Smallest share of the same greedy answers that passes; without it, 0.99 where stored in float32, else 0.9."""
    license: str | None = Field(None, pattern=r"^[a-z0-9.-]{1,40}$")
    """Licence in the model card, as the hub spells it; without it, the one that the base's card names."""
    llama_cpp: str | None = None
    """Folder of llama.cpp with its convert_hf_to_gguf.py; without it, that is looked for on PATH."""
    gguf: Literal["f32", "f16", "bf16", "q8_0"] | None = None
    """Write merge/gguf/model-<type>.gguf too, with llama.cpp's converter."""
    push: str | None = Field(None, pattern=r"^[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}$")
    """Repository of the hub, user/name, to upload model, tokenizer, template and card to."""
    push_private: bool = True
    """Whether a repository that is new is private."""
    push_to_folder: str | None = None
    """Folder to write all that would be uploaded to."""

    @field_validator("gguf")
    @classmethod
    def _converter_is_there(cls, kind: str | None, info: ValidationInfo) -> str | None:
        from stages import _publish

        if kind:
            _publish.converter(info.data.get("llama_cpp"))
        return kind

    @field_validator("push")
    @classmethod
    def _hub_can_be_used(cls, repository: str | None) -> str | None:
        from stages import _publish

        if repository:
            _publish.check_hub()
        return repository


def works_on(settings: Settings) -> ModelConfig:
    """The student, where its adapter is merged; else the run's own model."""
    folder = done_folder(STUDENT, settings) if settings.stage("merge").adapter == STUDENT else None
    return fitted(folder, settings) if folder else settings.model


def wants(settings: Settings) -> set[str]:
    """Fine-tuning, but for a student: a teacher at an endpoint has none."""
    return set() if settings.stage("merge").adapter == STUDENT else {*PARENTS}


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for an adapter that is not there or not the one that was made, and for what cannot be published."""
    from stages import _publish

    config = settings.stage("merge")
    if config.adapter and config.adapter not in above:
        raise UserError(f"run first: {command(config.adapter, settings)}")
    last = config.adapter or last_adapter(above)
    check_adapter(last, above[last], settings)
    if config.gguf:
        _publish.check_converter(_publish.converter(config.llama_cpp))
    if config.push_to_folder:
        _publish.check_folder(Path(config.push_to_folder))
    if config.push:
        _publish.check_access(config.push)


def reads(settings: Settings, above: Mapping[str, Path]) -> set[str]:
    """The stage whose adapter is merged, and sft: another adapter, made before or after, changes nothing."""
    return wants(settings) | {settings.stage("merge").adapter or last_adapter(above)}


def run(job: Job) -> dict[str, Any]:
    """Merge, save, read back, compare; returns the differences. RuntimeError where they are above the tolerance."""
    from data import dialects, load
    from stages import _card, _merging, _scoring, _serving
    from stages._files import remove_folder, write_text
    from stages._model import is_quantized, load_base, load_policy, load_tokenizer, plain_config

    config, settings = job.config, job.settings
    last = config.adapter or last_adapter([stage for stage in ADAPTERS if job.has(stage)])
    adapter = job.parent(last) / "adapter"
    chain = _chain(job, last)
    job.say(f"merging {' -> '.join(['base', *chain])}, which the adapter of {last} holds")
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    asked, refused = _scoring.renderable(tokenizer, dialect, load.load(settings.data).test)
    requests = _scoring.spread(asked, config.requests)

    before = _look(
        job, load_policy(settings.model, adapter, fold=False), tokenizer, dialect, requests, "base + adapter"
    )
    gc.collect()
    found: dict[str, dict[str, float]] = {}
    for way in _ways(job):
        folder = job.folder / way
        remove_folder(folder)
        counts = _merging.merge(settings.model, adapter, way == "dequantized", config.dtype, tokenizer, folder)
        gc.collect()
        plain = plain_config(folder, settings.model)
        merged = _look(job, load_base(plain), load_tokenizer(plain), dialect, requests, f"merged, {way} base")
        found[way] = compare(before, merged) | counts
        job.say(f"{way} base, stored in {config.dtype}: {_told(found[way])}")
    kept = min(found, key=lambda way: found[way]["mean_kl"])
    for way in found:
        if way != kept:
            remove_folder(job.folder / way)
    # Before the check: a merge that is refused has no metrics to look at.
    job.record(requests=len(requests), requests_refused_by_template=len(refused), measured=found)
    check(found[kept], *_tolerances(config))
    remove_folder(job.folder / "model")
    (job.folder / kept).rename(job.folder / "model")
    write_text(job.folder / "model" / "Modelfile", _serving.modelfile(tokenizer, settings.model.dialect))
    job.record(
        chain=chain,
        tool_call_parser=_serving.tool_call_parser(tokenizer, settings.model.dialect),
        license=_card.base_license(settings.model),
        trained_in_4_bits=is_quantized(settings.model),
    )
    both = {f"{way}_{name}": value for way, results in found.items() for name, value in results.items()}
    said = {"adapter": last, "base": kept, "dtype": config.dtype, "requests": len(requests)}
    limits = dict(zip(("mean_tolerance", "tolerance", "agreement"), _tolerances(config), strict=True))
    return said | limits | found[kept] | (both if len(found) > 1 else {})


def after(job: Job) -> None:
    """The card, with the results there are by now; what is to be published, where no later stage has results to add."""
    from stages import _card, _publish

    _card.write(job.folder, job.settings)
    if job.settings.asked == job.name:
        _publish.publish(job.folder, job.settings)


def _chain(job: Job, last: str) -> list[str]:
    """The stages whose adapters the last one holds, the first one first; a student's begin with its own."""
    made = made_of(job.parent(last), job.settings)
    if last != STUDENT:
        return [each["stage"] for each in made.values() if each["stage"] in ADAPTERS]
    *_, distilled = made.values()
    return [STUDENT, "dpo"] if distilled["inputs"][STUDENT]["align"] else [STUDENT]


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How far two models differ on the same requests: logits, greedy answers, outcomes; and how far from the base.

    `mean_kl` is the mean over positions of KL(before || after) in nats: sum_v p(v) (log p(v) - log q(v)).
    """
    import torch

    pairs = list(zip(before["logits"], after["logits"], strict=True))
    differences = [(one - other).abs() for one, other in pairs]
    logs = [[each.double().log_softmax(-1) for each in pair] for pair in pairs]
    divergences = [(p.exp() * (p - q)).sum(-1) for p, q in logs]
    moved = [(one - other).abs().max() for one, other in zip(before["base_logits"], after["logits"], strict=True)]
    both = list(zip(before["answers"], after["answers"], strict=True))
    answers = [one.completion.text == other.completion.text for one, other in both]
    outcomes = [one.judgement.outcome == other.judgement.outcome for one, other in both]
    return {
        "mean_logit_difference": torch.cat([each.flatten() for each in differences]).mean().item(),
        "max_logit_difference": max(each.max().item() for each in differences),
        "mean_kl": torch.cat(divergences).mean().item(),
        "greedy_agreement": sum(answers) / len(answers),
        "outcome_agreement": sum(outcomes) / len(outcomes),
        "max_logit_change_from_base": max(each.item() for each in moved),
        "requests_with_logits": len(differences),
    }


def check(results: Mapping[str, float], mean_tolerance: float, tolerance: float, agreement: float) -> None:
    """RuntimeError for a merge that is not the model it was made from, or that changed nothing."""
    if not results["max_logit_change_from_base"] or not results["matrices_changed"]:
        raise RuntimeError(
            f"the merged model is the base: the adapter changed nothing ({results['matrices_changed']:.0f} of"
            f" {results['matrices_adapted']:.0f} matrices, logits by {results['max_logit_change_from_base']:.3g})"
        )
    near = results["mean_logit_difference"] <= mean_tolerance and results["max_logit_difference"] <= tolerance
    if not near or results["greedy_agreement"] < agreement:
        raise RuntimeError(
            f"the merged model is not base + adapter: logits differ by {results['mean_logit_difference']:.3g} in the"
            f" mean (merge.mean_tolerance {mean_tolerance:g}), by {results['max_logit_difference']:.3g} at most"
            f" (merge.tolerance {tolerance:g}), {results['greedy_agreement']:.1%} of the greedy answers"
            f" and {results['outcome_agreement']:.1%} of the outcomes agree (merge.agreement {agreement:.0%}),"
            f" the KL is {results['mean_kl']:.3g} nats"
        )


def _tolerances(config: Config) -> tuple[float, float, float]:
    """What passes: the mean and the largest difference of logits, and the share of the same answers."""
    mean, largest, agreement = (1e-5, 1e-3, 0.99) if config.dtype == "float32" else (0.1, 1.0, 0.9)
    given = config.agreement
    return config.mean_tolerance or mean, config.tolerance or largest, agreement if given is None else given


def _ways(job: Job) -> tuple[str, ...]:
    """As what the base is merged. Only one in 4 bits has more than its original weights."""
    from stages._model import is_quantized

    if not is_quantized(job.settings.model):
        return ("original",)
    return ("dequantized", "original") if job.config.base == "better" else (job.config.base,)


def _told(results: Mapping[str, float]) -> str:
    return (
        f"logits differ by {results['mean_logit_difference']:.1e} in the mean, {results['max_logit_difference']:.1e} at"
        f" most, KL {results['mean_kl']:.1e}; {results['greedy_agreement']:.1%} of the answers are the same"
    )


def _look(
    job: Job, model: Any, tokenizer: Any, dialect: Any, requests: Sequence[Request], label: str
) -> dict[str, Any]:
    """A model's greedy answers; its last logits on requests with their gold turns, if it has an adapter without it too.

    Logits are those of 64 requests, spread over all, or as many as have room. On a GPU they are computed in float32
    where the merged weights are stored so.
    """
    from stages import _merging, _scoring
    from stages._rows import request_row
    from stages._sampling import TemplateError, encode, prompt_of

    if job.config.dtype == "float32":
        _merging.compute_in_float32(model)
    room = _LOGITS // (_POSITIONS * model.config.get_text_config().vocab_size)
    rows = []
    for request in _scoring.spread(requests, max(1, min(room, _MOST_WITH_LOGITS))):
        try:
            rows.append(request_row(tokenizer, dialect, request).input_ids)
        except (TemplateError, ValueError):  # no gold turn, or none that can be rendered: the prompt will do
            rows.append(encode(tokenizer, prompt_of(tokenizer, dialect, request)))
    found: dict[str, Any] = {"logits": [_logits(model, row) for row in rows]}
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            found["base_logits"] = [_logits(model, row) for row in rows]
    found["answers"] = _scoring.answer(
        model,
        tokenizer,
        dialect,
        requests,
        job.settings.reward,
        max_new_tokens=job.config.max_new_tokens,
        batch_size=job.settings.model.sample_batch,
        label=label,
        job=job,
    )
    return found


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    import torch

    place = next(model.parameters()).device
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=place), logits_to_keep=_POSITIONS).logits[0].float().cpu()
