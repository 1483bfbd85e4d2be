"""Roads from the same fine-tuned model to an aligned one, on the same requests: the tables of the README.

    python -m benchmarks.roads                                            # `roads` and `students` in one table
    python -m benchmarks.roads losses                                     # every road of a table; again: goes on
    python -m benchmarks.roads losses --seeds 0 --only reward_aware ipo   # some of it
    python -m benchmarks.roads roads                                      # preference losses, GRPO and PPO
    python -m benchmarks.roads students                                   # a small model, taught by the aligned one
    python -m benchmarks.roads seeds                                      # the default pipeline at seeds 0, 1 and 2

Each road of each seed is a run of its own, runs/roads_<seed>_<road>, which starts as a copy of the run it goes on from:
the seed's fine-tuned one with its pairs, or for a distilled student the one that is aligned by DPO. Nothing is
fine-tuned or sampled twice, and what is done with the same inputs is not done again; where the run that a road goes on
from was made anew, the copy is too. Rates are per cent on the test requests with 95 % Wilson intervals; McNemar's test
is of false calls against the seed's fine-tuned model, for students of exact calls against the student that was
fine-tuned without a teacher. `samples` are the answers sampled for a road, `took` is the wall time of all its stages
behind the model that it goes on from: pairs and a reward model too. What the samples of GRPO and PPO did on the way is
drawn in benchmarks/roads.svg.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stages._files import read_json, read_jsonl, replace_folder
from stages._manifest import missing_outputs, read_manifest
from stages._metrics import contrast
from stages._progress import duration
from stages._report import probability

RUNS = Path("runs")
PICTURE = Path("benchmarks/roads.svg")
RATES = {"exact calls": "exact_call_rate", "false calls": "false_tool_call_rate", "missed calls": "missed_call_rate"}


class Road(NamedTuple):
    """The stage that makes the road's adapter, what is set for it, the seeds it is taken for, and the road it goes on
    from, one of STARTS, or none.
    """

    stage: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    start: str | None = "sft"


STARTS = {"sft": Road("sft", (), (0, 1, 2), start=None), "dpo": Road("dpo", (), (0, 1, 2))}
BROUGHT = {"sft": ("sft", "pairs"), "dpo": ("sft", "pairs", "dpo")}  # from the run that a road goes on from
TABLES: dict[str, dict[str, Road]] = {
    "seeds": {**STARTS},
    "losses": {
        **STARTS,  # dpo is sigmoid + sft
        "reward_aware_sft": Road("dpo", ("dpo.loss=[reward_aware,sft]",), (0, 1, 2)),
        "reward_aware": Road("dpo", ("dpo.loss=[reward_aware]",)),
        "apo_zero": Road("dpo", ("dpo.loss=[apo_zero]",)),
        "robust": Road("dpo", ("dpo.loss=[robust]", "dpo.trainer.label_smoothing=0.1")),
        "ipo": Road("dpo", ("dpo.loss=[ipo]",)),
        "kto": Road("kto", (), (0, 1, 2)),
    },
    "roads": {
        **STARTS,
        "dpo_two_rounds": Road("dpo", ("dpo.rounds=2",)),
        "kto": Road("kto", (), (0, 1, 2)),
        "grpo": Road("grpo", (), (0, 1, 2)),
        "ppo": Road("ppo", (), (0, 1, 2)),
        "ppo_reward_model": Road("ppo", ("ppo.reward=model",)),
    },
    "students": {
        "student_sft": Road("sft", ("model=tiny_student",), start=None),
        "dpo": Road("dpo"),
        "student_response": Road("distill", start="dpo"),
        "student_logit": Road("distill", ("distill.kind=logit",), start="dpo"),
        "student_feature": Road("distill", ("distill.kind=feature",), start="dpo"),
    },
}
TABLES["all"] = TABLES["roads"] | {name: road for name, road in TABLES["students"].items() if name not in STARTS}
ROADS = {name: road for table in TABLES.values() for name, road in table.items()} | STARTS


def against(name: str) -> tuple[str, str]:
    """The road that this one is held against, and by which of RATES."""
    return ("student_sft", "exact calls") if name.startswith("student_") else ("sft", "false calls")


def train(*overrides: str) -> None:
    """One command of the project; where it fails, all of this ends."""
    print("\n$ python train.py", *overrides, flush=True)
    subprocess.run([sys.executable, "train.py", *overrides], check=True)


def run_of(name: str, seed: int) -> str:
    """Where a road is taken; the fine-tuned model's run has the seed's name alone."""
    return f"roads_{seed}" if name == "sft" else f"roads_{seed}_{name}"


@functools.cache
def take(name: str, road: Road, seed: int) -> None:
    """Take a road for a seed, first the one that it goes on from, and evaluate where it leads."""
    run, own = run_of(name, seed), (f"run={run_of(name, seed)}", f"seed={seed}")
    if road.start:
        start = run_of(road.start, seed)
        take(road.start, STARTS[road.start], seed)
        if road.start == "sft":
            train("stage=pairs", f"run={start}", f"seed={seed}")
        for part in BROUGHT[road.start]:
            bring(RUNS / start / part, RUNS / run / part)
    train(f"stage={road.stage}", *own, *road.overrides)
    if road.stage != "distill":  # which asks the test requests itself
        models = [one for one in road.overrides if one.startswith("model=")]
        train("stage=evaluate", *own, f"evaluate.models=[{road.stage}]", *models)


def bring(source: Path, copy: Path) -> None:
    """Copy the folder of a stage, unless a whole copy of what lies there now is there."""
    now, before = (read_manifest(folder) or {} for folder in (source, copy))
    same = all(now[key] == before.get(key) for key in ("digest", "inputs_digest"))
    if not same or missing_outputs(copy, before):
        replace_folder(source, copy)


def row(name: str, seed: int) -> str:
    """Rates on all requests and on those with unseen tools, the test against another road, and the cost."""
    road, run = ROADS[name], RUNS / run_of(name, seed)
    fields = measured(run, road)
    other, rate = against(name)
    tested = "-"
    if name != other:
        requests = list(read_jsonl(run / folder_of(road) / "requests.jsonl"))
        before, after = predictions(RUNS / run_of(other, seed), ROADS[other]), predictions(run, road)
        tested = f"{rate}: {probability(contrast(requests, before, after)[RATES[rate]].p)}"
    cost = [samples(run, road), duration(seconds(run, road))]
    cells = [name, str(seed), *map(cell, rates(fields)), *map(cell, rates(fields["unseen_tools"])), tested, *cost]
    return f"| {' | '.join(cells)} |"


def folder_of(road: Road) -> str:
    """The stage that asked the test requests."""
    return "distill" if road.stage == "distill" else "evaluate"


def measured(run: Path, road: Road) -> dict[str, Any]:
    """The contract's fields of what a road leads to."""
    fields = read_json(run / folder_of(road) / "metrics.json")
    return fields if road.stage == "distill" else fields[road.stage]


