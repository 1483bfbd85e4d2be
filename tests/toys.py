"""Toy checkpoints for tests: random weights of real architectures, saved with a tokenizer and a chat template."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import dialects

ROOT = Path(__file__).resolve().parents[1]

CHATML = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}<|im_start|>assistant
{% generation %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- if not loop.first or message.content %}{{ '\n' }}{% endif %}<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>{% endgeneration %}{{ '\n' }}
{%- elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# What each preset's checkpoint is made of: architecture, the template TRL bundles for it, its special tokens.
FAMILIES: dict[str, dict[str, Any]] = {
    "toy": {"architecture": "qwen3", "eos": "<|im_end|>", "pad": "<|endoftext|>", "special": ["<|im_start|>"]},
    "qwen3": {
        "architecture": "qwen3",
        "template": "qwen3",
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
        "special": ["<|im_start|>"],
        "plain": ["<think>", "</think>"],
    },
    "llama3_2": {
        "architecture": "llama",
        "template": "llama3_2",
        "eos": "<|eot_id|>",
        "bos": "<|begin_of_text|>",
        "special": ["<|start_header_id|>", "<|end_header_id|>"],
    },
    "smollm2": {"architecture": "llama", "eos": "<|im_end|>", "pad": "<|endoftext|>", "special": ["<|im_start|>"]},
    "gemma3": {
        "architecture": "gemma3_text",
        "template": "gemma3",
        "eos": "<eos>",
        "bos": "<bos>",
        "pad": "<pad>",
        "special": ["<start_of_turn>", "<end_of_turn>"],
    },
    "tiny_aya": {
        "architecture": "cohere2",
        "template": "cohere2",
        "eos": "<|END_OF_TURN_TOKEN|>",
        "bos": "<BOS_TOKEN>",
        "pad": "<PAD>",
        "special": [
            *("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
            *("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ],
    },
}


# Every dialect with every template that can render it: native needs one that knows tools and several calls a turn.
SPOKEN = [
    (family, dialect)
    for family in FAMILIES
    for dialect in dialects.names()
    if dialect != "native" or family in ("toy", "qwen3")
]


@functools.lru_cache(maxsize=16)
def preset_tokenizer(family: str) -> Any:
    """The toy tokenizer of a family, its template's variables fixed as the preset does."""
    from stages._model import fixed_variables

    tokenizer = toy_tokenizer(family)
    variables: dict[str, dict[str, bool | str]] = {
        "qwen3": {"enable_thinking": False},
        "llama3_2": {"date_string": "26 Jul 2024"},
    }
    tokenizer.chat_template = fixed_variables(variables.get(family, {})) + tokenizer.chat_template
    return tokenizer


def toy_tokenizer(family: str = "toy") -> Any:
    """A byte-level BPE of 1,024 tokens with the family's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    kind = FAMILIES[family]
    special = [token for token in (kind.get("pad"), kind["eos"], kind.get("bos")) if token] + kind["special"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "data").glob("*.py"))]
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    bpe.train_from_iterator(text, trainer)
    names = {"eos_token": kind["eos"], "pad_token": kind.get("pad"), "bos_token": kind.get("bos")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **{key: token for key, token in names.items() if token})
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", *kind.get("plain", [])])
    tokenizer.chat_template = chat_template(family)
    return tokenizer


def chat_template(family: str) -> str:
    """The template TRL bundles for the family, or ours."""
    import trl

    name = FAMILIES[family].get("template")
    if name is None:
        return CHATML
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def toy_model(family: str, vocabulary: int, hidden: int = 128, layers: int = 2) -> Any:
    """Random weights of the family's architecture; every size a multiple of 64."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": -(-vocabulary // 64) * 64,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    architecture = FAMILIES[family]["architecture"]
    if architecture in {"gemma3_text", "cohere2"}:
        sizes |= {"sliding_window": 32, "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"]}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes))


def toy_checkpoint(folder: Path, family: str = "toy", hidden: int = 128, layers: int = 2) -> Path:
    """Save a toy model of the family with its tokenizer; returns the folder."""
    tokenizer = toy_tokenizer(family)
    model = toy_model(family, len(tokenizer), hidden, layers)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        config.bos_token_id = tokenizer.bos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def toy_rows(count: int = 48) -> list[dict[str, Any]]:
    """Rows in the openai format: calls of two tools with results and final answers, and every third without a call."""
    tools = [
        {
            "name": f"get_{what}",
            "description": f"Get the {what} of a place.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
        for what in ("weather", "population")
    ]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        city = ("Oslo", "Rome", "Lima", "Cairo", "Paris", "Delhi", "Quito")[number % 7]
        what = ("weather", "population")[number % 2]
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"Hello, I am visitor {number}."}]
        answer = {"role": "assistant", "content": f"Welcome, visitor {number}."}
        if number % 3:
            call = {"id": f"c{number}", "function": {"name": f"get_{what}", "arguments": {"city": city}}}
            messages = [
                {"role": "user", "content": f"What is the {what} of {city}?{' Please.' * (number % 5)}"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"c{number}", "content": f'{{"value": {number}}}'},
            ]
            answer = {"role": "assistant", "content": f"It is {number}."}
        rows.append({"id": f"row{number}", "tools": tools, "messages": [*messages, answer]})
    return rows


def needs_extra(overrides: list[str]) -> None:
    """Skip a test whose overrides choose a launcher or sweeper that is not installed."""
    import pytest

    from stages._errors import UserError
    from stages._sweep import check_extras

    try:
        check_extras(overrides)
    except UserError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def interrupted(place: str, step: int, signum: int = signal.SIGINT) -> Iterator[None]:
    """Within, a signal comes when the stage whose folder ends in `place` logs this step; Interrupted has to follow."""
    import pytest

    from stages._errors import Interrupted
    from stages._job import Job

    plain = Job.log

    def log(job: Job, row: dict[str, Any]) -> None:
        plain(job, row)
        if row.get("step") == step and job.folder.as_posix().endswith(f"/{place}"):
            os.kill(os.getpid(), signum)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Job, "log", log)
        with pytest.raises(Interrupted):
            yield


def moved(model: Any) -> None:
    """Change what training would change, always alike."""
    import torch

    torch.manual_seed(2)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.05 * torch.randn_like(one))


def toy_settings(folder: Path, stage: str, checkpoint: Path, seed: int = 0, **blocks: dict[str, Any]) -> Any:
    """Validated settings of a run in `folder` on a toy checkpoint and the toy rows; blocks change what they name."""
    from stages._validate import validate

    rows = folder / "rows.jsonl"
    if not rows.exists():
        rows.write_text("".join(json.dumps(row) + "\n" for row in toy_rows()), encoding="utf-8")
    data = {"format": "openai", "train": str(rows), "test_share": 0.2, "validation_share": 0.2}
    model = {"path": str(checkpoint), "micro_batch": 8, "learning_rate": 3e-3, "preference_learning_rate": 3e-4}
    tree: dict[str, Any] = {"run": "toy", "runs_dir": str(folder / "runs"), "seed": seed, "threads": 1, "data": data}
    return validate(tree | {"model": model | blocks.pop("model", {})} | blocks, stage)
