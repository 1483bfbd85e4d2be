"""The table: points for each outcome, credit for partly right arguments, and rules that add or take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

import data._modules
from data.transcript import Reading, Request
from rewards._outcome import Judgement

Rule = Callable[..., float]


class RuleError(RuntimeError):
    """A rule that failed: a bug of the rule, never a score."""


def _rule_name(name: str) -> str:
    find_rule(name)
    return name


class RuleConfig(BaseModel):
    """One rule of the table."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    weight: float = Field(0.0, allow_inf_nan=False)
    """Points where the rule applies in full (it returns 0 to 1); 0 only logs it."""
    knobs: dict[str, Any] = {}
    """Keyword arguments of the rule, by name."""


class RewardConfig(BaseModel):
    """Points for what a completion did. The defaults weigh both errors of the act alike: a call pays when p > 0.5."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True, allow_inf_nan=False)

    exact_call: float = 10.0
    """A call was needed, and exactly the accepted calls were made."""
    right_tool_wrong_arguments: float = -2.0
    """The right tools with valid but wrong arguments, a surplus or a lacking call; argument_credit comes on top."""
    argument_credit: float = Field(8.0, ge=0)
    """Times the argument F1 (below 1), added to right_tool_wrong_arguments."""
    wrong_tool: float = -5.0
    """A valid call of another tool on offer than the one that was needed."""
    invalid_arguments: float = -6.0
    """A call that breaks its tool's schema: an unknown key, a missing one, a wrong type, a value outside the enum."""
    unknown_tool: float = -8.0
    """A call of a tool that is not on offer."""
    malformed_call: float = -9.0
    """An attempt that does not parse, where a call was needed; just above a miss, so that trying is still preferred."""
    missed_call: float = -10.0
    """A call was needed and none was tried."""
    needless_call: float = -10.0
    """No call was needed and one was tried, broken or not: the dial against false calls."""
    right_answer: float = 10.0
    """No call was needed and the answer is right."""
    wrong_answer: float = -3.0
    """No call was needed and the answer is wrong."""
    asked: float = 10.0
    """It asked, where asking back was right."""
    refused: float = 10.0
    """It refused, where refusing was right."""
    wrong_act: float = 0.0
    """Text of another kind than was right, as asking instead of refusing; light, since rules tell these apart badly."""
    empty: float = -10.0
    """No call was needed, and the text is empty, cut off by the token limit, or repeats itself."""
    rules: dict[Annotated[str, AfterValidator(_rule_name)], RuleConfig] = {
        "ungrounded": RuleConfig(weight=-2.0),
        "invented_answer": RuleConfig(weight=-3.0),
    }
    """Rules that add to the outcome's points, by name: each a module of rewards/."""

    @field_validator("rules")
    @classmethod
    def _rules_take_their_knobs(cls, rules: dict[str, RuleConfig]) -> dict[str, RuleConfig]:
        for name, rule in rules.items():
            known = inspect.signature(find_rule(name)).parameters
            takes = [knob for knob, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY]
            for knob in rule.knobs:
                if knob not in takes:
                    raise ValueError(f"{name} has no knob {knob!r}; it takes: {', '.join(takes) or 'none'}")
        return rules


@dataclass(frozen=True, slots=True)
class Score:
    """Points, what they are made of (parts add up to points), and what each rule returned, weighed or not."""

    points: float
    parts: dict[str, float]
    rules: dict[str, float]


@cache
def find_rule(name: str) -> Rule:
    """The function of rewards/<name>.py, which bears the same name; ValueError when there is none."""
    import rewards

    rule: Rule = getattr(data._modules.get(rewards, name, "rule"), name)
    return rule


def points(judgement: Judgement, table: RewardConfig, request: Request, reading: Reading) -> Score:
    """The points of a judged completion. A rule that raises, or leaves 0 to 1, stops everything: no score is made up.

    >>> needless = Judgement("needless_call")
    >>> points(needless, RewardConfig(needless_call=-5, rules={}), request, reading).points
    -5.0
    """
    parts = {"outcome": float(getattr(table, judgement.outcome))}
    if judgement.outcome == "right_tool_wrong_arguments":
        parts["argument_credit"] = table.argument_credit * judgement.components["argument_f1"]
    returned: dict[str, float] = {}
    for name, rule in table.rules.items():
        try:
            value = float(find_rule(name)(request, reading, judgement, **rule.knobs))
        except Exception as error:
            raise RuleError(f"rule {name} failed on request {request.id}: {error!r}") from error
        if not 0.0 <= value <= 1.0:
            raise RuleError(f"rule {name} returned {value} on request {request.id}; a rule returns 0 to 1")
        returned[name] = value
        parts[name] = rule.weight * value
    return Score(sum(parts.values()), parts, returned)


def threshold(table: RewardConfig) -> float | None:
    """The probability that a call is needed above which calling pays (WHEN_TO_CALL 3.1), with right calls and answers.

    t = (answer - needless) / ((answer - needless) + (exact - missed)); None where neither decision costs anything.
    """
    decline = table.right_answer - table.needless_call
    call = table.exact_call - table.missed_call
    return decline / (decline + call) if decline + call > 0 else None
