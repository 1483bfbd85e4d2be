"""The adapter put into the base's weights: a plain model that loads anywhere, checked against what it was made from.

    python train.py stage=merge run=mine [merge.adapter=kto merge.dtype=bfloat16]

Merges the adapter of the preference stage that is done (dpo where several are), or else of sft.
A 4-bit base is dequantised first, since merging into 4-bit weights rounds the adapter away, and the original weights
are not what the adapter was trained on. The sum is made in float32 on the CPU. The saved model is read back from disk
and compared with base + adapter on held-out requests. Writes merge/model. Left out: weighted sums of several adapters.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages._errors import UserError
from stages._lineage import ADAPTERS, Adapter, command, last_adapter

if TYPE_CHECKING:
    import torch

    from data.transcript import Request
    from stages._job import Job
    from stages._settings import Settings

PARENTS = ADAPTERS[:1]
OPTIONAL = ADAPTERS[1:]
BLOCKS = ("model", "data", "reward")
_POSITIONS = 16  # at the end of each row: where the call or the answer is


class Config(BaseModel):
    """Settings of stage=merge."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    adapter: Adapter | None = None
    """Which stage's adapter to merge; without it, that of the preference stage that is done, dpo where several are."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """How the merged weights are stored. auto: as the base was loaded, which is float32 without a GPU: equal then."""
    requests: int = Field(32, ge=1)
    """Held-out requests to compare on."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer compared."""
    tolerance: float | None = Field(None, gt=0)
    """Largest difference of a logit that passes; without it, 0.001 where stored in float32, else 1."""
    agreement: float = Field(0.95, ge=0, le=1)
    """Smallest share of requests with the same greedy answer that passes."""


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for an adapter that is named and not there."""
    named = settings.stage("merge").adapter
    if named and named not in above:
        raise UserError(f"run first: {command(named, settings)}")


def reads(settings: Settings, above: Mapping[str, Path]) -> set[str]:
    """The stage whose adapter is merged, and sft: another adapter, made before or after, changes nothing."""
    return {ADAPTERS[0], settings.stage("merge").adapter or last_adapter(above)}


def run(job: Job) -> dict[str, Any]:
    """Merge, save, read back, compare; returns the differences. RuntimeError where they are above the tolerance."""
    from data import dialects, load
    from stages import _scoring
    from stages._model import load_base, load_policy, load_tokenizer, plain_config

    config, settings = job.config, job.settings
    last = config.adapter or last_adapter([stage for stage in ADAPTERS if job.has(stage)])
    job.say(f"merging the adapter of {last}")
    adapter, folder = job.parent(last) / "adapter", job.folder / "model"
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    asked, _ = _scoring.renderable(tokenizer, dialect, load.load(settings.data).test)
    requests = _scoring.spread(asked, config.requests)

    before = _look(job, load_policy(settings.model, adapter), tokenizer, dialect, requests, "base + adapter")
    gc.collect()
    dtype = _merge(job, adapter, folder, tokenizer)
    gc.collect()
    plain = plain_config(folder, settings.model)
    after = _look(job, load_base(plain), load_tokenizer(plain), dialect, requests, "merged")
    results = compare(before, after)
    job.say(
        f"logits differ by {results['mean_logit_difference']:.1e} in the mean, {results['max_logit_difference']:.1e} at"
        f" most; {results['greedy_agreement']:.1%} of the answers are the same; stored in {dtype}"
    )
    tolerance = config.tolerance or (1e-3 if dtype == "float32" else 1.0)
    check(results, tolerance, config.agreement)
    return {"adapter": last, "dtype": dtype, "tolerance": tolerance, "requests": len(requests)} | results


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How far two models differ on the same requests: logits, greedy answers, outcomes; and how far from the base."""
    import torch

    differences = [(one - other).abs() for one, other in zip(before["logits"], after["logits"], strict=True)]
    moved = [(one - other).abs().max() for one, other in zip(before["base_logits"], after["logits"], strict=True)]
    both = list(zip(before["answers"], after["answers"], strict=True))
    answers = [one.completion.text == other.completion.text for one, other in both]
    outcomes = [one.judgement.outcome == other.judgement.outcome for one, other in both]
    return {
        "mean_logit_difference": torch.cat([each.flatten() for each in differences]).mean().item(),
        "max_logit_difference": max(each.max().item() for each in differences),
        "greedy_agreement": sum(answers) / len(answers),
        "outcome_agreement": sum(outcomes) / len(outcomes),
        "max_logit_change_from_base": max(each.item() for each in moved),
    }


def check(results: dict[str, float], tolerance: float, agreement: float) -> None:
    """RuntimeError for a merge that is not the model it was made from, or that changed nothing."""
    if results["max_logit_change_from_base"] == 0:
        raise RuntimeError("the merged model is the base: the adapter changed nothing")
    if not results["max_logit_difference"] <= tolerance or results["greedy_agreement"] < agreement:
        raise RuntimeError(
            f"the merged model is not base + adapter: logits differ by {results['max_logit_difference']:.3g}"
            f" (merge.tolerance {tolerance:g}), {results['greedy_agreement']:.1%} of the greedy answers agree"
            f" (merge.agreement {agreement:.0%})"
        )


def _merge(job: Job, adapter: Path, folder: Path, tokenizer: Any) -> str:
    """Write base + adapter as plain safetensors; returns the name of their dtype."""
    import torch
    from peft import PeftModel
    from transformers.utils import logging

    from stages._memory import device
    from stages._model import is_quantized, load_base
    from stages._sampling import stop_ids

    base = load_base(job.settings.model)
    original = base.config.dtype
    if is_quantized(job.settings.model):
        logging.set_verbosity_error()  # it warns of what is wanted here
        base = base.dequantize(dtype=torch.float32)
        base.is_loaded_in_4bit = base.is_quantized = False  # left behind, they say 4 bits to PEFT and to saving
        base.hf_quantizer = None
    base = base.to(device="cpu", dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    name = job.config.dtype
    if name == "auto":
        name = "float32" if device() == "cpu" else str(original).removeprefix("torch.")
    merged = merged.to(getattr(torch, name))
    merged.config.dtype = getattr(torch, name)
    merged.config.use_cache = True
    merged.generation_config.eos_token_id = sorted(stop_ids(merged, tokenizer))
    merged.generation_config.pad_token_id = tokenizer.pad_token_id
    merged.generation_config._from_model_config = False  # else loading would make it anew, with one end of turn
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return name


def _look(
    job: Job, model: Any, tokenizer: Any, dialect: Any, requests: Sequence[Request], label: str
) -> dict[str, Any]:
    """A model's last logits on each request with its gold turn, also without its adapter if it has one; its answers."""
    from stages import _scoring
    from stages._rows import request_row
    from stages._sampling import TemplateError, encode, prompt_of

    rows = []
    for request in requests:
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
