"""What is measured on the project as a whole: how soon it answers, and what a sweep over rewards costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
POINTS = (-1, -2, -3, -4, -5, -6, -8, -10, -12, -15, -20, -30)  # reward.needless_call
NOTEBOOK_IMPORTS = """\
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
"""


def startup(who: str) -> dict[str, Any]:
    """Seconds until the first answer: of --help and of a configuration error, or of a notebook's first cell."""
    if who == "notebook":
        return {"seconds": _timed([sys.executable, "-c", NOTEBOOK_IMPORTS], 0)}
    helped = _timed([sys.executable, "train.py", "--help"], 0)
    refused = _timed([sys.executable, "train.py", "stage=sft", "sft.rank=-1"], 2)
    return {"seconds": max(helped, refused), "help_seconds": helped, "error_seconds": refused}


def _timed(command: list[str], status: int) -> float:
    # Modules are compiled on their first import and kept, as for any user who has not forbidden it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


def reduced(share: float) -> list[str]:
    """Overrides that make the data of the main job this much smaller."""
    from data.world import WorldConfig

    rows = WorldConfig()
    sizes = {
        name: max(32, round(share * getattr(rows, name)))
        for name in ("sft_rows", "preference_rows", "validation_rows", "test_rows")
    }
    return [f"data.world.{name}={size}" for name, size in sizes.items()]


def sweep(folder: Path, share: float, points: int) -> dict[str, Any]:
    """Seconds of a sweep from nothing to its last adapter, and the seconds that its DPO trainings took of it."""
    words = [*reduced(share), f"runs_dir={folder}", "run=sweep"]
    began = time.perf_counter()
    _train("stage=sft", *words)
    fine_tuned = time.perf_counter() - began
    values = ",".join(map(str, POINTS[:points]))
    _train("-m", "stage=dpo", f"reward.needless_call={values}", "sweep.name=sweep", *words)
    seconds = time.perf_counter() - began
    trainings = train_seconds(folder / "sweep" / "sweeps" / "sweep")
    return {"seconds": seconds, "sft_seconds": fine_tuned, "points": points, "trained": len(trainings)} | {
        "training_seconds": sum(trainings)
    }


def train_seconds(folder: Path) -> list[float]:
    """What each DPO training of a sweep took; what a point took over from another one was not trained."""
    return [
        json.loads((place.parent / "metrics.json").read_text(encoding="utf-8"))["train_seconds"]
        for place in sorted(folder.glob("*/dpo/manifest.json"))
        if not json.loads(place.read_text(encoding="utf-8"))["identical_to"]
    ]


def run(folder: Path, share: float, number: int) -> dict[str, Any]:
    """Seconds of one point by itself: fine-tuning, samples, pairs, DPO, in a run of its own."""
    words = [*reduced(share), f"runs_dir={folder}", f"run=run{number}"]
    began = time.perf_counter()
    _train("stage=sft", *words)
    _train("stage=dpo", f"reward.needless_call={POINTS[number % len(POINTS)]}", *words)
    return {"seconds": time.perf_counter() - began}


def _train(*words: str) -> None:
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"train.py {' '.join(words)}: exit {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        )
