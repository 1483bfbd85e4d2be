"""The kinds of request, each a function that draws one transcript whose last assistant turn is the one asked about.

For fine-tuning, where every assistant turn is trained, calls go on to their results and the final answer. The source of
each is "tool: wording", of the tool that the last user turn is about; of facts "relation: wording", of what is about
neither "kind: wording". Of two requests in one turn it is the first one's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import jsontext
from ..corpus.values import altered
from ..transcript import AcceptedCall, Expected, Message, ToolCall, Transcript
from . import knowledge, phrases
from .catalogue import BY_NAME, CATALOGUE, WorldTool
from .values import POOLS

# What a request has for tools that fit nothing: none of these together, because their requests resemble each other.
LOOKALIKES = (
    {"set_medicine_reminder", "set_alarm"},
    {"search_notes", "get_summary", "get_headlines"},
    {"set_volume", "play_song"},
)
_LENGTHS = {"metres": 1.0, "feet": 0.3048, "miles": 1609.344, "inches": 0.0254}
_MADE_UP = 0.4  # share of the values of training that are made up
_TELLS = ("get_", "find_", "search_", "define_", "track_", "list_")  # tools whose result is knowledge, not a deed

# Wordings of training and of the test set.
JOINS = ((" Also, {}", " And {}", " Then {}", *phrases.JOINS), (" On top of that, {}", " Besides, {}"))
AGAIN = (("And for {}?", "Now the same for {}.", "And {}?", *phrases.AGAIN), ("What about {}?", "Do that for {} too."))
REFUSALS = ("I have no tool for that.", "Sorry, I have no tool that can do this.", "None of my tools can do that.")
REPEATS = (
    (
        "Sorry, what was that again?",
        "Can you say that again?",
        "Please repeat that.",
        "I did not catch that, what did you say?",
        *phrases.REPEATS,
    ),
    ("Could you tell me that once more?", "Say it one more time.", "I missed it, once more please."),
)
TOLD = (
    (
        "I was just told: {reply} {request}",
        "{reply} That is what I read. {request}",
        "You should know: {reply} {request}",
        *phrases.TOLD,
    ),
    ("A friend says: {reply} Now: {request}", "According to my colleague: {reply} {request}"),
)
DECLINES = (
    (
        "Do not {deed}, just say {word}.",
        "No need to {deed}, only say {word}.",
        "Please do not {deed}. Simply say {word}.",
        "Just say {word}, do not {deed}.",
        *phrases.DECLINES,
    ),
    (
        "I do not want you to {deed}, only say {word}.",
        "Without trying to {deed}: say {word}.",
        "You must not {deed} now. Say {word} instead.",
    ),
)
SAID = (
    ("hello", "hi", "good morning", "thank you", "okay", "done", "yes"),
    ("goodbye", "welcome", "good night", "sure"),
)


@dataclass(frozen=True, slots=True)
class Side:
    """Which half of templates and values is drawn from, and from which tools."""

    test: bool = False
    unseen: bool = False

    def tools(self) -> list[WorldTool]:
        return [tool for tool in CATALOGUE if tool.held_out == self.unseen]

    def of(self, split: Sequence[Any]) -> Any:
        """The half of a (training, test) pair."""
        return split[self.test]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for one tool: its words, the right call, the tool's result, the final answer and its key value."""

    tool: WorldTool
    wording: str
    text: str
    call: ToolCall
    result: dict[str, Any]
    reply: str
    key: str | None

    @property
    def expected(self) -> Expected:
        return Expected("call", (AcceptedCall.exactly(self.call),))

    @property
    def source(self) -> str:
        return _source(self.tool, self.wording)


def _source(tool: WorldTool, wording: str) -> str:
    return f"{tool.tool.name}: {wording}"


def _fields(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]


def _values(rng: random.Random, tool: WorldTool, names: Sequence[str], side: Side) -> dict[str, Any]:
    """A value for each argument; two arguments of one source never get the same one."""
    values: dict[str, Any] = {}
    for name in tool.tool.parameters["properties"]:
        if name in names:
            source: Sequence[Any] = (
                side.of((POOLS[tool.slots[name]].train, POOLS[tool.slots[name]].test))
                if name in tool.slots
                else tool.tool.parameters["properties"][name]["enum"]
            )
            values[name] = rng.choice([value for value in source if value not in values.values()] or source)
            if name in tool.slots and not side.test and rng.random() < _MADE_UP:
                new = made_up(rng, values[name])
                if new not in POOLS[tool.slots[name]].test:
                    values[name] = new
    if tool.tool.name == "pick_number" and {"low", "high"} <= values.keys():
        values["low"], values["high"] = sorted((values["low"], values["high"]))
    return values


