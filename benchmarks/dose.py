"""The reward table as a dial: error rates by the points of one outcome, trained with the reward-aware loss.

    python -m benchmarks.dose                                 # seeds 0, 1 and 2, both dials, both losses; goes on
    python -m benchmarks.dose --only needless_call --seeds 0 --losses reward_aware  # some of it

Each seed is a run, runs/dose_<seed>, fine-tuned and sampled once; each dial with each loss, reward_aware by itself or
with sft beside it, is a sweep of it. Prints both error rates and exact calls of each point by seed, on the validation
requests that sweeps judge by, with 95 % Wilson intervals, then their mean over the seeds (all are asked the same
requests, so that more seeds make no interval narrower), and what a sweep took beside its trainings. The picture of all
dials goes to benchmarks/dose.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.roads import RATES, ROADS, RUNS, cell, train
from benchmarks.speed.chain import train_seconds
from stages._files import read_json
from stages._progress import duration

# The points of the article, one of them turned. right_answer is 5: a needless call as dear as that costs nothing.
DIALS = {"needless_call": (5, 2, 0, -5, -10), "missed_call": (10, 5, 0, -5, -10)}
LOSSES = ("reward_aware", "reward_aware_sft")  # roads of benchmarks/roads.py
COMMON = ("stage=dpo", "reward=article", "dpo.reference=cached")
PICTURE = Path("benchmarks/dose.svg")

Curve = list[list[tuple[float, list[float]]]]  # for each value of a dial the rates, in the order of RATES


def turn(dial: str, loss: str, seed: int) -> dict[str, Any]:
    """Sweep one dial from the seed's fine-tuned model; sweep.json, and the seconds of its trainings alone."""
    own, name = (f"run=dose_{seed}", f"seed={seed}"), f"{dial}_by_{loss}"
    train("stage=sft", *own)
    values = ",".join(map(str, DIALS[dial]))
    train("-m", *COMMON, *own, *ROADS[loss].overrides, f"reward.{dial}={values}", f"sweep.name={name}")
    folder = RUNS / f"dose_{seed}" / "sweeps" / name
    return read_json(folder / "sweep.json") | {"training_seconds": sum(train_seconds(folder))}


def rates(point: dict[str, Any]) -> list[tuple[float, list[float]]]:
    """Each of RATES on validation requests, with its interval."""
    return [
        (point["metrics"][f"validation_{rate}"], point["metrics"][f"validation_{rate}_ci"]) for rate in RATES.values()
    ]


def report(dial: str, loss: str, sweeps: dict[int, dict[str, Any]]) -> dict[int, Curve]:
    """Print the table of a dial with a loss; its rates by seed."""
    found: dict[int, Curve] = {}
    for seed, sweep in sweeps.items():
        points = {str(point["overrides"][0]): point for point in sweep["points"]}
        found[seed] = [rates(points[f"reward.{dial}={value}"]) for value in DIALS[dial]]
    print(f"\n{loss}\n\n| reward.{dial} | seed | {' | '.join(RATES)} |\n|{'---|' * (2 + len(RATES))}")
    for place, value in enumerate(DIALS[dial]):
        for seed, curve in found.items():
            print(f"| {value} | {seed} | {' | '.join(map(cell, curve[place]))} |")
        means = [mean(curve[place][number][0] for curve in found.values()) for number in range(len(RATES))]
        print(f"| {value} | mean | {' | '.join(f'{100 * rate:.1f}' for rate in means)} |")
    for seed, sweep in sweeps.items():
        times = sweep["wall_seconds"] / sweep["training_seconds"]
        cost = f"{duration(sweep['wall_seconds'])}, {times:.2f} x its trainings"
        print(f"seed {seed}: {cost}; {sweep['sampled_requests']} requests sampled")
    return found


def draw(found: dict[tuple[str, str], dict[int, Curve]]) -> None:
    """Rates by the value of each dial and loss: a dot with its interval for each seed, and a line through the means."""
    import matplotlib.pyplot as plt

    figure, sides = plt.subplots(1, len(found), figsize=(4.6 * len(found), 3.2), layout="constrained", squeeze=False)
    for side, ((dial, loss), curves) in zip(sides[0], found.items(), strict=True):
        values = DIALS[dial]
        for number, name in enumerate(RATES):
            for nth, curve in enumerate(curves.values()):
                heights = [100 * point[number][0] for point in curve]
                ends = [[100 * abs(point[number][1][end] - point[number][0]) for point in curve] for end in (0, 1)]
                places = [place + 0.08 * (nth - (len(curves) - 1) / 2) for place in range(len(values))]
                side.errorbar(places, heights, ends, fmt=".", color=f"C{number}", capsize=2, alpha=0.5)
            means = [100 * mean(curve[place][number][0] for curve in curves.values()) for place in range(len(values))]
            side.plot(range(len(values)), means, color=f"C{number}", label=name)
        side.set(xticks=range(len(values)), title=loss.replace("_sft", " + sft"), xlabel=f"reward.{dial}")
        side.set(ylabel="%", ylim=(0, 100))
        side.set_xticklabels([str(value) for value in values])
    figure.legend(*sides[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(RATES))
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)
    print(f"\npicture: {PICTURE}")


def main(dials: list[str], losses: list[str], seeds: list[int]) -> None:
    """Turn the dials, print their tables, draw the picture."""
    draw(
        {
            (dial, loss): report(dial, loss, {seed: turn(dial, loss, seed) for seed in seeds})
            for dial in dials
            for loss in losses
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=DIALS, nargs="+", default=list(DIALS), help="these dials only")
    parser.add_argument("--losses", choices=LOSSES, nargs="+", default=list(LOSSES), help="these losses only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    main(arguments.only, arguments.losses, arguments.seeds)
