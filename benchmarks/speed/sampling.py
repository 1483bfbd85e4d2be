"""Who samples: n answers to each request from a base with an adapter over it.

notebook  one answer at a time with `generate`, as a loop over requests and samples
best      transformers at its best: the adapter merged, bfloat16 where this machine is faster in it, all requests in
          one left-padded batch, n answers each
ours      stages._sampling.generate, as stage=pairs calls it

Random weights hardly ever end an answer: all have `new_tokens` tokens, and nothing is won by rows that end early.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.speed import clock
from benchmarks.speed.workload import Work, dtype_of, requests, settings_of, speech

CONTENDERS = ("notebook", "best", "ours")


def sample(work: Work, who: str, folder: Path) -> dict[str, Any]:
    """Answers and tokens a second of this contender, in this process."""
    asked = requests(work, folder)
    settings = settings_of(work, folder, "pairs")
    answer = _ours(settings, folder) if who == "ours" else _plain(who, settings, folder)
    answer(asked[:1], 1, 2)  # warms up
    began, worked = time.perf_counter(), time.process_time()
    tokens = answer(asked, work.samples, work.new_tokens)
    clock.synchronized()
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    prompts = _prompts(settings, asked)
    return {
        "seconds": seconds,
        "cpu_seconds": worked,
        "rows": len(asked) * work.samples,
        "tokens": tokens,
        "prompt_tokens": sum(map(len, prompts)) / len(prompts),
        "peak_bytes": clock.peak_bytes(),
    }


def _prompts(settings: Any, asked: Any) -> list[list[int]]:
    from stages._sampling import encode, prompt_of

    tokenizer, dialect = speech(settings.model)
    return [encode(tokenizer, prompt_of(tokenizer, dialect, each)) for each in asked]


def _ours(settings: Any, folder: Path) -> Any:
    from stages import _machine
    from stages._model import load_policy
    from stages._sampling import generate

    _machine.prepare(settings, heavy=True)
    model = load_policy(settings.model, folder / "sft" / "adapter")
    tokenizer, dialect = speech(settings.model)
    batch = settings.stage("pairs").batch_size or settings.model.sample_batch

    def answer(asked: Any, n: int, new_tokens: int) -> int:
        rows = generate(
            model, tokenizer, dialect, asked, n=n, temperature=1.0, max_new_tokens=new_tokens, batch_size=batch
        )
        return sum(each.tokens for row in rows for each in row)

    return answer


def _plain(who: str, settings: Any, folder: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(settings.model.path, dtype=dtype_of(who, settings.model))
    model = PeftModel.from_pretrained(model, str(folder / "sft" / "adapter"))
    model = model.merge_and_unload() if who == "best" else model
    model = model.to("cuda").eval() if torch.cuda.is_available() else model.eval()
    tokenizer, _ = speech(settings.model)

    def generated(prompts: list[list[int]], n: int, new_tokens: int) -> int:
        longest = max(map(len, prompts))
        rows = [[tokenizer.pad_token_id] * (longest - len(prompt)) + prompt for prompt in prompts]
        seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        ids = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(seen, device=model.device),
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=n, max_new_tokens=new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        return int((ids[:, longest:] != tokenizer.pad_token_id).sum())

    def answer(asked: Any, n: int, new_tokens: int) -> int:
        prompts = _prompts(settings, asked)
        if who == "best":
            return generated(prompts, n, new_tokens)
        return sum(generated([prompt], 1, new_tokens) for prompt in prompts for _ in range(n))

    return answer