def made_up(rng: random.Random, value: Any) -> Any:
    """A value of the same shape that nobody has met.

    Training on a few dozen values teaches to remember them; what is asked for later has to be copied. Numbers, dates
    and times stay: there are too few of them, and the test set has its own.
    """
    if not isinstance(value, str) or value in POOLS["date"].train or value in POOLS["time"].train:
        return value

    return altered(rng, value)


def evaluate(expression: str) -> int:
    """The value of `a + b`, `a - b` or `a * b`, as the catalogue's pool of expressions writes them."""
    left, sign, right = expression.split()
    return {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]


def _result(rng: random.Random, tool: WorldTool, values: dict[str, Any], side: Side) -> dict[str, Any]:
    """What the tool returns; where it computes, what it really comes to."""
    result = {
        field: rng.choice(side.of((POOLS[source].train, POOLS[source].test)) if isinstance(source, str) else source)
        for field, source in tool.result.items()
    }
    match tool.tool.name:
        case "calculate":
            computed: Any = evaluate(values["expression"])
        case "pick_number":
            computed = rng.randint(values["low"], values["high"])
        case "convert_length":
            computed = round(values["value"] * _LENGTHS[values["source"]] / _LENGTHS[values["target"]], 2)
        case _:
            return result
    return {field: computed if place == 0 else value for place, (field, value) in enumerate(result.items())}


def function_of(name: str) -> Callable[..., dict[str, Any]]:
    """A tool of the world to be called. What it returns is made up, the same for the same arguments, and right where
    the tool computes; ValueError for an expression that the world's calculator does not know.
    """

    def call(**arguments: Any) -> dict[str, Any]:
        rng = random.Random(f"{name} {jsontext.dumps(sorted(arguments.items()))}")
        try:
            return _result(rng, BY_NAME[name], arguments, Side())
        except (KeyError, ZeroDivisionError) as error:
            raise ValueError(f"{name} knows nothing of {error}") from error

    return call


def ask(rng: random.Random, tool: WorldTool, side: Side, templates: Sequence[str] | None = None) -> Asked:
    """Ask for a tool in one of its wordings."""
    template = rng.choice(templates or (tool.test if side.test else tool.train))
    values = _values(rng, tool, _fields(template), side)
    result = _result(rng, tool, values, side)
    reply = rng.choice(side.of(tool.replies))
    told = [field for field in _fields(reply) if field in result]
    return Asked(
        tool,
        template,
        template.format(**values),
        ToolCall(tool.tool.name, values),
        result,
        reply.format(**values, **{field: value for field, value in result.items() if field not in values}),
        str(result[told[0]]) if told else None,
    )


def _offer(
    rng: random.Random, side: Side, wanted: Sequence[WorldTool], keep_out: Callable[[WorldTool], bool] | None = None
) -> tuple[Any, ...]:
    """One to six tools in random order, the wanted ones among them, siblings in a domain likelier than strangers."""
    others = [tool for tool in side.tools() if tool not in wanted and not (keep_out and keep_out(tool))]
    siblings = [tool for tool in others if any(tool.domain == one.domain for one in wanted)]
    size = max(len(wanted), rng.choice((1, 2, 3, 3, 4, 4, 5, 6)))
    chosen = list(wanted)
    while len(chosen) < size and len(chosen) < len(others) + len(wanted):
        pool = siblings if siblings and rng.random() < 0.4 else others
        tool = rng.choice(pool)
        if tool not in chosen:
            chosen.append(tool)
        siblings = [one for one in siblings if one not in chosen]
    rng.shuffle(chosen)
    return tuple(one.tool for one in chosen)


def _user(text: str) -> Message:
    return Message("user", text)


def _calls(*asked: Asked) -> Message:
    return Message("assistant", tool_calls=tuple(one.call for one in asked))


def _results(*asked: Asked) -> list[Message]:
    return [Message("tool", jsontext.dumps(one.result), name=one.call.name) for one in asked]


def _answer(text: str) -> Message:
    return Message("assistant", text)


def _callable(rng: random.Random, side: Side) -> WorldTool:
    return rng.choice([tool for tool in side.tools() if tool.tool.name != "calculate"])


