"""Consecutive stages held against each other on the same requests: evaluate/comparisons.json.

The headline metrics (false calls, missed calls, exact calls) are yes or no for each request: McNemar's exact test, with
p values adjusted for there being three of them in a comparison (Holm 1979). F1, MCC and calibration error are functions
of sums over requests: the interval of their difference is where 95 % of it lie when the requests are drawn again with
replacement, by clusters, since requests of one source are right or wrong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages._behaviour import POOLED
from stages._lineage import ADAPTERS, STUDENT, last_adapter
from stages._metrics import Change, Row, contrast, needs_call
from stages._reliability import bin_counts, error_of_bins

if TYPE_CHECKING:
    import numpy as np

    from data.transcript import Request
    from stages._scoring import Scored

Fields = Mapping[str, Any]
DRAWS = 10_000
RESAMPLED = ("call_f1", "act_macro_f1", "argument_f1", "mcc", "call_ece")
OVER = {"false_tool_call_rate": "n_no_call", "missed_call_rate": "n_call", "exact_call_rate": "n_call"}
_CHUNK = 2_000_000  # numbers drawn at once: 16 MB


def consecutive(
    models: Sequence[str], merged_from: str | None = None, teacher: str | None = None
) -> list[tuple[str, str]]:
    """Each model after the one it was made from, or the nearest that is there; a student after its teacher.

    >>> consecutive(["base", "sft", "dpo", "kto", "merged"], merged_from="kto")
    [('base', 'sft'), ('sft', 'dpo'), ('sft', 'kto'), ('kto', 'merged')]
    """
    tuned = ADAPTERS[0]
    above: dict[str, list[str]] = {tuned: ["base"], STUDENT: [teacher or last_adapter(models), tuned, "base"]}
    made_from = merged_from or last_adapter(models)
    above["merged"] = [made_from, *above.get(made_from, [tuned, "base"])]
    pairs = []
    for model in models:
        found = [each for each in above.get(model, [tuned, "base"]) if each in models]
        if model != "base" and found:
            pairs.append((found[0], model))
    return pairs


def comparisons(
    metrics: Mapping[str, Fields],
    requests: Sequence[Request],
    scored: Mapping[str, Sequence[Scored]],
    rows: Sequence[Fields],
    predictions: Mapping[str, Mapping[str, Fields]],
    merged_from: str | None,
    seed: int,
    draws: int = DRAWS,
    teacher: str | None = None,
) -> list[dict[str, Any]]:
    """The entries of comparisons.json, from metrics and answers by model; `rows` and `predictions` are those of
    requests.jsonl and of predictions.jsonl, by model and id.
    """
    pairs = consecutive(list(metrics), merged_from, teacher)
    if not pairs:
        return []
    clusters = cluster_places(requests)
    values = resampled({model: counts(requests, each) for model, each in scored.items()}, clusters, draws, seed)
    entries = []
    for first, second in pairs:
        changes = contrast(rows, predictions[first], predictions[second])
        by_holm = adjusted(changes)
        entries.append(
            {"first": first, "second": second, "requests": len(clusters), "clusters": max(clusters) + 1, "draws": draws}
            | {
                "tests": {
                    name: {
                        "n": metrics[first][OVER[name]],
                        "first": metrics[first][name],
                        "second": metrics[second][name],
                        "only_first": change.only_first,
                        "only_second": change.only_second,
                        "difference": change.difference,
                        "difference_ci": list(change.interval or ()),
                        "p": change.p,
                        "p_holm": p,
                    }
                    for name, p in by_holm.items()
                    for change in (changes[name],)
                },
                "resampled": {name: difference(values[first][name], values[second][name]) for name in RESAMPLED},
            }
        )
    return entries


def adjusted(changes: Mapping[str, Change]) -> dict[str, float]:
    """McNemar's p values of one comparison, adjusted for one another; a metric over nothing has none."""
    tests = {name: change.p for name, change in changes.items() if change.difference is not None}
    return dict(zip(tests, holm(list(tests.values())), strict=True))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for how many there are: the least one times their number, the next times one less, and so on,
    none below one before it, at most 1 (Holm 1979).

    >>> holm([0.25, 0.125, 0.5])
    [0.5, 0.375, 0.5]
    """
    import numpy as np

    order = np.argsort(ps)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.sort(ps) * np.arange(len(ps), 0, -1)).clip(max=1.0)
    return adjusted.tolist()


def cluster_places(requests: Sequence[Request]) -> list[int]:
    """The number of each request's cluster: that of its source, in the world a tool and a wording. Without one, that of
    the first tool that is right to call; where a call is wrong, that of its kind and the names of the tools on offer.
    """
    keys = [_cluster(request) for request in requests]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [places[key] for key in keys]


def _cluster(request: Request) -> tuple[str, ...]:
    if request.source:
        return "source", request.source
    if needs_call(request) and request.expected.calls:
        return "tool", request.expected.calls[0].name
    return "offer", request.kind, *sorted(tool.name for tool in request.tools)


def counts(requests: Sequence[Request], scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    """What each request adds to each resampled measure, [requests, counts]."""
    import numpy as np

    rows = [Row(request, each.reading, each.judgement) for request, each in zip(requests, scored, strict=True)]
    found = {name: [POOLED[name].counts(row) for row in rows] for name in RESAMPLED if name in POOLED}
    told = [each.completion.p_call for each in scored]
    found["call_ece"] = [bin_counts(p, needs_call(request)) for request, p in zip(requests, told, strict=True)]
    return {name: np.array(each, dtype=float) for name, each in found.items()}


def resampled(
    added: Mapping[str, Mapping[str, np.ndarray]], clusters: Sequence[int], draws: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Each measure of each model over all requests, and then over each of `draws` samples of as many clusters as there
    are: [1 + draws]. All models are measured on the same samples.
    """
    import numpy as np

    n = max(clusters) + 1
    names = [(model, name) for model, each in added.items() for name in each]
    stacked = np.concatenate([added[model][name] for model, name in names], axis=1)
    sums = np.zeros((n, stacked.shape[1]))
    np.add.at(sums, np.asarray(clusters), stacked)
    rng = np.random.default_rng(seed)
    totals = [sums.sum(0, keepdims=True)]
    chunk = max(1, _CHUNK // n)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        totals.append(times @ sums)
    ends = np.cumsum([added[model][name].shape[1] for model, name in names])[:-1]
    found: dict[str, dict[str, np.ndarray]] = {model: {} for model in added}
    for (model, name), part in zip(names, np.split(np.concatenate(totals), ends, axis=1), strict=True):
        found[model][name] = (POOLED[name].formula if name in POOLED else error_of_bins)(part)
    return found


def difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Both values and the second less the first, with its 95 % percentile interval over the samples in which both have
    a value; null where they have none on all requests.
    """
    import numpy as np

    both = second - first
    drawn = both[1:][~np.isnan(both[1:])]
    ends = None if np.isnan(both[0]) or not len(drawn) else np.quantile(drawn, (0.025, 0.975)).tolist()
    values = (None if np.isnan(value) else float(value) for value in (first[0], second[0], both[0]))
    return {**dict(zip(("first", "second", "difference"), values, strict=True)), "difference_ci": ends}
