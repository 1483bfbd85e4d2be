"""Pretrain the embedded base model from scratch on the built-in corpus: reading, choosing, copying, single digits.

    python train.py stage=pretrain run=base                          # the recipe of assets/tiny: hours on two cores
    python train.py stage=pretrain run=base pretrain.install=true    # and put the result into assets/tiny
    python train.py stage=pretrain model=tiny_student run=student pretrain.install=true    # a model for stage=distill

One file, one loop: a small Qwen3 decoder, Muon for the matrices and AdamW for the rest, a schedule that warms up, holds
and decays, batches of documents of like length (right-padded under causal attention, so no mask is needed), the loss on
answers alone. Resumes from its last snapshot. The recipe of another model than tiny stands in conf/pretraining/ under
its name. Left out on purpose: several processes, and any tool call in the corpus.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from stages._errors import UserError
from stages._files import read_json, write_text
from stages._manifest import read_manifest
from stages._model import ROOT, device, fast_in_bfloat16
from stages._tokens import CONTROL, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    from data.corpus import Document
    from stages._job import Job

PARENTS: tuple[str, ...] = ()
BLOCKS: tuple[str, ...] = ()

TEMPLATE = ROOT / "assets" / "tiny" / "chat_template.jinja"
_TOKENIZER_DOCUMENTS = 20_000
_POOL = 512  # documents sorted by length at once: enough that a batch wastes under 5 % on padding
_ROUND = 64  # lengths are padded to multiples of this, so that a compiled model sees few shapes


class Config(BaseModel):
    """How the embedded model is made."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("install",)

    hidden: int = Field(256, ge=64, multiple_of=64)
    """Width of the model."""
    layers: int = Field(6, ge=1)
    """Decoder layers."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    kv_heads: int = Field(2, ge=1)
    """Heads of keys and values."""
    head_width: int = Field(64, ge=16)
    """Width of one head."""
    intermediate: int = Field(768, ge=64, multiple_of=64)
    """Width of the feed-forward layers."""
    vocabulary: int = Field(4096, ge=512, multiple_of=64)
    """Tokens of the tokenizer, added ones included."""
    tokenizer: str | None = None
    """Folder of a checkpoint whose tokenizer and chat template are taken; without it, a tokenizer is trained."""
    tokens: int = Field(30_000_000, ge=1000)
    """Tokens to train on, padding excluded."""
    batch_tokens: int = Field(6_144, ge=256)
    """Tokens of one step, padding included."""
    matrix_learning_rate: float = Field(0.01, gt=0)
    """Step size of Muon, for the matrices of the layers."""
    learning_rate: float = Field(2e-3, gt=0)
    """Step size of AdamW, for embeddings and norms."""
    warmup: float = Field(0.01, ge=0, le=1)
    """Share of the tokens over which step sizes rise."""
    decay: float = Field(0.9, ge=0, le=1)
    """Share of the tokens, at the end, over which they fall to zero."""
    random_copies: float = Field(0.04, ge=0, le=1)
    """Share of rows of random tokens to repeat; seven times as many in the first tenth, where copying has to appear."""
    probe_documents: int = Field(150, ge=10)
    """Held-out documents of each probe while training."""
    final_documents: int = Field(1000, ge=10)
    """Held-out documents of the last probe, whose figures go into the card."""
    probes: int = Field(12, ge=1)
    """How often the probes are run."""
    compile: bool = False
    """Compile the model first: takes two minutes and, on a CPU, a C++ compiler; then 1.4 times as fast on two cores."""
    start: str | None = None
    """Folder of a checkpoint to go on from: its weights, sizes and tokenizer, with step sizes of its own."""
    install: bool = False
    """Copy the result to assets/<model.name>, over what is there."""


CARD = """---
license: apache-2.0
library_name: transformers
---

# {name}: pretrained on made-up catalogues

A Qwen3 decoder of {weights:.2f} M weights, pretrained from scratch on a made-up corpus (`data/corpus/`): {shape}.
It is a test bench, small enough to be fine-tuned on a laptop within minutes. It never saw a tool call, and knows no
English beyond the words of its corpus.

    {command}

