"""What stage=check found, as lines for a terminal and as check/report.html, both made from the files of its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from stages import _report
from stages._charts import percent
from stages._content import no_tool_warning
from stages._examples import one_line, visible
from stages._files import read_jsonl
from stages._problems import HELD, PROBLEMS, Problem

_FIRST = 5  # lines that are shown of each problem
_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"

Fields = Mapping[str, Any]


def findings(folder: Path, metrics: Fields) -> list[str]:
    """Counts, then every problem with its first lines and what to do, those that reject first."""
    lines = [_counted(part, count) for part, count in metrics["parts"].items()]
    lines += [f"note: {text}" for text in remarks(metrics)]
    for rejects, problems in groupby(_problems(folder, metrics["problems"]), key=lambda row: row["problem"].rejects):
        lines += ["", "rejected" if rejects else "warnings"]
        for row in problems:
            problem: Problem = row["problem"]
            lines += [f"  {problem.code:<15} {row['count']:>7,}  {problem.means}; {problem.advice}"]
            lines += [f"{'':27}{_place(each)}: {one_line(each['reason'], 120)}" for each in row["first"]]
    if not metrics["problems"]:
        lines.append("no problem found")
    return [*lines, "", f"every one by line: {folder}/rejected.jsonl, warnings.jsonl; report: {folder / 'report.html'}"]


def remarks(metrics: Fields) -> list[str]:
    """What is to be said of the data as a whole."""
    said = []
    train = metrics["parts"].get("train", {})
    if train.get("transcripts"):
        said += no_tool_warning(metrics["no_tool_share"])
    if metrics["problems"].get("too_long"):
        longest = max(count["tokens_longest"] for count in metrics["parts"].values())
        said.append(f"the longest row has {longest:,} tokens: model.max_length={longest} would leave none out")
    return said


def transcripts(folder: Path) -> Iterator[str]:
    """The rows to be shown, what is trained in green; between ⟦ and ⟧ where there is no terminal."""
    before, behind = (_GREEN, _PLAIN) if sys.stdout.isatty() else ("⟦", "⟧")
    for row in read_jsonl(folder / "transcripts.jsonl"):
        yield f"\n{_place(row)}"
        yield "".join(
            f"{before}{visible(text)}{behind}" if trained else visible(text) for text, trained in row["segments"]
        )
    yield ""


def page(folder: Path, metrics: Fields, facts: Mapping[str, str]) -> str:
    """The report; `facts` names what made it, line by line."""
    problems = _problems(folder, metrics["problems"])
    for row in problems:
        row["first"] = [(_place(each), each["reason"]) for each in row["first"]]
    return _report.page(
        "_check_report.html",
        title=facts["run"],
        metrics=metrics,
        remarks=remarks(metrics),
        problems=problems,
        transcripts=[(_place(row), row["segments"]) for row in read_jsonl(folder / "transcripts.jsonl")],
        known=PROBLEMS,
        held=HELD,
        facts=facts,
    )


def _counted(part: str, count: Fields) -> str:
    what = f"{count['transcripts']:,} transcripts" if count["transcripts"] else f"{count['requests']:,} requests"
    text = (
        f"data.{part}: {count['rows_in']:,} rows, {count['rows_kept']:,} kept, {count['rows_rejected']:,} rejected;"
        f" {what}, {count['calls']:,} calls, {count['tools']:,} tools, {percent(count['no_tool_share'])} without a call"
    )
    if count["rows_encoded"]:
        text += (
            f"; {count['tokens']:,} tokens, {count['tokens_trained']:,} trained, longest {count['tokens_longest']:,}"
        )
    if count["changes"]:
        text += f"; put right: {', '.join(f'{kind} {n:,}' for kind, n in count['changes'].items())}"
    return text


def _problems(folder: Path, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The problems that occurred, in the order of their table, each with its first rows."""
    first: dict[str, list[Any]] = {code: [] for code in counts}
    for file in ("rejected.jsonl", "warnings.jsonl"):
        for row in read_jsonl(folder / file):
            if len(first[row["code"]]) < _FIRST:
                first[row["code"]].append(row)
    known = [problem for problem in PROBLEMS if problem.code in counts]
    return [{"problem": problem, "count": counts[problem.code], "first": first[problem.code]} for problem in known]


def _place(row: Fields) -> str:
    return one_line(row["file"] if row["line"] is None else f"{row['file']}:{row['line']}", 200)
