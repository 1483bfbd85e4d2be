"""Pages that need nothing but a browser, and evaluate/report.html, made from the other files of its folder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stages import _benchmarks, _evidence, _passes
from stages._both_errors import plot
from stages._cases import found_in, sum_of, worst
from stages._charts import error_rates, interval, percent, points
from stages._comparisons import adjusted
from stages._examples import RIGHT, clip, expected_text, instructive, rule, visible
from stages._lineage import ADAPTERS, command, last_adapter
from stages._metrics import contrast

if TYPE_CHECKING:
    from stages._history import History
    from stages._job import Job

Fields = Mapping[str, Any]
Predictions = Mapping[str, Mapping[str, Fields]]  # rows of predictions.jsonl by model and request id


class Rate(NamedTuple):
    """How a field of metrics.json is shown: what people call it, the count it is over, its colour."""

    name: str
    label: str
    over: str
    meaning: str
    tone: str = ""


RATES = (
    Rate("false_tool_call_rate", "False calls", "n_no_call", "no call was needed, and one was attempted", "false"),
    Rate("missed_call_rate", "Missed calls", "n_call", "a call was needed, and none was attempted", "missed"),
    Rate("balanced_accuracy", "Balanced accuracy", "", "1 - (false calls + missed calls) / 2"),
    Rate("exact_call_rate", "Exact calls", "n_call", "all calls right, with all arguments, none lacking or surplus"),
    Rate("tool_name_accuracy", "Right tools", "n_call", "the called tools are the right ones, whatever the arguments"),
    Rate("argument_match_accuracy", "Right arguments", "n_valid_call", "of valid calls where one was needed: exact"),
    Rate("answer_accuracy", "Right answers", "n_no_call", "right answer, or question or refusal where that is right"),
    Rate(
        "valid_tool_call_rate", "Valid output", "n", "calls that satisfy the schemas of tools on offer, or plain text"
    ),
    Rate("malformed_rate", "Malformed", "n", "attempts at a call that do not parse"),
)
#: What is shown of constrained answers beside the free ones.
_VIEWED = ("exact_call_rate", "false_tool_call_rate", "missed_call_rate", "malformed_rate")
VIEWED = sorted((rate for rate in RATES if rate.name in _VIEWED), key=lambda rate: _VIEWED.index(rate.name))
TEXT_OUTCOMES = ("right_answer", "asked", "refused", "wrong_answer", "wrong_act", "empty", "needless_call")
CALL_OUTCOMES = (
    *("exact_call", "right_tool_wrong_arguments", "invalid_arguments", "wrong_tool", "unknown_tool"),
    *("malformed_call", "missed_call"),
)
SIDES = (
    ("n_no_call", "Requests that need no call", TEXT_OUTCOMES, ("false_tool_call_rate", "answer_accuracy")),
    ("n_call", "Requests that need a call", CALL_OUTCOMES, ("missed_call_rate", "exact_call_rate")),
)


def compared(models: Sequence[str]) -> tuple[str, str] | None:
    """The two models that the verdict is about: sft and the first preference stage, else base and sft, else the last
    two, of which merged is one only where there is no other, else none.
    """
    tuned, *preferred = ADAPTERS
    for pair in (*((tuned, stage) for stage in preferred), ("base", tuned)):
        if set(pair) <= set(models):
            return pair
    trained = [model for model in models if model != "merged"]
    last = trained if len(trained) > 1 else models
    return (last[-2], last[-1]) if len(last) > 1 else None


def render(
    metrics: Mapping[str, Fields],
    requests: Sequence[Fields],
    predictions: Predictions,
    facts: Mapping[str, str],
    merged_from: str | None = None,
    history: History | None = None,
    comparisons: Sequence[Fields] = (),
) -> str:
    """The page. The first three are what stands in the files; `facts` names what made them, line by line.

    `merged_from` is the model whose adapter was merged, `history` how all of them came to be, `comparisons` what stands
    in comparisons.json.
    """
    from markupsafe import Markup

    pair = compared(list(metrics))
    both = plot(metrics)
    examples = _examples(requests, predictions, *pair) if pair else []
    unseen = {model: fields["unseen_tools"] for model, fields in metrics.items()}
    # Evaluations of an earlier version have none.
    seen = {model: fields["seen_tools"] for model, fields in metrics.items() if "seen_tools" in fields}
    return page(
        "_report.html",
        RATES=RATES,
        title=facts.get("run", "evaluation"),
        all=next(iter(metrics.values())),
        metrics=metrics,
        pair=pair,
        tiles=_tiles(metrics, requests, predictions, pair) if pair else [],
        chart=Markup(error_rates(metrics)),
        plot=both._replace(svg=Markup(both.svg)) if both else None,
        acts=_acts(metrics),
        same=same_completions(predictions, merged_from),
        unseen=unseen if next(iter(unseen.values()))["n"] else {},
        seen=seen,
        kinds=_kinds(metrics),
        benchmarks=[*_passes.tables(metrics), *_benchmarks.tables(metrics), *_benchmarks.confusions(metrics)],
        outcomes=_outcomes(metrics),
        viewed=VIEWED,
        constrained=constrained(metrics),
        evidence=_evidence.sections(metrics, requests, predictions, comparisons),
        rule=rule(*pair) if pair else "",
        examples=examples,
        worst=_worst(requests, list(predictions.values())[-1], [each["request"]["id"] for each in examples]),
        history=history,
        facts=facts,
    )


def page(template: str, **values: Any) -> str:
    """A self-contained page in the one look that pages have; everything in it that is no Markup is escaped."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup

    place = Path(__file__).parent
    pages = SandboxedEnvironment(loader=FileSystemLoader(place), autoescape=True, undefined=StrictUndefined)
    pages.filters |= {"percent": percent, "interval": interval, "number": "{:,}".format, "shown": shown}
    pages.filters |= {"difference": _evidence.shown_difference, "ends": _evidence.shown_ends, "p_value": probability}
    pages.filters["big"] = lambda rate: (
        percent(rate) if rate is None else Markup("%.1f<small> %%</small>") % (100 * rate)
    )
    style = Markup((place / "_report.css").read_text(encoding="utf-8"))
    return pages.get_template(template).render(style=style, **values)


