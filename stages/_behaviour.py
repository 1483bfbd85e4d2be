"""What evaluate/metrics.json tells of a model beside the rates of the contract: each by its numerator and denominator.

    attempt_rate                   attempts / requests
    parse_rate                     attempts that parse / attempts
    valid_attempt_rate             valid calls of tools on offer / attempts, where a call is needed
    tool_name_accuracy_given_call  the called tools are the right ones / attempts, where a call is needed
    hallucinated_tool_rate         attempts that name a tool which is not on offer / attempts
    refusal_rate                   refusals / requests
    ask_precision                  questions where asking is right / questions
    ask_recall                     questions where asking is right / requests where asking is right
    right_slot_rate                questions that name a lacking argument / requests that say which one lacks
    parallel_count_accuracy        as many calls as expected / requests that expect several calls
    recovery_rate                  right calls, answers, questions, refusals / requests that follow a failed call
    dialogue_accuracy              dialogues all of whose turns are right / dialogues of which several turns were asked

    argument_precision             right arguments / arguments given, over calls that stand for an expected one
    argument_recall                right arguments / arguments wanted, over the same calls
    argument_f1                    2 right arguments / (arguments given + arguments wanted), over the same calls
    ungrounded_argument_rate       values that come from nowhere / values, over the arguments of all calls
    parallel_call_f1               2 exact calls / (calls made + calls expected), where several calls are expected
    surplus_calls                  calls that stand for no expected one / requests
    tool_productivity              requests with an exact call / calls made
    calls_per_solved_dialogue      calls made in dialogues all of whose turns are right / those dialogues
    mean_output_tokens             tokens written / requests
    expected_utility_at_<c>        (requests with an exact call - c x other attempts) / requests

    call_f1                        2 TP / (2 TP + FP + FN): attempts where a call is needed, needless ones, missed ones
    mcc                            (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)), of the same
    act_macro_f1                   the sum of each act's F1 / acts that are right on some request
    act_macro_f1_all               the same / acts that are right on some request or were done on one

Over nothing each is null. Those of the first group are shares of independent things, and have a Wilson interval in
`<name>_ci`; in the others what is counted comes in bundles, a request each, for which that interval would be too
narrow. Balanced accuracy of the decision is `balanced_accuracy` of the contract. An act is call, answer, ask or refuse,
F1 of one 2 right / (done + right somewhere); `acts` counts what was done for each that was right. Expected utility at
the risk c of a wrong call is that of MICE (Subramani et al. 2025, arXiv 2504.20168), tool productivity that of OTC
(Wang et al. 2025, arXiv 2504.14870). A question names an argument if all parts of the argument's name stand in it as
words, or all words of the data's own question but articles and their like; number is ignored. A call has failed if its
result is a JSON object with something under `error`, as the runtime writes one, and no other turn came after it. Each
turn of a dialogue is asked with what the data has before it, whatever the model said to earlier ones.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from data.transcript import ACTS
from stages._metrics import RIGHT_TEXTS, attempted, needs_call, parsed, right_names, valid_call, wilson
from stages._reliability import ratio

if TYPE_CHECKING:
    import numpy as np

    from data.transcript import Message, Request
    from stages._metrics import Row

DONE = (*ACTS, "empty")
RISKS = (0.5, 1, 2, 4)
# Part a name such as departureCity or party_size, and what questions are about from what they are made with.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_ASKING = frozenset(("a", "an", "the", "which", "what", "is", "are", "for", "of", "on", "at", "in", "please", "you"))


class Pooled(NamedTuple):
    """A measure that is a function of sums over requests: what each request adds, and the measure of their sums.

    `formula` takes sums of shape [..., counts] and gives [...], NaN over nothing: of all requests, or of many samples.
    """

    counts: Callable[[Row], Sequence[float]]
    formula: Callable[[np.ndarray], np.ndarray]


def behaviour(rows: Sequence[Row], tokens: Sequence[int]) -> dict[str, Any]:
    """The fields, from what a model did on each request and how many tokens it wrote."""
    fields: dict[str, Any] = {}
    talks = dialogues(rows)
    for name, (hits, n) in shares(rows, talks).items():
        interval = wilson(hits, n)
        fields |= {name: _over(hits, n), f"{name}_ci": list(interval) if interval else None}
    fields |= _bundles(rows, talks) | {"mean_output_tokens": _over(sum(tokens), len(rows))}
    fields |= {name: pooled(rows, measure) for name, measure in POOLED.items()}
    done = [(row.request.expected.act, act_of(row)) for row in rows]
    acts = {right: {act: done.count((right, act)) for act in DONE} for right in ACTS}
    return fields | {"acts": {right: counts for right, counts in acts.items() if any(counts.values())}}


def shares(rows: Sequence[Row], talks: Sequence[Sequence[Row]]) -> dict[str, tuple[int, int]]:
    """Numerator and denominator of the first group."""
    tried = [row for row in rows if attempted(row.judgement)]
    needed = [row for row in tried if needs_call(row.request)]
    parallel = [row for row in rows if len(row.request.expected.calls) > 1]
    acts = [act_of(row) for row in rows]
    asked = sum(row.judgement.outcome == "asked" for row in rows)
    lacking = [row for row in rows if row.request.expected.lacking]
    failed = [row for row in rows if after_failure(row.request)]
    return {
        "attempt_rate": (len(tried), len(rows)),
        "parse_rate": (sum(parsed(row.judgement) for row in tried), len(tried)),
        "valid_attempt_rate": (sum(map(valid_call, needed)), len(needed)),
        "tool_name_accuracy_given_call": (sum(map(right_names, needed)), len(needed)),
        "hallucinated_tool_rate": (sum(not row.judgement.components["known_tools"] for row in tried), len(tried)),
        "refusal_rate": (acts.count("refuse"), len(rows)),
        "ask_precision": (asked, acts.count("ask")),
        "ask_recall": (asked, sum(row.request.expected.act == "ask" for row in rows)),
        "right_slot_rate": (sum(map(right_slot, lacking)), len(lacking)),
        "parallel_count_accuracy": (
            sum(len(calls_of(row)) == len(row.request.expected.calls) for row in parallel),
            len(parallel),
        ),
        "recovery_rate": (sum(map(is_right, failed)), len(failed)),
        "dialogue_accuracy": (sum(all(map(is_right, talk)) for talk in talks), len(talks)),
    }


def is_right(row: Row) -> bool:
    """Whether what was done is what the request wants."""
    from rewards._outcome import right_outcome

    return row.judgement.outcome == right_outcome(row.request)


def dialogues(rows: Sequence[Row]) -> list[list[Row]]:
    """The turns of each conversation of which several were asked: `<id>/<turn>`, each with all that the one before has
    seen, and more.
    """
    found = defaultdict(list)
    for row in rows:
        conversation, _, turn = row.request.id.rpartition("/")
        if conversation and turn.isdecimal():
            found[conversation].append(row)
    talks = [sorted(turns, key=lambda row: len(row.request.messages)) for turns in found.values() if len(turns) > 1]
    return [talk for talk in talks if all(_goes_on(*turns) for turns in pairwise(talk))]


def _goes_on(one: Row, other: Row) -> bool:
    before, after = one.request.messages, other.request.messages
    return len(before) < len(after) and after[: len(before)] == before


def act_of(row: Row) -> str:
    """The act that was done: the right one where the outcome says so, else as the words read; or empty."""
    if row.judgement.outcome in RIGHT_TEXTS:
        return row.request.expected.act
    return "empty" if row.judgement.outcome == "empty" else str(row.judgement.components["act"])


def after_failure(request: Request) -> bool:
    """Whether the last turns of the conversation are results, one of them of a call that failed."""
    results = takewhile(lambda message: message.role == "tool", reversed(request.messages))
    return any(map(_failed, results))


def _failed(message: Message) -> bool:
    from data import jsontext

    try:
        result = jsontext.loads(message.content)
    except jsontext.JsonError:
        return False
    return isinstance(result, dict) and bool(result.get("error"))


def right_slot(row: Row) -> bool:
    """Whether the answer is a question that names an argument which the request lacks."""
    gold = row.request.gold
    own = _words(gold.content) - _ASKING if gold else set()
    said = _words(row.reading.text)
    named = (_words(name) for name in row.request.expected.lacking)
    return row.judgement.outcome == "asked" and any(words and words <= said for words in (*named, own))


def _words(text: str) -> set[str]:
    """Its words and the parts of names in it, in small letters and without a plural's s."""
    parts = (part.lower() for part in _PART.findall(text))
    return {part.removesuffix("s") if len(part) > 3 else part for part in parts}