def _finish(
    id: str,
    kind: str,
    tools: tuple[Any, ...],
    side: Side,
    messages: list[Message],
    *last: Asked,
    before: tuple[Expected, ...] = (),
) -> Transcript:
    """A transcript that ends in calls, its source the first one's; for fine-tuning it goes on to results and answer."""
    accepted = tuple(AcceptedCall.exactly(one.call) for one in last)
    messages = [*messages, _calls(*last)]
    expected = (*before, Expected("call", accepted))
    if id.startswith("sft"):
        reply = " ".join(one.reply for one in last)
        messages += [*_results(*last), _answer(reply)]
        expected += (Expected("answer", text=reply),)
    return Transcript(id, tools, tuple(messages), kind, expected, last[0].source)


def single(rng: random.Random, side: Side, id: str) -> Transcript:
    """One request that needs one call."""
    asked = ask(rng, _callable(rng, side), side)
    return _finish(id, "single", _offer(rng, side, [asked.tool]), side, [_user(asked.text)], asked)


def hard_sum(rng: random.Random, side: Side, id: str) -> Transcript:
    """Arithmetic that does need the calculator."""
    asked = ask(rng, BY_NAME["calculate"], side)
    return _finish(id, "hard_sum", _offer(rng, side, [asked.tool]), side, [_user(asked.text)], asked)


def parallel(rng: random.Random, side: Side, id: str) -> Transcript:
    """Two requests in one message: two calls in one turn."""
    first = ask(rng, _callable(rng, side), side)
    second = ask(rng, first.tool if first.call.arguments and rng.random() < 0.3 else _callable(rng, side), side)
    if second.call == first.call:
        return parallel(rng, side, id)
    text = first.text + rng.choice(side.of(JOINS)).format(
        second.text[0].lower() + second.text[1:] if _lowers(second.text) else second.text
    )
    wanted = [first.tool] if second.tool is first.tool else [first.tool, second.tool]
    return _finish(id, "parallel", _offer(rng, side, wanted), side, [_user(text)], first, second)


def _lowers(text: str) -> bool:
    """Whether a sentence may go on after a join without its capital: not where it starts with a value or with I."""
    first = text.split()[0]
    return (
        first.isalpha()
        and first != "I"
        and any(text.startswith(first) for tool in CATALOGUE for text in tool.train + tool.test)
    )


def multi_turn(rng: random.Random, side: Side, id: str) -> Transcript:
    """A second request after a first one was served: about something else, or the same for another value."""
    first = ask(rng, _callable(rng, side), side)
    required = first.tool.tool.parameters["required"]
    if len(required) == 1 and first.call.arguments.keys() == set(required) and rng.random() < 0.4:
        second = ask(rng, first.tool, side, [rng.choice(side.of(AGAIN)).format("{" + required[0] + "}")])
    else:
        second = ask(rng, _callable(rng, side), side)
    if second.call == first.call:
        return multi_turn(rng, side, id)
    wanted = [first.tool] if second.tool is first.tool else [first.tool, second.tool]
    messages = [_user(first.text), _calls(first), *_results(first), _answer(first.reply), _user(second.text)]
    before = (first.expected, Expected("answer", text=first.reply))
    return _finish(id, "multi_turn", _offer(rng, side, wanted), side, messages, second, before=before)


def _text(
    id: str,
    kind: str,
    tools: tuple[Any, ...],
    messages: list[Message],
    gold: str,
    expected: Expected,
    before: tuple[Expected, ...] = (),
    source: str | None = None,
) -> Transcript:
    return Transcript(id, tools, (*messages, _answer(gold)), kind, (*before, expected), source)


def small_talk(rng: random.Random, side: Side, id: str) -> Transcript:
    """Said in passing; any friendly answer is right."""
    said, answer = knowledge.draw_small_talk(rng, side.test)
    tools, source = _offer(rng, side, []), f"small_talk: {said}"
    return _text(id, "small_talk", tools, [_user(said)], answer, Expected("answer"), source=source)


def _sum(rng: random.Random, side: Side) -> tuple[str, str, str]:
    """A question, its answer and its source."""
    expression, result = knowledge.draw_sum(rng)
    wording = rng.choice(knowledge.SUM_TEST if side.test else knowledge.SUM_TRAIN)
    return wording.format(expression), str(result), f"sum: {wording}"


def direct(rng: random.Random, side: Side, id: str) -> Transcript:
    """A fact or a sum of single digits, with no related tool on offer."""
    drawn = _sum(rng, side) if rng.random() < 0.5 else knowledge.draw_worded_fact(rng, side.test)
    question, answer, source = drawn
    tools = _offer(rng, side, [], keep_out=lambda tool: tool.domain in ("knowledge", "maths", "language"))
    return _text(id, "direct", tools, [_user(question)], answer, Expected("answer", text=answer), source=source)


