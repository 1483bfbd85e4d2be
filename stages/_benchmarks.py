"""Benchmarks on files of published rows: bfcl by category, and the four acts of when2call.

bfcl: a row's category is its id without the number, and a request counts as right if its calls are exact, or if none
was attempted where none is right (README.md says where our judgement is stricter than the benchmark's). The answers are
also written as the leaderboard's own scorer reads them: bfcl/<model>/BFCL_v4_<category>_result.json, the layout of
version 4 (package bfcl_eval of ShishirPatil/gorilla), one row a request, {"id", "result"}. `result` is that of a model
with function calling: [{name: arguments as JSON text}, …] where the answer reads as calls and nothing of it is broken,
else the raw text. The scorer looks models up by the name of their folder, in its MODEL_CONFIG_MAPPING: each has to be
entered with OpenAICompletionsHandler, is_fc_model=True and underscore_to_dot=False (names are written as the rows have
them). This does so, runs it, and tells where it parts from our judgement:

    python -m benchmarks.bfcl PYTHON --run RUN    # PYTHON of an environment that has bfcl_eval

when2call: what a model does with a request, called here its act, is told in two ways: by its answer (none of the four
for an empty one), and by likelihood, as the act whose given turn has the greatest log-probability a token, in the
model's dialect. The benchmark's own harness normalises by the length of the text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from data.transcript import ACTS
from stages._ability import Answers, times
from stages._ability import measure as ability
from stages._behaviour import DONE, act_of
from stages._charts import interval, percent
from stages._control import plain
from stages._likelihood import Likelihoods
from stages._metrics import Row, attempted, needs_call, wilson

if TYPE_CHECKING:
    from pathlib import Path

    from data.load import DataConfig
    from data.transcript import Request
    from stages._scoring import Scored

Fields = Mapping[str, Any]
VIEWS = {"by_answer": "by answer", "by_likelihood": "by likelihood"}
# The scorer sorts by the number behind the category, and by no more: 19 of live_simple_19-3-15.
_SCORED_ID = re.compile(r"\w+_\d+(?:-\d+-\d+)?")


class Table(NamedTuple):
    """A table for people: a title, what it says, the heads of its columns, and rows of cells, the first a name."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def reads_bfcl(config: DataConfig) -> bool:
    """Whether the test requests come from rows of bfcl."""
    from data import source

    return source.format_of(config, "test" if config.test else "train")[0] == "bfcl"


