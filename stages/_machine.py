"""The machine a stage runs on: threads, seeds and noise before it, versions and peak memory after it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import logging
import os
import platform
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from stages._schema import ROOT
from stages._settings import Settings

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "tokenizers", "safetensors"),
    *("numpy", "pydantic", "hydra-core", "jsonschema-rs"),
)


def prepare(settings: Settings, heavy: bool) -> int:
    """Seeds and threads for this stage, noise of the pinned libraries off; returns the number of threads."""
    threads = settings.root.threads or _asked_threads() or _physical_cores()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # How long a thread spins before it sleeps, read when torch is first loaded. LoRA steps of the embedded model on two
    # threads, tokens/s alone and next to one busy process: libgomp's own 7,500 and 1,600; sleeping at once 5,000 and
    # 3,100; 10,000 turns 7,600 and 2,000.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL's trainers report each start otherwise
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it deadlocks after a fork, and says so on every start
    if not sys.stderr.isatty() or (heavy and Path(settings.model.path).expanduser().is_dir()):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # loading from disk is short; downloads keep theirs
    # TRL's own default still has the name transformers 5 renamed (LoRA recipes cannot help it).
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    # bitsandbytes looks for an optional CPU kernel on every import and falls back to its own.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    random.seed(settings.seed)
    if heavy:
        import numpy
        import torch

        numpy.random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        torch.set_num_threads(threads)
        _keep_freed_memory()
    return threads


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that tensors free, where it would hand it back at each step to ask for it again.

    On two cores, pages that came back zeroed were a tenth of the time of stage=sft on the embedded model, a sixth of
    stage=dpo's and a fifth of a fine-tuning step with 135 M weights; the peak is the same within 4 %. `free_memory`
    hands back what is free. Other C libraries keep to their own ways.
    """
    if mallopt := _of_libc("mallopt"):
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # bytes, the highest that it takes: blocks above it are mapped one by one
        mallopt(_TRIM_THRESHOLD, -1)  # never


def _of_libc(name: str) -> Any:
    """A function of the C library, None where there is none of this name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _asked_threads() -> int:
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(first) if first.isdigit() else 0


def _physical_cores() -> int:
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def machine(threads: int) -> dict[str, Any]:
    """Versions, platform and commit: what else could explain a difference."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": threads,
        "versions": versions,
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def free_memory() -> None:
    """Let go of what a job has left behind, before the next one in this process."""
    gc.collect()
    if malloc_trim := _of_libc("malloc_trim"):
        malloc_trim(0)
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def reset_peak_memory() -> None:
    """Let the peak start anew, so that each stage has its own (on Linux; elsewhere it is that of the process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Highest resident memory in bytes since the reset, and the GPU's where there is one."""
    peak = {}
    try:
        status = Path("/proc/self/status").read_text()
        peak["host_bytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["host_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        peak["gpu_bytes"] = torch.cuda.max_memory_reserved()
    return peak