def trivial_sum(rng: random.Random, side: Side, id: str) -> Transcript:
    """A sum of single digits with a calculator on offer."""
    question, answer, source = _sum(rng, side)
    return _text(
        id,
        "trivial_sum",
        _offer(rng, side, [BY_NAME["calculate"]]),
        [_user(question)],
        answer,
        Expected("answer", text=answer),
        source=source,
    )


def known_fact(rng: random.Random, side: Side, id: str) -> Transcript:
    """A well-known fact with a search tool on offer."""
    question, answer, source = knowledge.draw_worded_fact(rng, side.test)
    return _text(
        id,
        "known_fact",
        _offer(rng, side, [BY_NAME["web_search"]]),
        [_user(question)],
        answer,
        Expected("answer", text=answer),
        source=source,
    )


def _told(rng: random.Random, side: Side) -> Asked:
    """A request whose tool tells something, with a result to tell."""
    tools = [tool for tool in side.tools() if tool.tool.name.startswith(_TELLS)]
    while (asked := ask(rng, rng.choice(tools), side)).key is None:
        pass
    return asked


def answered(rng: random.Random, side: Side, id: str) -> Transcript:
    """A request whose answer stands in the conversation: told by the user, or found out a turn before."""
    asked = _told(rng, side)
    tools = _offer(rng, side, [asked.tool])
    expected = Expected("answer", text=asked.key)
    if rng.random() < 0.5:
        wording = rng.choice(side.of(TOLD))
        text, source = wording.format(reply=asked.reply, request=asked.text), _source(asked.tool, wording)
        return _text(id, "answered", tools, [_user(text)], asked.reply, expected, source=source)
    again = rng.choice(side.of(REPEATS))
    messages = [
        _user(asked.text),
        _calls(asked),
        *_results(asked),
        _answer(asked.reply),
        _user(again),
    ]
    source = _source(asked.tool, again)
    return _text(id, "answered", tools, messages, asked.reply, expected, (asked.expected, expected), source)


def after_result(rng: random.Random, side: Side, id: str) -> Transcript:
    """The call was made and its result is there: now it is to be answered, not called again."""
    asked = _told(rng, side)
    messages = [_user(asked.text), _calls(asked), *_results(asked)]
    tools, expected = _offer(rng, side, [asked.tool]), Expected("answer", text=asked.key)
    return _text(id, "after_result", tools, messages, asked.reply, expected, (asked.expected,), asked.source)


def no_tool(rng: random.Random, side: Side, id: str) -> Transcript:
    """A request that no tool on offer can serve."""
    asked = ask(rng, _callable(rng, side), side)
    alike = [group for group in LOOKALIKES if asked.tool.tool.name in group]

    def fits(tool: WorldTool) -> bool:
        named = tool.tool.name
        return tool.domain == asked.tool.domain or named == "web_search" or any(named in group for group in alike)

    return _text(
        id,
        "no_tool",
        _offer(rng, side, [], keep_out=fits),
        [_user(asked.text)],
        rng.choice(REFUSALS),
        Expected("refuse"),
        source=asked.source,
    )


def missing_argument(rng: random.Random, side: Side, id: str) -> Transcript:
    """A request that lacks a required argument: it has to be asked for."""
    tool = rng.choice([tool for tool in side.tools() if side.of(tool.bare)])
    template = rng.choice(side.of(tool.bare))
    present = _fields(template)
    text = template.format(**_values(rng, tool, present, side))
    lacking = tuple(name for name in tool.tool.parameters["required"] if name not in present)
    tools, expected = _offer(rng, side, [tool]), Expected("ask", lacking=lacking)
    asks = tool.asks[lacking[0]]
    return _text(id, "missing_argument", tools, [_user(text)], asks, expected, source=_source(tool, template))


def declined(rng: random.Random, side: Side, id: str) -> Transcript:
    """A request that names what a tool does, and does not want it."""
    tool = _callable(rng, side)
    deed = tool.tool.description[0].lower() + tool.tool.description[1:].rstrip(".")
    word = rng.choice(side.of(SAID))
    wording = rng.choice(side.of(DECLINES))
    gold = word.capitalize() + rng.choice((".", "!"))
    tools, text = _offer(rng, side, [tool]), wording.format(deed=deed, word=word)
    source = _source(tool, wording)
    return _text(id, "declined", tools, [_user(text)], gold, Expected("answer", text=word), source=source)


Kind = Callable[[random.Random, Side, str], Transcript]
KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        single, parallel, multi_turn, hard_sum, small_talk, direct, after_result,
        trivial_sum, known_fact, answered, no_tool, missing_argument, declined,
    )
}  # fmt: skip
TEMPTING = {"trivial_sum", "known_fact", "answered", "no_tool", "missing_argument", "declined"}