def measure(
    requests: Sequence[Request], answers: Mapping[str, Answers], categories: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """What each model's metrics have besides the rates: `ability`, `four_acts` where the data lets choose between them,
    and `bfcl` with `categories`.
    """
    kept = ability(requests, answers)
    chosen = any(request.others for request in requests)
    return {
        model: ({"ability": kept[model]} if kept else {})
        | ({"four_acts": four_acts(requests, each.scored, each.likelihoods)} if chosen else {})
        | ({"bfcl": by_category(requests, each.scored)} if categories else {})
        for model, each in answers.items()
    }


def by_category(requests: Sequence[Request], scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """n, accuracy and its Wilson interval for each category."""
    hits: dict[str, list[bool]] = {}
    for request, each in zip(requests, scored, strict=True):
        right = each.judgement.outcome == "exact_call" if needs_call(request) else not attempted(each.judgement)
        hits.setdefault(request.kind, []).append(right)
    return {category: _rate(sum(hits[category]), len(hits[category])) for category in sorted(hits)}


def four_acts(
    requests: Sequence[Request], scored: Sequence[Scored], likelihoods: Sequence[Likelihoods]
) -> dict[str, dict[str, Any]]:
    """n, accuracy with its interval and confusion {right act: {act: count}}, by answer and by likelihood.

    By likelihood over the requests alone that have a turn of more than one act, the right one among them.
    """
    said = [
        (request.expected.act, act_of(Row(request, each.reading, each.judgement)))
        for request, each in zip(requests, scored, strict=True)
    ]
    chosen = [
        (request.expected.act, max(each, key=lambda act: each[act].mean))
        for request, each in zip(requests, likelihoods, strict=True)
        if len(each) > 1
    ]
    return {"by_answer": _confusion(said), "by_likelihood": _confusion(chosen)}


def write_results(folder: Path, requests: Sequence[Request], scored: Sequence[Scored]) -> int:
    """A model's answers in the leaderboard's layout, a file a category; returns how many are left out, since the scorer
    cannot sort their ids, as that of the second row of an id.
    """
    from stages._files import write_jsonl

    rows: dict[str, list[dict[str, Any]]] = {}
    for request, each in zip(requests, scored, strict=True):
        if _SCORED_ID.fullmatch(request.id):
            rows.setdefault(request.kind, []).append({"id": request.id, "result": result_of(each)})
    for category, found in rows.items():
        write_jsonl(folder / f"BFCL_v4_{category}_result.json", found)
    return len(requests) - sum(map(len, rows.values()))


def result_of(scored: Scored) -> str | list[dict[str, str]]:
    """`result` of a row: the calls, or the raw text."""
    reading = scored.reading
    if reading.calls and not reading.malformed:
        return [{call.name: json.dumps(call.arguments, ensure_ascii=False)} for call in reading.calls]
    return plain(scored.completion.text)


def tables(metrics: Mapping[str, Fields]) -> list[Table]:
    """What `measure` found, the models side by side; empty without any of it."""
    first = next(iter(metrics.values()))
    made = {"bfcl": _bfcl_table, "four_acts": _acts_table, "ability": _ability_table}
    return [
        make({model: fields[name] for model, fields in metrics.items()}) for name, make in made.items() if name in first
    ]


def confusions(metrics: Mapping[str, Fields]) -> list[Table]:
    """For each model the acts that were right against those that it did, `by answer / by likelihood`."""
    found = []
    for model, fields in metrics.items():
        if views := [fields["four_acts"][view]["confusion"] for view in VIEWS] if "four_acts" in fields else []:
            rows = [
                (act, *(" / ".join(f"{view.get(act, {}).get(done, 0):,}" for view in views) for done in DONE))
                for act in views[0]
            ]
            note = "Right acts in rows, in columns what the model did: by answer / by likelihood."
            found.append(Table(f"Acts of {model}", note, ("right", *DONE), rows))
    return found


def lines(tables: Sequence[Table]) -> list[str]:
    """Tables for a terminal, a blank line before each."""
    shown = []
    for table in tables:
        widths = [max(map(len, column)) for column in zip(table.heads, *table.rows, strict=True)]
        shown += ["", f"{table.title}. {table.note}"]
        shown += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (table.heads, *table.rows)
        ]
    return shown


def _bfcl_table(scores: Mapping[str, Fields]) -> Table:
    rows = [
        (category, f"{fields['n']:,}", *(_shown(each[category], "accuracy") for each in scores.values()))
        for category, fields in next(iter(scores.values())).items()
    ]
    note = "Right by our judgement: exact calls, or no attempt where none is right."
    return Table("BFCL by category", note, ("category", "n", *scores), rows)


def _acts_table(told: Mapping[str, Fields]) -> Table:
    first = next(iter(told.values()))
    rows = [
        (label, f"{first[view]['n']:,}", *(_shown(each[view], "accuracy") for each in told.values()))
        for view, label in VIEWS.items()
    ]
    note = "The right one of call, answer, ask and refuse: by answer, and by the likeliest given turn."
    return Table("Four acts", note, ("told", "n", *told), rows)


def _ability_table(kept: Mapping[str, Fields]) -> Table:
    first = next(iter(kept.values()))
    n, weighed = f"{first['n']:,}", f"{first['n_weighed']:,}"
    rows = [
        ("exact answers", n, *(_shown(fields, "exact_answer_rate") for fields in kept.values())),
        ("right answers", n, *(_shown(fields, "right_answer_rate") for fields in kept.values())),
        ("perplexity", weighed, *(_number(fields["perplexity"]) for fields in kept.values())),
        ("times the base's", weighed, *(times(fields) for fields in kept.values())),
    ]
    note = "Requests that need no call and have one right text: answers, and the perplexity of that text."
    if other := [model for model, each in kept.items() if each["n_weighed"] and each["perplexity"] is None]:
        note += f" {' and '.join(other)}: other tokens than the base's, so that perplexities cannot be compared."
    return Table("General ability", note, ("", "n", *kept), rows)


def _shown(fields: Fields, name: str) -> str:
    return f"{percent(fields[name])} {interval(fields[f'{name}_ci'])}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(hits: int, n: int) -> dict[str, Any]:
    ends = wilson(hits, n)
    return {"n": n, "accuracy": hits / n if n else None, "accuracy_ci": list(ends) if ends else None}


def _confusion(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of pairs (right act, act): the rate of those alike, and how often each right act was taken for which."""
    counts = Counter(pairs)
    rights = [act for act in ACTS if any(right == act for right, _ in counts)]
    confusion = {right: {act: counts[right, act] for act in DONE if counts[right, act]} for right in rights}
    return _rate(sum(right == act for right, act in pairs), len(pairs)) | {"confusion": confusion}