def learned_from(road: Road) -> tuple[str, ...]:
    """The stages that a road's own one learns from, behind the model that it goes on from."""
    if "ppo.reward=model" in road.overrides:
        return ("pairs", "reward_model")
    return ("pairs",) if road.stage in ("dpo", "kto") else ()


def samples(run: Path, road: Road) -> str:
    """How many answers were sampled for a road, those of its pairs, in all rounds, included."""
    made = read_json(run / road.stage / "metrics.json") or {}
    count = made.get("answers" if road.stage == "distill" else "samples", 0)
    pairs = [run / "pairs"] if "pairs" in learned_from(road) else []
    for folder in (*pairs, *(run / road.stage / "rounds").glob("*/pairs")):
        count += read_json(folder / "metrics.json")["samples"]
    return f"{count:,}" if count else "-"


def seconds(run: Path, road: Road) -> float:
    """The wall time of a road's own stage, earlier rounds included, and of those that it learns from."""
    return sum((read_manifest(run / stage) or {})["seconds"] for stage in (*learned_from(road), road.stage))


def rates(fields: dict[str, Any]) -> Iterable[tuple[float, list[float]]]:
    """Each shown rate with its interval."""
    return [(fields[rate], fields[f"{rate}_ci"]) for rate in RATES.values()]