def shown(text: object, length: int = 200) -> str:
    """Untrusted text for the page, which escapes it: hidden characters as codes, long text cut."""
    return clip(visible(str(text)), length)


def turns(messages: Sequence[Fields]) -> list[dict[str, str]]:
    """A conversation for the page: the role of each turn and its text, with its calls one a line."""
    return [{"role": message["role"], "text": _said(message)} for message in messages]


def offered(tools: Sequence[Fields]) -> list[Fields]:
    """Tools for the page: name, description and the schema as text."""
    return [{**tool, "parameters": _json(tool["parameters"])} for tool in tools]


def facts(job: Job, data_digest: str) -> dict[str, str]:
    """What made the report, for people; the manifest has all of it."""
    from rewards import threshold

    settings = job.settings
    worth = {name: value for name, value in settings.reward.model_dump().items() if isinstance(value, int | float)}
    t = threshold(settings.reward)
    return {
        "run": settings.run,
        "command": command(job.name, settings),
        "model": f"{settings.model.name} ({settings.model.path}), dialect {settings.model.dialect}",
        "data": f"{settings.data.format}, digest {data_digest[:12]}",
        "seeds": f"seed {settings.seed}, data.seed {settings.data.seed}",
        "reward": ", ".join(f"{name} {value:g}" for name, value in worth.items()),
        "a call pays above": "any probability" if t is None else f"p = {t:.2f} that it is needed",
        job.name: ", ".join(f"{name} {value}" for name, value in job.config.model_dump().items() if value is not None),
    }


def constrained(metrics: Mapping[str, Fields]) -> dict[str, Fields]:
    """The rates of constrained answers by model, where models were asked for such."""
    return {model: fields["constrained"] for model, fields in metrics.items() if "constrained" in fields}


def same_completions(predictions: Predictions, merged_from: str | None = None) -> tuple[str, int] | None:
    """How many requests merged answered with the same text as the model it was made from, and which that is.

    Without `merged_from` that is the one that is merged unless another is named.
    """
    adapter = merged_from or last_adapter(predictions)
    if not {adapter, "merged"} <= set(predictions):
        return None
    merged = predictions["merged"]
    return adapter, sum(row["completion"] == merged[id_]["completion"] for id_, row in predictions[adapter].items())


