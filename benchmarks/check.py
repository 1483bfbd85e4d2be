"""How fast rows are read and checked without tokens, and how much memory each of them takes.

    python -m benchmarks.check [megabytes]

Writes openai rows of about 1 kB, all different, into a temporary folder: a file of that size (200 by default) and one
of a quarter of it. stage=check looks at each in a process of its own, with check.encoded_rows=0. Rows a second are over
CPU time. Memory a row is the difference of both peaks over the difference in rows: what each row of a larger file adds.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from data.load import DataConfig
from rewards import RewardConfig
from stages import check
from stages._job import Job
from stages._model import ModelConfig
from stages._settings import RootConfig, Settings

PLACES = ("Oslo", "Rome", "Lima", "Cairo")
PROPERTIES = {
    "city": {"type": "string", "description": "Name of the place."},
    "unit": {"type": "string", "enum": ["metric", "imperial"]},
}
PARAMETERS = {"type": "object", "properties": PROPERTIES, "required": ["city"]}
TOOLS = [
    {
        "type": "function",
        "function": {"name": f"get_{what}", "description": f"Get the {what} of a place.", "parameters": PARAMETERS},
    }
    for what in ("weather", "population")
]


def row(number: int, rng: random.Random) -> dict[str, Any]:
    """A question, a call, its result, an answer."""
    city = f"{rng.choice(PLACES)} {number}"
    arguments = json.dumps({"city": city, "unit": "metric"})
    call = {"id": f"c{number}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    chat = [
        {"role": "user", "content": f"What is the weather of {city}, please? I shall be there on day {number}."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": json.dumps({"degrees": number})},
        {"role": "assistant", "content": f"It is {number} degrees in {city}."},
    ]
    return {"messages": chat, "tools": TOOLS}


def write(file: Path, megabytes: float) -> None:
    """A file of about this size."""
    rng, number = random.Random(0), 0
    with file.open("wb") as out:
        while out.tell() < megabytes * 1_000_000:
            out.write(json.dumps(row(number, rng)).encode() + b"\n")
            number += 1


def measured(file: Path) -> tuple[int, float, int]:
    """Rows, seconds of CPU time, and the most bytes of memory that the process ever held."""
    blocks = {
        "check": check.Config(encoded_rows=0),
        "data": DataConfig(format="openai", train=str(file)),
        "model": ModelConfig(),
        "reward": RewardConfig(),
    }
    job = Job("check", Settings("check", RootConfig(), blocks), file.with_suffix(""), {}, False)
    began = time.process_time()
    metrics = check.run(job)
    seconds = time.process_time() - began
    if metrics["rows_kept"] != metrics["rows_in"] or metrics["problems"]:
        raise ValueError(f"these rows were to be clean: {metrics['problems']}")
    return metrics["rows_in"], seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(megabytes: float) -> None:
    """Write, check, and say what it took."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for part in (megabytes / 4, megabytes):
            file = Path(folder) / f"{part:g}.jsonl"
            write(file, part)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                found.append(process.submit(measured, file).result())
            rows, seconds, peak = found[-1]
            print(
                f"{part:g} MB, {rows:,} rows of {file.stat().st_size / rows:.0f} bytes: {rows / seconds:,.0f} rows a"
                f" second of CPU time, {peak / 1e6:.0f} MB of memory at most"
            )
    (few, _, low), (many, _, high) = found
    print(f"{(high - low) / (many - few):.0f} bytes of memory a row")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 200)
