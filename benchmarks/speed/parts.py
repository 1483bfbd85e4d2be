"""The parts of the benchmark: each a function that returns its entries of results.json."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import chain, contest, growth, sampling, training, workload
from benchmarks.speed.contest import alone, middle, result
from benchmarks.speed.workload import Work

ALL = (
    *("startup", "scoring", "sft_tiny", "sft_30m", "sft_135m", "dpo_30m", "dpo_135m", "sampling_30m", "sampling_135m"),
    "sweep",
)


def measurement(part: str, chosen: argparse.Namespace) -> Callable[[Path], dict[str, Any]]:
    """What measures a part of this name, in a folder; SystemExit where there is no such part."""
    whole = {"scoring": scoring, "startup": startup, "sweep": sweep, "growth": growth.measure}.get(part)
    if whole:
        return functools.partial(whole, chosen)
    kind, _, size = part.partition("_")
    if kind not in ("sft", "dpo", "sampling") or size not in ("tiny", *workload.SIZES):
        raise SystemExit(
            f"{part}: no such part; there are {', '.join(ALL)}, growth, and sft, dpo and sampling with"
            f" {', '.join(workload.SIZES)}"
        )
    return functools.partial(models, part, work_of(kind, size, chosen), chosen)


def work_of(kind: str, size: str, chosen: argparse.Namespace) -> Work:
    """What is done in a part like sft_135m, with what the command line says otherwise."""
    work = Work(kind, size)
    if kind == "dpo":
        work = dataclasses.replace(work, batch=2)
    if size == "tiny":
        work = dataclasses.replace(work, prompt_tokens=None, batch=8, steps=12, warmup=2, new_tokens=64)
    given = ("batch", "steps", "prompt_tokens", "requests", "samples", "new_tokens", "quantization", "dtype")
    return dataclasses.replace(work, **{key: getattr(chosen, key) for key in given if getattr(chosen, key) is not None})


def _trained(work: Work, who: str, folder: Path) -> dict[str, Any]:
    return training.train(work, who, folder).as_dict()


def models(part: str, work: Work, chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A part that trains or samples: its entry, and that of the memory it took."""
    log = folder / f"{part}.log"
    alone(log, workload.prepare, work, folder / part)
    function = sampling.sample if work.kind == "sampling" else _trained
    flops = 4 * alone(log, weights, work, folder / part) if chosen.peak_tflops else 0

    def measure(who: str, turn: int) -> dict[str, Any]:
        fields = alone(log, function, work, who, folder / part)
        counted = "rows" if work.kind == "dpo" else "tokens"
        fields["rate"] = fields[counted] / fields["seconds"]
        fields["peak_gib"] = fields["peak_bytes"] / 2**30
        if flops and work.kind != "sampling":
            useful = min(fields["tokens"], fields["computed"])  # a prompt that both answers share is one
            fields["mfu"] = flops * useful / fields["seconds"] / (chosen.peak_tflops * 1e12)
        return fields

    found, seconds = contest.contest(part, training.CONTENDERS, chosen.rounds, measure)
    unit = {"sft": "real tokens a second", "dpo": "pairs a second", "sampling": "tokens a second"}[work.kind]
    entry = result(found, "rate", unit) | {"measured_in_seconds": seconds, "work": dataclasses.asdict(work)}
    entries = {part: entry}
    if work.kind != "sampling":
        memory = {who: [fields["peak_gib"] for fields in rows] for who, rows in found.items()}
        entries[f"memory_{part}"] = {who: statistics.median(values) for who, values in memory.items()} | {
            **contest.ratios(memory["ours"], memory["notebook"]),
            "unit": "GiB at the peak",
            "rounds": chosen.rounds,
        }
    return entries


def weights(work: Work, folder: Path) -> int:
    """Weights of the model that multiply each token: without embeddings, which are looked up."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(workload.settings_of_model(work, folder).path)
        )
    return sum(each.numel() for each in model.parameters()) - model.get_input_embeddings().weight.numel()


def scoring(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Completions of 1 kB, and of 150 bytes, scored a second of CPU time."""
    entries = {}
    for name, size in (("scoring", 1000), ("scoring_150_bytes", 150)):
        found, seconds = contest.contest(
            name,
            ("notebook", "ours"),
            chosen.rounds,
            lambda who, turn, size=size: alone(folder / "scoring.log", _scored, who, size, turn, chosen.completions),
        )
        entries[name] = result(found, "rate", "completions a second") | {"measured_in_seconds": seconds}
    return entries


def _scored(who: str, size: int, turn: int, count: int) -> dict[str, Any]:
    from benchmarks import scoring as judging

    judging.check(size)  # which also compiles the schema of each tool, done once a run, whatever its length
    score = judging.scored if who == "ours" else judging.validated
    made = judging.rows(count if who == "ours" else max(1, count // 20), size, f"{size} {turn}")
    return {"rate": judging.rate(score, made)}


def startup(chosen: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Until --help or an error is told, and until a notebook has imported what it works with."""
    for who in ("notebook", "ours"):
        chain.startup(who)  # reads from disk what is not in memory yet
    found, seconds = contest.contest("startup", ("notebook", "ours"), chosen.rounds, lambda who, _: chain.startup(who))
    entry = result(found, "seconds", "seconds", less_is_better=True)
    return {"startup": entry | {"measured_in_seconds": seconds}}


def sweep(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Twelve points that share what they can, against twelve runs: so many times one run, which takes turns with it."""
    points = min(chosen.points, len(chain.POINTS))

    def measure(who: str, turn: int) -> dict[str, Any]:
        if who == "ours":
            return chain.sweep(folder / f"sweep{turn}", chosen.share, points)
        one = chain.run(folder / f"sweep{turn}", chosen.share, turn)["seconds"]
        return {"seconds": points * one, "run_seconds": one}

    found, seconds = contest.contest("sweep", ("notebook", "ours"), chosen.sweep_rounds, measure)
    entry = result(found, "seconds", "seconds", less_is_better=True) | {"measured_in_seconds": seconds}
    entry |= contest.ratios(*([fields["seconds"] for fields in found[who]] for who in ("ours", "notebook")))
    entry["over_trainings"] = statistics.median(
        fields["seconds"] / fields["training_seconds"] for fields in found["ours"]
    )
    trained = middle(found, "ours", "trained")
    return {"sweep": entry | {"points": points, "points_trained": trained, "share_of_the_data": chosen.share}}
