"""results.json as a table, and what its figures hold for."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.speed import chain, growth
from benchmarks.speed.training import CONTENDERS


def table(results: dict[str, Any]) -> str:
    """results.json as Markdown."""
    here = results["machine"]
    lines = [
        f"{here['processor'] or here['platform']}, {here['threads']} threads"
        f"{', ' + here['gpu'] if here['gpu'] else ''}; commit {results['commit']}.",
        "",
        "| | notebook | TRL at its best | ours | unit | ours to notebook | ours to best | pad efficiency | labelled |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in results.items():
        if isinstance(entry, dict) and "ratio" in entry:
            best, details = entry.get("against_best"), entry.get("contenders", {})
            shares = [
                " / ".join(_number(fields[key]) for fields in details.values() if fields.get(key)) or "-"
                for key in ("pad_efficiency", "labelled_share")
            ]
            cells = [name, *(_number(entry.get(who)) for who in CONTENDERS), entry["unit"]]
            cells += [_spread(entry), _spread(best) if best else "-", *shares]
            lines.append(f"| {' | '.join(cells)} |")
    if "sweep" in results:
        lines += ["", f"The sweep took {results['sweep']['over_trainings']:.2f} times its DPO trainings alone."]
    if "growth" in results:
        lines += ["", *growth.table(results["growth"])]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(entry: dict[str, float]) -> str:
    return f"{entry['ratio']:.3g} ({entry['low']:.3g} to {entry['high']:.3g})"


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    return {
        "processor": _processor(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> str:
    """The commit, and whether files differ from it."""
    told = [
        subprocess.run(["git", *words], cwd=chain.ROOT, capture_output=True, text=True, check=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno", "--", "*.py", "*.yaml"])
    ]
    return told[0] + (" with changes" if told[1] else "")


def _processor() -> str:
    """The name of this machine's processor."""
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return named.group(1).strip() if named else ""