{tokens:.1f} M tokens, {hours:.1f} hours on {threads} threads ({platform}), commit {commit}. bf16 safetensors.{start}

What it can do, measured on held-out documents of the corpus: greedy answers that are right to the last token.

| skill | right | answers |
|---|---|---|
{skills}

`choose` names the entry of a catalogue that serves a request, `choose_none` says that none does, `record` writes what
a request mentions as JSON, `record_at_once` without naming the entry first, `dispatch` both in one object, `missing`
names required fields that a request lacks, `dispatch_again` asks the same for another value, `say` repeats a word,
`say_instead` takes a request back, `not_wanted` names a deed that is not to be done, `known` asks what was told just
before, `tell` puts a field of a record into a sentence and `repeat` says that again, `talk` replies to small talk (one
of several fitting replies is drawn, so that no answer to it can be foreseen), `read` answers from a text. Requests in
everyday language are worded as in training, with other values. What it cannot do: call tools, hold a conversation, know
other facts.
"""


@dataclass(slots=True)
class Row:
    """Token ids, and for each token the number of the turn whose answer it belongs to (-1: no answer)."""

    ids: list[int]
    turn: list[int]


class Writer:
    """Documents as rows. It writes what the chat template renders (a test holds the two together), 50 times faster."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.encode = tokenizer.backend_tokenizer.encode
        self.user = self._ids("<|im_start|>user\n")
        self.assistant = self._ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end, self.newline = self._ids("<|im_end|>"), self._ids("\n")

    def _ids(self, text: str) -> list[int]:
        return self.encode(text, add_special_tokens=False).ids

    def row(self, document: Document) -> Row:
        ids: list[int] = []
        turn: list[int] = []
        if document.tools:
            ids += self._ids(
                "<|im_start|>system\n"
                + "\n".join(["# Tools", *("\n" * (not n) + signature(one) for n, one in enumerate(document.tools))])
                + "<|im_end|>\n"
            )
        turn += [-1] * len(ids)
        for number, one in enumerate(document.turns):
            question = self.user + self._ids(one.question) + self.assistant
            answer = self._ids(one.answer) + self.end
            ids += question + answer + self.newline
            turn += [-1] * len(question) + [number] * len(answer) + [-1]
        return Row(ids, turn)

    def random_copy(self, rng: random.Random) -> Row:
        """A span of random tokens, call tags among them, to be repeated: every embedding gets a use in copying."""
        span = [rng.randrange(len(CONTROL), len(self.tokenizer)) for _ in range(rng.randint(4, 40))]
        question = self.user + self._ids("Repeat: ") + span + self.assistant
        answer = span + self.end
        return Row(question + answer + self.newline, [-1] * len(question) + [0] * len(answer) + [-1])


def signature(tool: Any) -> str:
    """A tool as the chat template shows it: its description as a comment, then name and fields (made-up tools only)."""
    required = set(tool.parameters["required"])
    fields = ", ".join(
        f"{name}{'' if name in required else '?'}: "
        + ("|".join(json.dumps(one) for one in schema["enum"]) if "enum" in schema else schema["type"])
        + (f" /* {schema['description']} */" if "description" in schema else "")
        for name, schema in tool.parameters["properties"].items()
    )
    return f"// {tool.description}\n{tool.name}({fields})"


def corpus_texts(rng: random.Random, documents: int) -> Iterator[str]:
    """Text for the tokenizer: documents, and every word of the lexicon often enough to become one token."""
    from data.corpus import draw  # here and below, since every command reads this file for its settings
    from data.corpus.lexicon import vocabulary

    for _ in range(documents):
        document = draw(rng)
        for tool in document.tools:
            yield signature(tool)
        for turn in document.turns:
            yield f"{turn.question}\n{turn.answer}"
    for word in vocabulary():
        yield from [word] * 300


