"""What is left of the base's general ability: answers to requests that need no call, held against the base's own.

Over the requests whose right answer is a known text: how many answers are that text, how many are right by the rules
that judge answers, and the perplexity of the right texts in the model's prompt,

    perplexity = exp(- sum of log-probabilities / number of tokens)

over at most `evaluate.ability_requests` of them. Each is compared with the base's on the same requests. A model with
other tokens, as a student may be, has no perplexity: a token of its own is another piece of text. A base that was not
trained on the dialect's prompt starts worse than it is: a ratio below 1 may say no more than that training taught to
answer under it. Where rows name their `language`, each language that has such requests is told by itself too, and
warned of by itself: what training takes from the rarer ones hardly shows in all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stages._likelihood import Likelihood, Likelihoods, answers_in_text
from stages._metrics import Z95, Interval, compare, wilson

if TYPE_CHECKING:
    from data.transcript import Request
    from stages._scoring import Scored


class Answers(NamedTuple):
    """What a model said to each request, how likely it holds the turns that the data gives, and whether that is told by
    the tokens of the run's model.
    """

    scored: list[Scored]
    likelihoods: list[Likelihoods]
    shares_tokens: bool = True


def measure(requests: Sequence[Request], answers: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    """The fields of each model: n, exact_answer_rate and right_answer_rate with what changed from the base, n_weighed,
    n_tokens, perplexity and perplexity_ratio, each with its interval where it has one, and the same in `by_language`;
    none without such requests.
    """
    places = [place for place, request in enumerate(requests) if answers_in_text(request)]
    if not places:
        return {}
    base = answers.get("base")
    spoken: dict[str, list[int]] = {}
    for place in places:
        if language := requests[place].language:
            spoken.setdefault(language, []).append(place)
    found = {}
    for model, each in answers.items():
        fields = _fields(requests, each, base, places)
        apart = {language: _fields(requests, each, base, spoken[language]) for language in sorted(spoken)}
        found[model] = fields | ({"by_language": apart} if apart else {})
    return found


def perplexity(weighed: Sequence[Likelihood]) -> float | None:
    """Perplexity over all tokens of some texts; None over nothing.

    >>> perplexity([Likelihood(-3 * math.log(2), 1), Likelihood(-math.log(2), 3)])
    2.0
    """
    tokens = sum(each.tokens for each in weighed)
    return math.exp(-math.fsum(each.logprob for each in weighed) / tokens) if tokens else None


def ratio(base: Sequence[Likelihood], model: Sequence[Likelihood]) -> tuple[float | None, Interval | None]:
    """How many times the base's perplexity a model's is on the same texts, with its 95 % interval (of 2 texts or more).

    Its logarithm is a ratio of two sums over texts, what the model lost on each and its tokens, whose variance is
    linearised (Cochran 1977, Sampling Techniques, 6.4).
    """
    lost = [one.logprob - two.logprob for one, two in zip(base, model, strict=True)]
    tokens = [each.tokens for each in model]
    n, total = len(tokens), sum(tokens)
    if not total:
        return None, None
    mean = math.fsum(lost) / total
    if n < 2:
        return math.exp(mean), None
    spread = math.fsum((each - mean * count) ** 2 for each, count in zip(lost, tokens, strict=True)) / (n - 1)
    half = Z95 * math.sqrt(n * spread) / total
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def warnings(metrics: Mapping[str, Mapping[str, Any]], most: float | None) -> list[str]:
    """A line for each model whose perplexity is more than `most` times the base's; None allows any.

    Where the base was not asked, the line says that nothing is held against it.
    """
    if most is not None and "base" not in metrics:
        return ["base is not among evaluate.models: how likely right answers without a call are is not held against it"]
    found: dict[str, Mapping[str, Any]] = {}
    for model, fields in metrics.items():
        whole = fields.get("ability", {})
        found |= {model: whole} | {f"{model} ({name})": each for name, each in whole.get("by_language", {}).items()}
    return [
        f"warning: {model} holds right answers without a call less likely than the base: its perplexity is"
        f" {times(fields)} times the base's, above evaluate.max_perplexity_ratio={most:g}; train less, or on more rows"
        " without a call"
        for model, fields in found.items()
        if most is not None and (fields.get("perplexity_ratio") or 0.0) > most
    ]


def times(fields: Mapping[str, Any]) -> str:
    """The ratio with its interval, for people: 1.34 [0.87, 2.06], and a dash where there is none."""
    value, ends = fields["perplexity_ratio"], fields["perplexity_ratio_ci"]
    around = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return "-" if value is None else f"{value:.2f}{around}"


def _fields(requests: Sequence[Request], own: Answers, base: Answers | None, places: Sequence[int]) -> dict[str, Any]:
    fields: dict[str, Any] = {"n": len(places)}
    for name, test in (("exact_answer", _exact), ("right_answer", _right)):
        hits = [test(requests[place], own.scored[place]) for place in places]
        before = [test(requests[place], base.scored[place]) for place in places] if base else None
        change = compare(before, hits) if before else None
        fields |= {
            f"{name}_rate": sum(hits) / len(hits),
            f"{name}_rate_ci": _ends(wilson(sum(hits), len(hits))),
            f"{name}_change": change.difference if change else None,
            f"{name}_change_ci": _ends(change.interval if change else None),
        }
    weighed = [place for place in places if all("answer" in each.likelihoods[place] for each in (own, base or own))]
    after = [own.likelihoods[place]["answer"] for place in weighed]
    held = [base.likelihoods[place]["answer"] for place in weighed] if base and own.shares_tokens else None
    times, interval = (None, None) if held is None else ratio(held, after)
    return fields | {
        "n_weighed": len(weighed),
        "n_tokens": sum(each.tokens for each in after),
        "perplexity": perplexity(after) if own.shares_tokens else None,
        "perplexity_ratio": times,
        "perplexity_ratio_ci": _ends(interval),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval else None


def _exact(request: Request, scored: Scored) -> bool:
    """The answer is the right text, letter by letter; a call beside it is another answer."""
    reading = scored.reading
    return not reading.attempt and reading.text.strip() == (request.expected.text or "").strip()


def _right(_: Request, scored: Scored) -> bool:
    return scored.judgement.outcome == "right_answer"