def calls_of(row: Row) -> tuple[Any, ...]:
    """The calls made; code that the user asked for makes none."""
    return row.reading.calls if attempted(row.judgement) else ()


def pooled(rows: Sequence[Row], measure: Pooled) -> float | None:
    """A measure over all rows; None over nothing."""
    import numpy as np

    value = float(measure.formula(np.array([measure.counts(row) for row in rows], dtype=float).sum(0))) if rows else 0.0
    return None if not rows or np.isnan(value) else value


def decision_counts(row: Row) -> Sequence[float]:
    """TP, FP, FN and TN of trying to call."""
    needed, tried = needs_call(row.request), attempted(row.judgement)
    return needed and tried, tried and not needed, needed and not tried, not (needed or tried)


def matched_arguments(row: Row) -> Sequence[float]:
    """Arguments right, given and wanted in the calls that stand for an expected one."""
    from rewards._match import argument_counts, match

    calls, accepted = calls_of(row), row.request.expected.calls
    counts = [argument_counts(calls[i], accepted[j]) for i, j, _ in match(calls, accepted).pairs]
    return [sum(column) for column in zip(*counts, strict=True)] if counts else [0, 0, 0]


def act_counts(row: Row) -> Sequence[float]:
    """For each act whether it was right and done, whether it was done, whether it was right."""
    right, done = row.request.expected.act, act_of(row)
    return [flag for act in ACTS for flag in (act == right == done, act == done, act == right)]


