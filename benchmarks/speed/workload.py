"""What all contenders work on: a model of random weights, rows with prompts of a given length, pairs, an adapter."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from data import dialects
from data.transcript import Request, Tool, Transcript, requests_of
from data.world import WorldConfig, generate
from data.world.catalogue import CATALOGUE
from stages._settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

TINY = Path(__file__).resolve().parents[2] / "assets" / "tiny"


class Size(NamedTuple):
    """Shape of a Qwen3 with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int


SIZES = {  # 30m and 135m with a vocabulary of 32,768; the last two are shaped like the checkpoints of that name
    "toy": Size(64, 2, 1, 1, 64, 128),
    "30m": Size(384, 10, 6, 2, 64, 1152),
    "135m": Size(576, 33, 9, 3, 64, 1536),
    "0.6b": Size(1024, 28, 16, 8, 128, 3072),
    "1.7b": Size(2048, 28, 16, 8, 128, 6144),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: `kind` is sft, dpo or sampling; `size` one of SIZES, or tiny for the embedded model.

    `batch` is rows a step (pairs for dpo), `prompt_tokens` the mean length of prompts (None: as the world has them);
    `requests`, `samples` and `new_tokens` are for sampling. `same_rows`: as many rows as a step has, so that every step
    has them all, whatever the order.
    """

    kind: str
    size: str
    prompt_tokens: int | None = 1000
    batch: int = 4
    steps: int = 2
    warmup: int = 1
    requests: int = 4
    samples: int = 8
    new_tokens: int = 32
    vocabulary: int = 32768
    dtype: str = "auto"
    quantization: str = "none"
    same_rows: bool = False

    @property
    def rows(self) -> int:
        """Rows (or pairs) there are: enough for batches of like length to be found, as in a real run."""
        return self.batch if self.same_rows else max(16, self.warmup + self.steps) * self.batch


def prepare(work: Work, folder: Path) -> None:
    """Write model/, rows.jsonl, pairs/pairs.jsonl and sft/adapter into the folder, as far as the work needs them."""
    folder.mkdir(parents=True, exist_ok=True)
    if work.size != "tiny":
        _save_model(work, folder / "model")
    if work.kind == "sft":
        rows = [
            {
                "id": each.id,
                "tools": [tool.as_function() for tool in each.tools],
                "messages": [message.as_chat() for message in each.messages],
            }
            for each in transcripts(work, folder)
        ]
        _write(folder / "rows.jsonl", rows)
        return
    settings = settings_of(work, folder, "dpo")
    if work.kind == "dpo":
        (folder / "pairs").mkdir(exist_ok=True)
        _write(folder / "pairs" / "pairs.jsonl", _pairs(settings, requests(work, folder)))
    _save_adapter(settings, folder / "sft" / "adapter")


def settings_of(work: Work, folder: Path, stage: str) -> Settings:
    """The settings of a stage on this work, as `python train.py` would compose them."""
    from stages._refusals import compose
    from stages._refusals import settings_of as settled
    from stages._schema import publish

    publish()
    words = [f"stage={stage}", f"runs_dir={folder}/made", "run=ours", f"model.dtype={work.dtype}"]
    words += [f"model.quantization={work.quantization}"]
    if work.size != "tiny":
        words += [f"model.path={folder}/model", f"model.name={work.size}", "model.max_length=8192"]
    if stage == "sft":
        words += ["data=openai", f"data.train={folder}/rows.jsonl", "data.validation_share=0"]
        words += [f"data.test={folder}/rows.jsonl"]  # so that none of data.train is held out
    if stage in ("sft", "dpo"):
        block = [f"batch_size={work.batch}", f"max_steps={work.warmup + work.steps}", "epochs=1000", "log_every=1"]
        block += [f"learning_rate={LEARNING_RATE}", "schedule=constant", "warmup=0"]
        block += ["loss=[sigmoid]", "guard=off", "rejected_tokens=null"] if stage == "dpo" else []
        words += [f"{stage}.{setting}" for setting in block]
    return settled(*compose(words), words)


LEARNING_RATE = 1e-4  # the same for all contenders


def transcripts(work: Work, folder: Path) -> list[Transcript]:
    """Transcripts of the world, each with as many tools more as make its prompt as long as is wanted.

    Lengths are spread evenly from 0.6 to 1.4 of the mean.
    """
    count = work.requests if work.kind == "sampling" else work.rows
    made = generate(
        WorldConfig(sft_rows=count, preference_rows=1, validation_rows=1, test_rows=1, unseen_rows=0), 0
    ).sft
    if work.prompt_tokens is None:
        return made
    tokenizer, dialect = speech(settings_of_model(work, folder))
    dice = random.Random(0)
    order = list(range(count))
    dice.shuffle(order)
    spread = [0.6 + 0.8 * (place + 0.5) / count for place in order]
    return [
        _with_more_tools(tokenizer, dialect, each, round(share * work.prompt_tokens), dice)
        for each, share in zip(made, spread, strict=True)
    ]


def requests(work: Work, folder: Path) -> list[Request]:
    """What is asked at the first assistant turn of each transcript."""
    return [requests_of(each)[0] for each in transcripts(work, folder)]


def settings_of_model(work: Work, folder: Path) -> Any:
    """The `model` block for this work."""
    from stages._model import ModelConfig

    return ModelConfig(path=str(TINY if work.size == "tiny" else folder / "model"))


def dtype_of(who: str, model: Any) -> torch.dtype:
    """What the notebook or TRL at its best computes in, for a `model` block: in what is fastest on this machine, but
    that the notebook knows float32 alone on a CPU.
    """
    import torch

    from stages._model import compute_dtype, device

    if who == "notebook" and device() == "cpu":
        return torch.float32
    return compute_dtype(model, training=True)


def speech(model: Any) -> tuple[PreTrainedTokenizerBase, ModuleType]:
    """Tokenizer and dialect of a `model` block."""
    from stages._model import load_tokenizer

    return load_tokenizer(model), dialects.get(model.dialect)


def _with_more_tools(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, transcript: Transcript, tokens: int, dice: random.Random
) -> Transcript:
    from stages._sampling import encode, prompt_of

    own = {tool.name for tool in transcript.tools}
    others = [entry.tool for entry in CATALOGUE if entry.tool.name not in own]
    dice.shuffle(others)
    missing = tokens - len(encode(tokenizer, prompt_of(tokenizer, dialect, requests_of(transcript)[0])))
    more: list[Tool] = []
    while missing > 0:
        tool = others[len(more) % len(others)]
        if len(more) >= len(others):  # the catalogue is used up: again, under other names
            tool = dataclasses.replace(tool, name=f"{tool.name}_{len(more) // len(others) + 1}")
        more.append(tool)
        missing -= _tokens_of(tokenizer, tool.name, tool.description, json.dumps(tool.parameters))
    tools = [*transcript.tools, *more]
    dice.shuffle(tools)
    return dataclasses.replace(transcript, tools=tuple(tools))


@functools.lru_cache(maxsize=4096)
def _tokens_of(tokenizer: PreTrainedTokenizerBase, name: str, description: str, parameters: str) -> int:
    """How much longer a tool makes a prompt."""
    from stages._sampling import encode, render

    tool = Tool(name, description, json.loads(parameters)).as_function()
    chat = [{"role": "user", "content": "hello"}]
    twice, once = (len(encode(tokenizer, render(tokenizer, [tool] * times, chat, prompt=True))) for times in (2, 1))
    return twice - once


def _pairs(settings: Settings, asked: list[Request]) -> list[dict[str, Any]]:
    """Rows of pairs.jsonl: the turn of the data against that of another request."""
    from stages._sampling import completion_of, shown

    tokenizer, dialect = speech(settings.model)
    answers = [completion_of(tokenizer, dialect, each, each.gold) for each in asked if each.gold]
    rows = []
    for number, request in enumerate(asked):
        tools, prompt = shown(tokenizer, dialect, request.tools, request.messages)
        other = next(text for text in answers[number + 1 :] + answers[:number] if text != answers[number])
        rows.append(
            {"id": request.id, "prompt": prompt, "tools": tools, "margin": 1.0}
            | {"chosen": answers[number], "rejected": other}
        )
    return rows


def _save_model(work: Work, folder: Path) -> None:
    """Random weights, with the embedded model's tokenizer: its 4,096 tokens are the first of the vocabulary."""
    import torch
    from transformers import AutoTokenizer

    from stages import pretrain

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(0)
    config = pretrain.Config(vocabulary=work.vocabulary, **SIZES[work.size]._asdict())
    model = pretrain.build(config, tokenizer).to(torch.bfloat16)
    model.config.max_position_embeddings = 8192
    for each in (model.config, model.generation_config):
        each.eos_token_id, each.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_adapter(settings: Settings, folder: Path) -> None:
    """An adapter that changes what the base does, as one does that was trained."""
    import torch

    from stages._lora import AdapterConfig, with_fresh_adapter
    from stages._model import load_base, save_adapter

    model = with_fresh_adapter(load_base(settings.model), AdapterConfig(), settings.model, seed=0)
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.add_(0.01 * torch.randn_like(each))
    save_adapter(model, folder)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
