"""Our judgement of BFCL rows beside the benchmark's own checker, and a run's answers scored by its own scorer.

    python3.11 -m venv .venv-bfcl && .venv-bfcl/bin/pip install torch==2.13.0 bfcl-eval==2026.3.23 soundfile
    python -m benchmarks.bfcl .venv-bfcl/bin/python               # right calls and changed ones of every row it ships
    python -m benchmarks.bfcl .venv-bfcl/bin/python --run mine    # runs/mine/evaluate/bfcl, by category

The package pins other versions than ours, so it has an environment of its own (soundfile, and a torch, are what it
needs besides); of it, only its rows, its checker and its scorer are used, none of which is part of this project.

The first: its single-turn rows in Python, each accepted call and what becomes of it by each change of
tests/bfcl_cases.py, judged by both. Every case where they differ is told by the rules that explain it (DIFFERENCES
there), and last, on how many cases tests/bfcl_rules.py, our telling of their rules, says something else than they do.
The second: for each model and category our accuracy and theirs, and how many answers just one of both takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.formats import bfcl
from data.transcript import RowError
from stages._files import read_json
from tests.bfcl_cases import DIFFERENCES, cases, explanation, right, theirs

CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
)
CHECKER = Path(__file__).with_name("_bfcl_checker.py")
RUNS = Path("runs")


def checker(python: str, *words: str) -> str:
    """Run the checker's side; what it printed. Exits with its last line where it failed."""
    try:
        done = subprocess.run([python, str(CHECKER), *words], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{python}: {error.strerror}; name the python of an environment that has bfcl_eval")
    if done.returncode:
        sys.exit((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1])
    return done.stdout


def rows(folder: Path, category: str) -> Iterator[dict[str, Any]]:
    """The rows of a category with their answers."""
    file = folder / f"BFCL_v4_{category}.json"
    complete = bfcl.completing(file, folder / "possible_answer" / file.name, 0, 0)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        yield complete(json.loads(line), f"{file.name}:{number}")


def compare(python: str) -> None:
    """Judge all cases by both; print how often they agree, and why not."""
    package = json.loads(checker(python, "data"))
    counts: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    for category in CATEGORIES:
        for row in rows(Path(package["data"]), category):
            counts["rows"] += 1
            try:
                request = bfcl.read(row, row["id"])
            except RowError as error:
                print(f"not read, left out: {error}")
                continue
            for kind, calls in cases(row):
                asked = {"functions": row["function"], "wanted": row["ground_truth"], "calls": calls}
                ours = right(request, calls)
                why = explanation(row, calls, ours)
                found.append(asked | {"category": category, "kind": kind, "ours": ours, "why": why})
                found[-1]["told"] = theirs(row, calls)
    with tempfile.TemporaryDirectory() as folder:
        asked_file, verdicts = Path(folder, "cases.jsonl"), Path(folder, "verdicts.jsonl")
        asked_file.write_text("".join(json.dumps(case) + "\n" for case in found), encoding="utf-8")
        checker(python, "judge", str(asked_file), str(verdicts))
        judged = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()]
    reasons: Counter[str] = Counter()
    for case, verdict in zip(found, judged, strict=True):
        accepted = case["kind"] == "as accepted"
        counts["right"] += accepted
        counts["right, ours"] += accepted and case["ours"]
        counts["right, theirs"] += accepted and verdict is True
        counts["agree"] += case["ours"] == verdict
        counts["told wrong"] += case["told"] != verdict
        if case["ours"] != verdict:
            reasons[" and ".join(case["why"]) if case["told"] == verdict else "unexplained"] += 1
    print(
        f"bfcl_eval {package['version']}: {counts['rows']:,} rows, {len(found):,} cases\n"
        f"accepted calls taken as right: {counts['right, ours']:,} by ours, {counts['right, theirs']:,} by theirs,"
        f" of {counts['right']:,}\n"
        f"both say the same of {counts['agree']:,} cases ({100 * counts['agree'] / len(found):.1f} %)"
    )
    for reason, count in reasons.most_common():
        print(f"{count:7,}  {reason}{f': {DIFFERENCES[reason]}' if reason in DIFFERENCES else ''}")
    print(f"tests/bfcl_rules.py says something else than theirs of {counts['told wrong']:,} cases")


def score(python: str, run: str) -> None:
    """Score a run's files of results; print both accuracies of each model and category, and where they part."""
    evaluated = RUNS / run / "evaluate"
    folder = evaluated / "bfcl"
    models = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not models:
        sys.exit(f"{folder} has no results; make them: python train.py stage=evaluate run={run} data.test=FILE")
    metrics = read_json(evaluated / "metrics.json")
    categories = sorted(metrics[models[0]]["bfcl"])
    predicted = [json.loads(line) for line in (evaluated / "predictions.jsonl").read_text("utf-8").splitlines()]
    print("| model | category | n | ours | theirs | theirs alone | ours alone |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scores:
        checker(python, "score", str(folder.resolve()), scores, ",".join(models), ",".join(categories))
        for model in models:
            for category in categories:
                (file,) = Path(scores, model).rglob(f"BFCL_v4_{category}_score.json")
                head, *wrong = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
                print(_line(model, category, metrics[model]["bfcl"][category], head, wrong, predicted))


def _line(
    model: str,
    category: str,
    ours: dict[str, Any],
    head: dict[str, Any],
    wrong: list[dict[str, Any]],
    predicted: list[dict[str, Any]],
) -> str:
    """A line of the table: accuracies, and how many answers just one of both takes."""
    answers = [each for each in predicted if each["model"] == model and each["id"].rpartition("_")[0] == category]
    calls = "irrelevance" not in category
    right_ours = {each["id"] for each in answers if (each["outcome"] == "exact_call" if calls else not each["attempt"])}
    right_theirs = {each["id"] for each in answers} - {each["id"] for each in wrong}
    shown = f"{100 * ours['accuracy']:.1f} % | {100 * head['accuracy']:.1f} %"
    alone = f"{len(right_theirs - right_ours)} | {len(right_ours - right_theirs)}"
    return f"| {model} | {category} | {ours['n']} | {shown} | {alone} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the python of an environment that has bfcl_eval")
    parser.add_argument("--run", help="score the answers of this run's evaluation in place of the cases")
    arguments = parser.parse_args()
    score(arguments.python, arguments.run) if arguments.run else compare(arguments.python)
