"""What a completion did, given the request: one outcome from a closed list, and the components behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data import schema
from data.transcript import AcceptedCall, Act, Reading, Request, ToolCall, text_act
from rewards import _match, _words

# Where a call is needed, from best to worst: with several calls the worst one names the outcome.
_CALL_OUTCOMES = (
    "exact_call",
    "right_tool_wrong_arguments",
    "wrong_tool",
    "invalid_arguments",
    "unknown_tool",
    "malformed_call",
    "missed_call",
)
_TEXT_OUTCOMES = ("needless_call", "right_answer", "wrong_answer", "asked", "refused", "wrong_act", "empty")
OUTCOMES = _CALL_OUTCOMES + _TEXT_OUTCOMES
ACT_OUTCOMES: dict[Act, str] = {"call": "exact_call", "answer": "right_answer", "ask": "asked", "refuse": "refused"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome and what it was made of.

    Components: act (call, answer, ask, refuse, empty), attempt, parsed, known_tools, schema_valid, names_right,
    argument_f1, surplus, lacking, ungrounded, truncated, repeated. Those about calls are absent where none was tried.
    """

    outcome: str
    components: dict[str, Any] = field(default_factory=dict)


def right_outcome(request: Request) -> str:
    """The outcome of a completion that does what is right."""
    return ACT_OUTCOMES[request.expected.act]


def judge(request: Request, reading: Reading, truncated: bool = False) -> Judgement:
    """Name what a completion did. `truncated` says that it hit the token limit.

    Any attempt where no call is needed is a needless_call, broken ones too; a broken attempt where one is needed is a
    malformed_call. The assistant turn of the data itself is right, whatever the rules below would make of its wording,
    and code blocks are text where code was asked for and no call is needed.
    """
    components: dict[str, Any] = {"attempt": reading.attempt, "truncated": truncated}
    if reading.attempt and not _is_gold(request, reading) and not _is_asked_for(request, reading):
        components["act"] = "call"
        worst = _judge_calls(request, reading, components)
        return Judgement(worst if request.expected.act == "call" else "needless_call", components)
    repeated = _words.repeats(reading.text)
    act = text_act(reading.text) if reading.text and not reading.text.isspace() else "empty"
    components["act"] = act
    components["repeated"] = repeated
    if request.expected.act == "call":
        return Judgement("missed_call", components)
    if _is_gold(request, reading):
        return Judgement(right_outcome(request), components)
    if act == "empty" or repeated or truncated:
        return Judgement("empty", components)
    return Judgement(_judge_text(request, reading.text, act), components)


def _is_gold(request: Request, reading: Reading) -> bool:
    """Whether a text is the turn of the data word for word, as where it explains a tool by its name and brackets."""
    gold = request.gold
    if gold is None or gold.tool_calls or request.expected.act == "call" or not gold.content.strip():
        return False
    return gold.content.strip() == reading.text.strip()


def _is_asked_for(request: Request, reading: Reading) -> bool:
    """Whether an attempt is but code that the user asked for, as a function that calls a tool."""
    return request.expected.act != "call" and bool(reading.fenced) and _words.asks_for(request, reading.fenced)


def _judge_text(request: Request, text: str, act: str) -> str:
    expected = request.expected
    if expected.act == "answer" and expected.text is not None:
        # The reference decides before the act does: "It is 2. Anything else?" ends in a question and yet answers.
        if _words.answers(text, expected.text, request):
            return "right_answer"
        return "wrong_answer" if act == "answer" else "wrong_act"
    return right_outcome(request) if act == expected.act else "wrong_act"


def _judge_calls(request: Request, reading: Reading, components: dict[str, Any]) -> str:
    """The outcome of an attempt where a call is needed, its components added; also used for those of needless ones."""
    accepted = request.expected.calls
    matching = _match.match(reading.calls, accepted)
    outcomes = ["malformed_call"] if reading.malformed or not reading.calls else []
    partner = {i: (accepted[j], score) for i, j, score in matching.pairs}
    loose: list[ToolCall] = []  # what the answer key does not accept of each: only there are values from nowhere
    schemas = {tool.name: tool.parameters for tool in request.tools}
    expected_names = sorted([call.name for call in accepted])
    valid = known = True
    for place, call in enumerate(reading.calls):
        right, score = partner.get(place, (None, 0.0))
        if right is not None and score == 1.0:
            outcomes.append("exact_call")
            continue
        taken = set() if right is None else _match.accepted_keys(call, right)
        if call.name not in schemas and call.name not in expected_names:
            outcome, known, valid = "unknown_tool", False, False
        elif _breaks_schema(call, right, taken, schemas.get(call.name)):
            outcome, valid = "invalid_arguments", False
        else:
            outcome = "right_tool_wrong_arguments" if call.name in expected_names else "wrong_tool"
        outcomes.append(outcome)
        left = {key: value for key, value in call.arguments.items() if key not in taken} if taken else call.arguments
        loose.append(ToolCall(call.name, left))
    if matching.surplus or matching.lacking:
        outcomes.append("right_tool_wrong_arguments")
    worst = max(outcomes, key=_CALL_OUTCOMES.index)
    components |= {
        "parsed": not reading.malformed and bool(reading.calls),
        "known_tools": known,
        "schema_valid": valid,
        "names_right": sorted([call.name for call in reading.calls]) == expected_names,
        "argument_f1": matching.f1 if accepted else 0.0,
        "surplus": len(matching.surplus),
        "lacking": len(matching.lacking),
        "ungrounded": _words.ungrounded(loose, request) if loose else 0,
    }
    return worst


def _breaks_schema(
    call: ToolCall, right: AcceptedCall | None, taken: set[str], parameters: dict[str, Any] | None
) -> bool:
    """Whether a call breaks its schema where the answer key does not say that it may: published gold breaks its own.

    `taken` are the arguments whose values the key accepts.
    """
    if parameters is None:
        return False
    if schema.fits(call.arguments, parameters):
        return False
    if right is None:
        return True
    faults = schema.faults(call.arguments, parameters)
    # A fault that belongs to no single argument is a missing or an unknown one: the answer key knows both.
    missing = any(key not in call.arguments and key not in right.optional for key in right.arguments)
    unknown = any(key not in right.arguments and key not in parameters.get("properties", {}) for key in call.arguments)
    return any(key not in taken if key is not None else missing or unknown for key, _ in faults)