def probability(p: float) -> str:
    """A p value for people."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _tiles(
    metrics: Mapping[str, Fields], requests: Sequence[Fields], predictions: Predictions, pair: tuple[str, str]
) -> list[Fields]:
    """What changed from the first model to the second: both errors, and exact calls as their price."""
    before, after = (metrics[model] for model in pair)
    tests = contrast(requests, *(predictions[model] for model in pair))
    by_holm = adjusted(tests)
    return [
        {
            "label": label,
            "tone": tone,
            "need": need,
            "n": before[over],
            "before": before[name],
            "after": after[name],
            "change": points(tests[name].difference, tests[name].interval),
            "fixed": tests[name].only_second if tone == "exact" else tests[name].only_first,
            "broken": tests[name].only_first if tone == "exact" else tests[name].only_second,
            "p": probability(by_holm[name]),
        }
        for name, label, tone, over, need in (
            ("false_tool_call_rate", "False calls", "false", "n_no_call", "need no call"),
            ("missed_call_rate", "Missed calls", "missed", "n_call", "need a call"),
            ("exact_call_rate", "Exact calls", "exact", "n_call", "need a call"),
        )
        if before[over]
    ]


def _kinds(metrics: Mapping[str, Fields]) -> list[Fields]:
    """A table for each side that has kinds; a kind with turns of both sorts stands in both."""
    by_kind = next(iter(metrics.values()))["by_kind"]
    label = {rate.name: (rate.label.lower(), rate.tone or "good") for rate in RATES}
    tables: list[Fields] = []
    for over, title, _, names in SIDES:
        rows = sorted(({"kind": kind, "n": by_kind[kind][over]} for kind in by_kind), key=lambda row: -row["n"])
        columns = [{"name": name, "label": label[name][0], "tone": label[name][1]} for name in names]
        tables.append({"title": title, "columns": columns, "rows": [row for row in rows if row["n"]]})
    return [table for table in tables if table["rows"]] if any(by_kind) else []


def _outcomes(metrics: Mapping[str, Fields]) -> list[Fields]:
    """A table for each side: the outcomes that occurred, from the best to the worst."""
    tables: list[Fields] = []
    for over, title, order, _ in SIDES:
        counts = {model: fields["outcomes"] for model, fields in metrics.items()}
        n = next(iter(metrics.values()))[over]
        if n:
            right = {
                model: sum(count.get(name, 0) for name in order if name in RIGHT) / n for model, count in counts.items()
            }
            names = [name for name in order if any(count.get(name) for count in counts.values())]
            tables.append({"title": f"{title} ({n:,})", "n": n, "right": right, "names": names})
    return tables


def _examples(requests: Sequence[Fields], predictions: Predictions, first: str, second: str) -> list[Fields]:
    known = {request["id"]: request for request in requests}
    return [
        _asked(known[id_])
        | {
            "why": why,
            "tone": "good" if "better" in why else "bad" if "worse" in why else "",
            "answers": _answers({model: rows[id_] for model, rows in predictions.items()}),
        }
        for id_, why in instructive(requests, predictions, first, second)
    ]


def _acts(metrics: Mapping[str, Fields]) -> list[tuple[str, dict[str, dict[str, int]]]]:
    """The confusion matrix of each model; those that chose alike share it."""
    shared: list[tuple[str, dict[str, dict[str, int]]]] = []
    for model, fields in metrics.items():
        table = fields["acts"]
        if shared and shared[-1][1] == table:
            shared[-1] = (f"{shared[-1][0]}, {model}", table)
        else:
            shared.append((model, table))
    return shared


def _worst(requests: Sequence[Fields], rows: Mapping[str, Fields], but: Sequence[str]) -> list[Fields]:
    known = {request["id"]: request for request in requests}
    return [
        _asked(known[id_]) | {"row": rows[id_], "points": sum_of(rows[id_]), "found": found_in(rows[id_])}
        for id_ in worst(requests, rows, but=but)
    ]


def _asked(request: Fields) -> dict[str, Any]:
    """What was asked with which tools on offer, and what would have been right, for the page."""
    return {
        "request": request,
        "turns": turns(request["messages"]),
        "tools": offered(request["tools"]),
        "expected": expected_text(request["expected"]),
    }


def _answers(rows: Mapping[str, Fields]) -> list[Fields]:
    """What the models said; those that said the same share an entry."""
    shared: dict[tuple[str, str], list[str]] = {}
    for model, row in rows.items():
        shared.setdefault((row["completion"], row["outcome"]), []).append(model)
    return [
        {"models": ", ".join(models), "completion": text, "outcome": name, "tone": "good" if name in RIGHT else "bad"}
        for (text, name), models in shared.items()
    ]


def _said(message: Fields) -> str:
    """A turn as text: its content, and its calls one a line."""
    calls = (call["function"] for call in message.get("tool_calls", ()))
    return "\n".join(
        filter(None, (message["content"], *(f"{call['name']} {_json(call['arguments'])}" for call in calls)))
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