def batches(writer: Writer, rng: random.Random, config: Config, seen: int) -> Iterator[list[Row]]:
    """Batches of rows of like length, without end. `seen` tokens have been trained on before."""
    from data.corpus import draw

    while True:
        rows = []
        for _ in range(_POOL):
            early = config.start is None and seen < config.tokens / 10
            share = config.random_copies * (7 if early else 1)
            row = writer.random_copy(rng) if rng.random() < share else writer.row(draw(rng))
            seen += len(row.ids)
            rows.append(row)
        rows.sort(key=lambda row: len(row.ids))
        pool: list[list[Row]] = []
        batch: list[Row] = []
        longest = 0
        for row in rows:
            padded = -(-len(row.ids) // _ROUND) * _ROUND
            if batch and max(longest, padded) * (len(batch) + 1) > config.batch_tokens:
                pool.append(batch)
                batch, longest = [], 0
            batch.append(row)
            longest = max(longest, padded)
        pool.append(batch)
        rng.shuffle(pool)
        yield from pool


def tensors(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and turn numbers, both [rows, length]."""
    import torch

    length = -(-max(len(row.ids) for row in rows) // _ROUND) * _ROUND
    ids = torch.full((len(rows), length), pad)
    turn = torch.full((len(rows), length), -1)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        turn[place, : len(row.ids)] = torch.tensor(row.turn)
    return ids.to(device()), turn.to(device())


def build(config: Config, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 decoder of this size with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_width,
            intermediate_size=config.intermediate,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def answer_logits(
    model: Qwen3ForCausalLM, body: Any, ids: torch.Tensor, turn: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [answer tokens, vocabulary] where an answer token comes next, and those tokens."""
    import torch

    with torch.autocast(ids.device.type, torch.bfloat16, enabled=fast_in_bfloat16()):
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state
        labelled = turn[:, 1:] >= 0
        logits = model.lm_head(hidden[:, :-1][labelled])
    return logits.float(), ids[:, 1:][labelled]


def probe(model: Qwen3ForCausalLM, body: Any, writer: Writer, documents: list[Document]) -> dict[str, list[bool]]:
    """Whether each answer is right to the last token, by skill.

    A greedy answer is right exactly if every token is the most likely one after the right tokens before it.
    """
    import torch

    order = sorted(range(len(documents)), key=lambda place: len(documents[place].turns))
    right: dict[str, list[bool]] = {}
    model.eval()
    with torch.no_grad():
        for first in range(0, len(order), 16):
            chosen = [documents[place] for place in order[first : first + 16]]
            ids, turn = tensors([writer.row(document) for document in chosen], writer.tokenizer.pad_token_id)
            logits, wanted = answer_logits(model, body, ids, turn)
            hits = torch.zeros(turn[:, 1:].shape, dtype=torch.bool, device=ids.device)
            hits[turn[:, 1:] >= 0] = logits.argmax(-1) == wanted
            for place, document in enumerate(chosen):
                for number, one in enumerate(document.turns):
                    tokens = hits[place][turn[place, 1:] == number]
                    right.setdefault(one.skill, []).append(bool(tokens.all()))
    model.train()
    return dict(sorted(right.items()))


def held_out(seed: int, count: int) -> list[Document]:
    """Documents that training draws with another generator, and so with other catalogues and values."""
    from data.corpus import draw

    rng = random.Random(f"probe {seed}")
    return [draw(rng) for _ in range(count)]


def optimizers(model: Qwen3ForCausalLM, config: Config) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024: orthogonalised momentum) for matrices, AdamW for embeddings and norms."""
    import torch

    matrices = [one for name, one in model.named_parameters() if one.ndim == 2 and "embed" not in name]
    others = [one for name, one in model.named_parameters() if one.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=config.matrix_learning_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def pace(config: Config, seen: int) -> float:
    """Factor of the step sizes after `seen` tokens: rise, hold, fall to zero."""
    done = seen / config.tokens
    return max(
        0.0,
        min(1.0, done / config.warmup if config.warmup else 1.0, (1 - done) / config.decay if config.decay else 1.0),
    )


def save_state(model: Qwen3ForCausalLM, optimizers: list[torch.optim.Optimizer], folder: Path, seen: int) -> None:
    """Weights and optimizer state as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    tensors_by_name = {f"model.{name}": one.detach().cpu() for name, one in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for place, state in enumerate(
            optimizer.state[one] for group in optimizer.param_groups for one in group["params"]
        ):
            tensors_by_name |= {f"optimizer.{number}.{place}.{key}": one.cpu() for key, one in state.items()}
    temporary = folder / ".snapshot.tmp"
    save_file(tensors_by_name, temporary, metadata={"seen": str(seen)})
    temporary.replace(folder / "snapshot.safetensors")


def load_state(model: Qwen3ForCausalLM, optimizers: list[torch.optim.Optimizer], folder: Path) -> int:
    """Take up the snapshot in `folder`, if there is one; tokens seen so far."""
    import torch
    from safetensors import safe_open

    file = folder / "snapshot.safetensors"
    if not file.exists():
        return 0
    with safe_open(file, framework="pt") as stored:
        names = set(stored.keys())
        with torch.no_grad():
            for name, one in model.named_parameters():
                one.copy_(stored.get_tensor(f"model.{name}"))
        for number, optimizer in enumerate(optimizers):
            for place, one in enumerate(one for group in optimizer.param_groups for one in group["params"]):
                prefix = f"optimizer.{number}.{place}."
                optimizer.state[one] = {
                    name.removeprefix(prefix): stored.get_tensor(name).to(one.device if "step" not in name else "cpu")
                    for name in names
                    if name.startswith(prefix)
                }
        return int(stored.metadata()["seen"])


def export(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A plain checkpoint: bf16 safetensors, tokenizer, chat template; loads in transformers with nothing of ours."""
    import copy

    import torch

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(job: Job) -> dict[str, Any]:
    """Train; the model lies in pretrain/model at the end. Returns the last probes, tokens and seconds."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    config, folder = job.config, job.folder
    torch.manual_seed(job.seed)
    start = Path(config.start) if config.start else None
    if start and not (start / "model.safetensors").is_file():
        raise UserError(f"pretrain.start: {start} holds no model.safetensors; name the folder of a checkpoint")
    if taken := start or taken_tokenizer(config):
        PreTrainedTokenizerFast.from_pretrained(taken).save_pretrained(folder / "tokenizer")
    elif not (folder / "tokenizer").exists():
        texts = corpus_texts(random.Random(f"tokenizer {job.seed}"), _TOKENIZER_DOCUMENTS)
        train_tokenizer(texts, config.vocabulary, TEMPLATE.read_text(encoding="utf-8")).save_pretrained(
            folder / "tokenizer"
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    if len(tokenizer) > config.vocabulary and not start:
        raise UserError(
            f"pretrain.vocabulary={config.vocabulary}: the tokenizer of {taken} has {len(tokenizer)} tokens; as many,"
            " rounded up to a multiple of 64, are the least"
        )
    fresh = build(config, tokenizer)
    model = Qwen3ForCausalLM.from_pretrained(start, dtype=torch.float32) if start else fresh
    model = model.to(device()).train()
    body = torch.compile(model.model, dynamic=True) if _compiles(job) else model.model
    writer, steppers = Writer(tokenizer), optimizers(model, config)
    rates = [stepper.param_groups[0]["lr"] for stepper in steppers]
    seen = load_state(model, steppers, folder)
    weights = sum(one.numel() for one in model.parameters())
    job.say(
        f"{weights / 1e6:.2f} M weights, {len(tokenizer)} tokens of vocabulary, {seen / 1e6:.1f} M tokens seen so far"
    )
    bar, began, first, loss = job.bar(config.tokens, "training", seen), time.monotonic(), seen, None
    probes = held_out(job.seed, config.probe_documents)
    for lap in range(config.probes):
        goal = config.tokens * (lap + 1) // config.probes
        if seen >= goal:
            continue
        # Each lap has a generator of its own, so that a run taken up at a snapshot sees the same rows.
        stream, losses = batches(writer, random.Random(f"corpus {job.seed} {lap}"), config, seen), []
        while seen < goal:
            for stepper, rate in zip(steppers, rates, strict=True):
                stepper.param_groups[0]["lr"] = rate * pace(config, seen)
            rows = next(stream)
            losses.append(step(model, body, steppers, *tensors(rows, tokenizer.pad_token_id)))
            seen += sum(len(row.ids) for row in rows)
            bar.update(min(seen, config.tokens), f"loss {losses[-1]:.3f}")
        shares = {skill: sum(right) / len(right) for skill, right in probe(model, body, writer, probes).items()}
        save_state(model, steppers, folder, seen)
        loss, speed = sum(losses) / len(losses), (seen - first) / (time.monotonic() - began)
        job.log({"step": seen, "loss": loss, "tokens_per_second": speed} | shares)
        told = ", ".join(f"{skill} {share:.0%}" for skill, share in shares.items())
        job.say(f"{seen / 1e6:.1f} M tokens, loss {loss:.3f}; {told}")
    bar.close()
    export(model, tokenizer, folder / "model")
    shipped = type(model).from_pretrained(folder / "model", dtype=torch.float32).to(device())
    final = probe(shipped, shipped.model, writer, held_out(job.seed, config.final_documents))
    return {"tokens": seen, "weights": weights, "loss": loss} | {
        name: value
        for skill, right in final.items()
        for name, value in ((f"{skill}_right", sum(right) / len(right)), (f"{skill}_n", len(right)))
    }


def taken_tokenizer(config: Config) -> Path | None:
    """The folder whose tokenizer is taken, looked for from here and from the project's root."""
    if config.tokenizer is None:
        return None
    for place in (Path(config.tokenizer), ROOT / config.tokenizer):
        if (place / "tokenizer.json").is_file():
            return place
    raise UserError(
        f"pretrain.tokenizer: {config.tokenizer} holds no tokenizer.json; name the folder of a checkpoint, or leave it"
        " out to have one trained"
    )


def after(job: Job) -> None:
    """Put the model where its preset looks for it, if that was asked for."""
    if job.config.install:
        target = ROOT / "assets" / job.settings.model.name
        shutil.copytree(job.folder / "model", target, dirs_exist_ok=True)
        write_text(target / "README.md", card(job))
        job.say(f"installed in {target}")


def card(job: Job) -> str:
    """The model card: the recipe, and what came of it."""
    manifest = read_manifest(job.folder) or {}
    metrics = read_json(job.folder / "metrics.json") or {}
    skills = [name.removesuffix("_right") for name in metrics if name.endswith("_right")]
    rows = [f"| {skill} | {metrics[f'{skill}_right']:.1%} | {metrics[f'{skill}_n']} |" for skill in skills]
    config, name = job.config, job.settings.model.name
    return CARD.format(
        name=name,
        weights=metrics["weights"] / 1e6,
        tokens=metrics["tokens"] / 1e6,
        hours=manifest["seconds"] / 3600,
        threads=manifest["threads"],
        platform=manifest["platform"].split("-")[0],
        command=f"python train.py {shlex.join(manifest['overrides'])}",
        shape=f"{config.layers} layers of width {config.hidden}, {config.heads} heads of {config.head_width} "
        f"({config.kv_heads} of keys and values), {config.intermediate} in the feed-forward layers, "
        f"{config.vocabulary} tokens, tied embeddings",
        skills="\n".join(rows),
        commit=(manifest.get("git") or {}).get("commit"),
        start=f"\nIt went on from the weights in `{config.start}` at that commit; their card says how they were made."
        if config.start
        else "",
    )


def step(
    model: Qwen3ForCausalLM, body: Any, steppers: list[torch.optim.Optimizer], ids: torch.Tensor, turn: torch.Tensor
) -> float:
    """One step of all optimizers on one batch; the mean loss of its answer tokens, in nats."""
    import torch

    logits, wanted = answer_logits(model, body, ids, turn)
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad(set_to_none=True)
    return loss.item()


def _compiles(job: Job) -> bool:
    if job.config.compile and device() == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        job.say("no C++ compiler found: going on uncompiled")
        return False
    return bool(job.config.compile)
