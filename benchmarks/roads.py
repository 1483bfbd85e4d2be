"""Roads from the same fine-tuned model to an aligned one, on the same requests: the tables of the README.

    python -m benchmarks.roads losses                                     # every road of a table; again: goes on
    python -m benchmarks.roads losses --seeds 0 --only reward_aware ipo   # some of it
    python -m benchmarks.roads roads                                      # preference losses, GRPO and PPO
    python -m benchmarks.roads seeds                                      # the default pipeline at seeds 0, 1 and 2

Each road of each seed is a run of its own, runs/roads_<seed>_<road>, which starts as a copy of the seed's fine-tuned
run with its pairs: nothing is fine-tuned or sampled twice, and what is done with the same inputs is not done again.
Rates are per cent on the test requests with 95 % Wilson intervals, McNemar's test is against the seed's fine-tuned
model, and `trained` is the wall time of the road's own training.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stages._files import read_json, read_jsonl
from stages._manifest import read_manifest
from stages._metrics import contrast
from stages._progress import duration
from stages._report import probability

RUNS = Path("runs")
RATES = {"exact calls": "exact_call_rate", "false calls": "false_tool_call_rate", "missed calls": "missed_call_rate"}


class Road(NamedTuple):
    """The stage that makes the road's adapter, what is set for it, and the seeds it is taken for."""

    stage: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)


TABLES: dict[str, dict[str, Road]] = {
    "seeds": {"sft": Road("sft", (), (0, 1, 2)), "dpo": Road("dpo", (), (0, 1, 2))},
    "losses": {
        "sft": Road("sft", (), (0, 1, 2)),
        "dpo": Road("dpo", (), (0, 1, 2)),  # sigmoid + sft
        "reward_aware": Road("dpo", ("dpo.loss=[reward_aware]",), (0, 1, 2)),
        "apo_zero": Road("dpo", ("dpo.loss=[apo_zero]",)),
        "robust": Road("dpo", ("dpo.loss=[robust]", "dpo.trainer.label_smoothing=0.1")),
        "ipo": Road("dpo", ("dpo.loss=[ipo]",)),
        "kto": Road("kto"),
    },
    "roads": {
        "sft": Road("sft", (), (0, 1, 2)),
        "dpo": Road("dpo", (), (0, 1, 2)),
        "dpo_two_rounds": Road("dpo", ("dpo.rounds=2",)),
        "kto": Road("kto"),
        "grpo": Road("grpo", (), (0, 1, 2)),
        "ppo": Road("ppo", (), (0, 1, 2)),
        "ppo_reward_model": Road("ppo", ("ppo.reward=model",)),
    },
}


def train(*overrides: str) -> None:
    """One command of the project; where it fails, all of this ends."""
    print("\n$ python train.py", *overrides, flush=True)
    subprocess.run([sys.executable, "train.py", *overrides], check=True)


def take(name: str, road: Road, seed: int) -> str:
    """Take a road for a seed, and evaluate where it leads; the row of the table."""
    start = f"roads_{seed}"
    train("stage=sft", f"run={start}", f"seed={seed}")
    run = start
    if road.stage == "sft":
        train("stage=evaluate", f"run={run}", f"seed={seed}", "evaluate.models=[sft]")
    else:
        train("stage=pairs", f"run={start}", f"seed={seed}")
        run = f"roads_{seed}_{name}"
        for part in ("sft", "pairs"):
            if not (RUNS / run / part).exists():
                shutil.copytree(RUNS / start / part, RUNS / run / part)
        train(f"stage={road.stage}", f"run={run}", f"seed={seed}", *road.overrides)
        train("stage=evaluate", f"run={run}", f"seed={seed}", f"evaluate.models=[{road.stage}]")
    return row(name, road, seed, RUNS / start, RUNS / run)


def row(name: str, road: Road, seed: int, start: Path, run: Path) -> str:
    """Rates on all requests and on those with unseen tools, false calls against the fine-tuned model, and the cost."""
    fields = read_json(run / "evaluate" / "metrics.json")[road.stage]
    cells = [name, str(seed), *map(cell, rates(fields)), *map(cell, rates(fields["unseen_tools"]))]
    if road.stage == "sft":
        cells.append("-")
    else:
        requests = list(read_jsonl(run / "evaluate" / "requests.jsonl"))
        before, after = predictions(start, "sft"), predictions(run, road.stage)
        cells.append(probability(contrast(requests, before, after)["false_tool_call_rate"].p))
    return f"| {' | '.join([*cells, duration((read_manifest(run / road.stage) or {})['seconds'])])} |"


def rates(fields: dict[str, Any]) -> Iterable[tuple[float, list[float]]]:
    """Each shown rate with its interval."""
    return [(fields[rate], fields[f"{rate}_ci"]) for rate in RATES.values()]


def cell(rate: tuple[float, list[float]]) -> str:
    """A rate in per cent with its interval."""
    share, (low, high) = rate
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def predictions(run: Path, model: str) -> dict[str, Any]:
    """What a model did, by the id of the request."""
    rows = read_jsonl(run / "evaluate" / "predictions.jsonl")
    return {one["id"]: one for one in rows if one["model"] == model}


def main(table: str, seeds: list[int] | None, only: list[str] | None) -> None:
    """Take the roads of a table and print it."""
    roads = {name: road for name, road in TABLES[table].items() if not only or name in only}
    rows = [
        take(name, road, seed)
        for seed in sorted({seed for road in roads.values() for seed in road.seeds})
        for name, road in roads.items()
        if seed in road.seeds and (not seeds or seed in seeds)
    ]
    heads = ["road", "seed", *RATES, *(f"unseen: {rate}" for rate in RATES), "McNemar, false calls", "trained"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", *rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", help="of these seeds only")
    parser.add_argument("--only", nargs="+", metavar="ROAD", help="these roads only")
    arguments = parser.parse_args()
    main(arguments.table, arguments.seeds, arguments.only)
