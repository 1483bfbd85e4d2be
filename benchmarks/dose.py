"""The reward table as a dial: error rates by the points of one outcome, trained with the reward-aware loss alone.

    python -m benchmarks.dose                                 # seeds 0, 1 and 2, both dials; again: goes on
    python -m benchmarks.dose --only needless_call --seeds 0  # some of it

Each seed is a run, runs/dose_<seed>, fine-tuned and sampled once; each dial is a sweep of it. Prints both error rates
and exact calls of each point by seed, on the validation requests that sweeps judge by, then over all seeds with 95 %
Wilson intervals, and what a sweep took beside its trainings. The picture of both dials goes to benchmarks/dose.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.roads import RATES, RUNS, cell, train
from stages._files import read_json
from stages._metrics import wilson
from stages._progress import duration

# The points of the article, one of them turned. right_answer is 5: a needless call as dear as that costs nothing.
DIALS = {"needless_call": (5, 2, 0, -5, -10), "missed_call": (10, 5, 0, -5, -10)}
COMMON = ("stage=dpo", "reward=article", "dpo.loss=[reward_aware]")
PICTURE = Path("benchmarks/dose.svg")
COUNTED = {"exact_call_rate": "n_call", "false_tool_call_rate": "n_no_call", "missed_call_rate": "n_call"}


def turn(dial: str, seed: int) -> dict[str, Any]:
    """Sweep one dial from the seed's fine-tuned model; sweep.json."""
    run = f"dose_{seed}"
    train("stage=sft", f"run={run}", f"seed={seed}")
    values = ",".join(map(str, DIALS[dial]))
    train("-m", *COMMON, f"run={run}", f"seed={seed}", f"reward.{dial}={values}", f"sweep.name={dial}")
    return read_json(RUNS / run / "sweeps" / dial / "sweep.json")


def rates(metrics: dict[str, Any]) -> list[tuple[float, int]]:
    """(rate, of how many) on validation requests, in the order of RATES."""
    return [(metrics[f"validation_{rate}"], metrics[f"validation_{COUNTED[rate]}"]) for rate in RATES.values()]


def together(points: list[dict[str, Any]]) -> list[tuple[float, list[float]]]:
    """Rates with intervals over the points of all seeds."""
    pooled = []
    for shares in zip(*(rates(point["metrics"]) for point in points), strict=True):
        hits, count = sum(round(rate * n) for rate, n in shares), sum(n for _, n in shares)
        pooled.append((hits / count, list(wilson(hits, count) or (0.0, 1.0))))
    return pooled


def report(dial: str, sweeps: dict[int, dict[str, Any]]) -> list[list[tuple[float, list[float]]]]:
    """Print the table of a dial; its rates over all seeds, by value."""
    points = {seed: {str(each["overrides"][0]): each for each in sweep["points"]} for seed, sweep in sweeps.items()}
    rows, pooled = [], []
    for value in DIALS[dial]:
        group = [points[seed][f"reward.{dial}={value}"] for seed in sweeps]
        for seed, point in zip(sweeps, group, strict=True):
            rows.append(
                f"| {value} | {seed} | {' | '.join(f'{100 * rate:.1f}' for rate, _ in rates(point['metrics']))} |"
            )
        pooled.append(together(group))
        rows.append(f"| {value} | all | {' | '.join(map(cell, pooled[-1]))} |")
    print(f"\n| reward.{dial} | seed | {' | '.join(RATES)} |\n|{'---|' * (2 + len(RATES))}", *rows, sep="\n")
    for seed, sweep in sweeps.items():
        trained = sum(each["seconds"] for each in sweep["points"])
        cost = f"{duration(sweep['wall_seconds'])}, {sweep['wall_seconds'] / trained:.2f} x its trainings"
        print(f"seed {seed}: {cost}; {sweep['sampled_requests']} requests sampled")
    return pooled


def draw(pooled: dict[str, list[list[tuple[float, list[float]]]]]) -> None:
    """Both errors by the value of each dial, with intervals."""
    import matplotlib.pyplot as plt

    figure, sides = plt.subplots(1, len(pooled), figsize=(4.6 * len(pooled), 3.2), layout="constrained", squeeze=False)
    for side, (dial, points) in zip(sides[0], pooled.items(), strict=True):
        places = range(len(points))
        for number, name in enumerate(RATES):
            heights = [100 * point[number][0] for point in points]
            ends = [[100 * abs(point[number][1][end] - point[number][0]) for point in points] for end in (0, 1)]
            side.errorbar(places, heights, ends, marker="o", capsize=3, label=name)
        side.set(xticks=places, xlabel=f"reward.{dial}", ylabel="%", ylim=(0, 100))
        side.set_xticklabels([str(value) for value in DIALS[dial]])
    sides[0][0].legend()
    figure.savefig(PICTURE, metadata={"Date": None})
    print(f"\npicture: {PICTURE}")


def main(dials: list[str], seeds: list[int]) -> None:
    """Turn the dials, print their tables, draw the picture."""
    pooled = {dial: report(dial, {seed: turn(dial, seed) for seed in seeds}) for dial in dials}
    draw(pooled)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=DIALS, nargs="+", default=list(DIALS), help="these dials only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    main(arguments.only, arguments.seeds)