def cell(rate: tuple[float, list[float]]) -> str:
    """A rate in per cent with its interval."""
    share, (low, high) = rate
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def predictions(run: Path, road: Road) -> dict[str, Any]:
    """What the model at the end of a road did, by the id of the request."""
    model = "student" if road.stage == "distill" else road.stage
    rows = read_jsonl(run / folder_of(road) / "predictions.jsonl")
    return {one["id"]: one for one in rows if one["model"] == model}


def draw(roads: dict[str, Road], file: Path) -> None:
    """False and missed calls among the samples of each road that samples while it learns, over its course, in `file`.

    Each dot is the mean of a tenth of the road, each line a seed.
    """
    import matplotlib.pyplot as plt

    shown = {"false calls": "false_tool_call_rate", "missed calls": "missed_call_rate"}
    figure, sides = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for side, (title, rate) in zip(sides, shown.items(), strict=True):
        for number, (name, road) in enumerate(roads.items()):
            logs = [RUNS / run_of(name, seed) / road.stage / "log.jsonl" for seed in road.seeds]
            for place, line in enumerate(filter(None, (course(log, rate) for log in logs))):
                label = None if place else name
                side.plot(*zip(*line, strict=True), marker=".", color=f"C{number}", alpha=0.8, label=label)
        side.set(title=f"{title} among the samples", xlabel="% of the training", ylabel="%", ylim=(0, None))
    sides[0].legend()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    print(f"\npicture: {file}")


def course(log: Path, rate: str) -> list[tuple[float, float]]:
    """(per cent of the training, mean rate in per cent) for each tenth of a log that has the rate of its samples."""
    rows = list(read_jsonl(log)) if log.exists() else []
    seen = [(one["step"], one.get(rate, one.get(f"sampled/{rate}"))) for one in rows if "step" in one]
    seen = [(step, value) for step, value in seen if value is not None]
    last = max((step for step, _ in seen), default=1)
    tenths: dict[int, list[float]] = {}
    for step, value in seen:
        tenths.setdefault(min(9, 10 * (step - 1) // last), []).append(value)
    return [(10.0 * tenth + 5, 100 * sum(values) / len(values)) for tenth, values in sorted(tenths.items())]


def main(table: str, seeds: list[int] | None, only: list[str] | None) -> None:
    """Take the roads of a table, each with the one that it is held against, and print it."""
    roads = {name: road for name, road in TABLES[table].items() if not only or name in only}
    rows = []
    for seed in sorted({seed for road in roads.values() for seed in road.seeds}):
        for name, road in roads.items():
            if seed in road.seeds and (not seeds or seed in seeds):
                other, _ = against(name)
                take(other, ROADS[other], seed)
                take(name, ROADS[name], seed)
                rows.append(row(name, seed))
    heads = ["road", "seed", *RATES, *(f"unseen: {rate}" for rate in RATES), "McNemar's test", "samples", "took"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", *rows, sep="\n")
    if table in ("roads", "all") and not only:  # without some of its roads the picture would be another
        draw({name: road for name, road in roads.items() if road.stage in ("ppo", "grpo")}, PICTURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES, nargs="?", default="all")
    parser.add_argument("--seeds", type=int, nargs="+", help="of these seeds only")
    parser.add_argument("--only", nargs="+", metavar="ROAD", help="these roads only")
    arguments = parser.parse_args()
    main(arguments.table, arguments.seeds, arguments.only)