def _decision_f1(sums: np.ndarray) -> np.ndarray:
    tp, fp, fn = sums[..., 0], sums[..., 1], sums[..., 2]
    return ratio(2 * tp, 2 * tp + fp + fn)


def _mcc(sums: np.ndarray) -> np.ndarray:
    tp, fp, fn, tn = (sums[..., place] for place in range(4))
    return ratio(tp * tn - fp * fn, ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5)


def _macro_f1(sums: np.ndarray, everything: bool) -> np.ndarray:
    import numpy as np

    hits, done, right = (sums[..., place::3] for place in range(3))
    counts = (done + right if everything else right) > 0
    return ratio(np.where(counts, np.nan_to_num(ratio(2 * hits, done + right)), 0.0).sum(-1), counts.sum(-1))


POOLED = {
    "argument_precision": Pooled(matched_arguments, lambda sums: ratio(sums[..., 0], sums[..., 1])),
    "argument_recall": Pooled(matched_arguments, lambda sums: ratio(sums[..., 0], sums[..., 2])),
    "argument_f1": Pooled(matched_arguments, lambda sums: ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])),
    "call_f1": Pooled(decision_counts, _decision_f1),
    "mcc": Pooled(decision_counts, _mcc),
    "act_macro_f1": Pooled(act_counts, lambda sums: _macro_f1(sums, everything=False)),
    "act_macro_f1_all": Pooled(act_counts, lambda sums: _macro_f1(sums, everything=True)),
}


def _bundles(rows: Sequence[Row], talks: Sequence[Sequence[Row]]) -> dict[str, float | None]:
    """Those of the second group that are about calls as a whole, or about values in them."""
    from rewards._match import match
    from rewards._words import plain_values

    calls = sum(len(calls_of(row)) for row in rows)
    exact = sum(row.judgement.outcome == "exact_call" for row in rows)
    wrong = sum(attempted(row.judgement) for row in rows) - exact
    parallel = [(calls_of(row), row.request.expected.calls) for row in rows if len(row.request.expected.calls) > 1]
    right = sum(score == 1.0 for made, wanted in parallel for *_, score in match(made, wanted).pairs)
    sizes = sum(len(made) + len(wanted) for made, wanted in parallel)
    ungrounded = sum(row.judgement.components.get("ungrounded", 0) for row in rows)
    values = sum(plain_values(call.arguments) for row in rows for call in calls_of(row))
    solved = [talk for talk in talks if all(map(is_right, talk))]
    return {
        "ungrounded_argument_rate": _over(ungrounded, values),
        "parallel_call_f1": _over(2 * right, sizes),
        "surplus_calls": _over(sum(row.judgement.components.get("surplus", 0) for row in rows), len(rows)),
        "tool_productivity": _over(exact, calls),
        "calls_per_solved_dialogue": _over(sum(len(calls_of(row)) for talk in solved for row in talk), len(solved)),
    } | {f"expected_utility_at_{risk:g}": _over(exact - risk * wrong, len(rows)) for risk in RISKS}


def _over(above: float, below: float) -> float | None:
    return above / below if below else None
