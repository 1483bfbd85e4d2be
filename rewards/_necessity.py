"""Whether a request needs a tool, and why not, where nobody has said what is right: rules over its words.

English-centred, without a model. Each reason is a small pure function; `necessity` asks them in turn, and abstains
where none is sure. benchmarks/necessity.py says how often they are right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.transcript import Act, Message, Request, Tool
from rewards import _fit, _words

Reason = Literal[
    "trivial_sum", "answered", "small_talk", "no_tool_fits", "missing_argument", "declined", "tool_fits", "unknown"
]

_FITS = 1.0  # a word of the tool's name, or two of its description
_FITTING_SHARE = 1 / 6  # of the words of a request: in a long one some word of some tool stands by chance
_SMALL_TERM, _SMALL_FACTOR = 20, 10
_LONGEST = 2000  # characters: what is longer holds a document, in which words in common say nothing


@dataclass(frozen=True, slots=True)
class Necessity:
    """The act that the rules hold right, None where they abstain, and the reason; `confidence` is from 0 to 1.

    no_tool_fits without an act says that no call is right, but not whether the model can answer of itself or has to
    refuse. The confidence of a reason is the share of requests of the built-in world, in its training wordings, where
    it told rightly that a call is or is not needed: it ranks the reasons, and promises nothing for other data.
    """

    act: Act | None
    reason: Reason
    confidence: float

    @property
    def needs_tool(self) -> bool | None:
        """Whether a call is right; None where the rules abstain."""
        return None if self.reason == "unknown" else self.act == "call"


# Measured as benchmarks/necessity.py does, on preference requests of ten seeds; what was hardly ever wrong there is
# not certain for that.
_CONFIDENCE: dict[Reason, float] = {
    "trivial_sum": 0.99,
    "small_talk": 0.99,
    "declined": 0.99,
    "answered": 0.99,
    "missing_argument": 0.99,
    "tool_fits": 0.96,
    "no_tool_fits": 0.96,
    "unknown": 0.0,
}


def _because(reason: Reason, act: Act | None) -> Necessity:
    return Necessity(act, reason, _CONFIDENCE[reason])


_UNKNOWN = _because("unknown", None)


def necessity(request: Request) -> Necessity:
    """What the rules say of a request; its expected act, its gold turn and its kind are never looked at.

    >>> from data.transcript import Expected
    >>> def ask(text, *tools):
    ...     return necessity(Request("r", "", tools, (Message("user", text),), Expected("answer")))
    >>> city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> weather = Tool("get_weather", "Get the current weather in a city.", city)
    >>> ask("How is the weather in Oslo?", weather).reason, ask("How is the weather?", weather).reason
    ('tool_fits', 'missing_argument')
    >>> ask("Lock the front door.", weather)
    Necessity(act='refuse', reason='no_tool_fits', confidence=0.96)
    """
    if has_result(request.messages):
        return _because("answered", "answer")
    last = next((message for message in reversed(request.messages) if message.role == "user"), None)
    if last is None or not last.content.strip() or request.messages[-1].role != "user":
        return _UNKNOWN
    text, before = last.content.replace("’", "'"), request.messages[:-1]
    if len(text) > _LONGEST:
        return _UNKNOWN
    if is_small_talk(text):
        return _because("small_talk", "answer")
    if is_trivial_sum(text):
        return _because("trivial_sum", "answer")
    if is_repeat(text, before) and not continued(text, before):
        return _because("answered", "answer")
    if is_declined(text, request.tools):
        return _because("declined", "answer")
    told = is_told(text, request.tools)
    if told is not False:
        return _because("answered", "answer") if told else _UNKNOWN
    return _by_tools(text, request.tools, before)


def _by_tools(text: str, tools: Sequence[Tool], before: Sequence[Message]) -> Necessity:
    """What the tools on offer say: one fits, one fits but lacks an argument, or none does."""
    if (called := continued(text, before)) is not None and any(tool.name == called for tool in tools):
        return _because("tool_fits", "call")
    if no_tool_fits(text, tools):
        return _because("no_tool_fits", "refuse" if tools and not is_question(text) else None)
    fitting = fitting_tools(text, tools)
    gaps = {_fit.lacking(text, tool) for tool in fitting}
    if gaps == {False}:
        return _because("tool_fits", "call")
    if gaps == {True} and not any(
        message.role == "user" for message in before
    ):  # an earlier turn may hold what this one lacks
        return _because("missing_argument", "ask")
    return _UNKNOWN


_NUMERAL = r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_SUM = re.compile(
    rf"(?<![\w.,])(?P<left>{_NUMERAL})\s*(?:(?P<plus>\+|\bplus\b|\band\b)|(?P<minus>[-\u2212\u2013]|\bminus\b)"
    rf"|(?P<times>[*×·x]|\btimes\b|\bmultiplied by\b)|(?P<over>[/÷]|\bdivided by\b))"
    rf"\s*(?P<right>{_NUMERAL})(?!\w|[.,]\d)",
    re.IGNORECASE,
)
_ABOUT_SUMS = (
    "a add adds all an and answer answers are asks be calculate can come comes compute could difference do does equal"
    " equals evaluate find for forgot get give gives have head help here hey hi homework how i if in is it just know"
    " let like make makes math maths me mind much my need number of okay one out please problem product question quick"
    " quickly quotient remind result s say should simple so solve sum sums tell telling that that's the then this to"
    " total up value want what what's whats will with work would you"
)
_SUM_WORDS = frozenset(_ABOUT_SUMS.split())


def is_trivial_sum(text: str) -> bool:
    """Whether a text asks for one sum that a person does in the head, and for nothing else.

    Terms go up to 20, factors and divisors up to 10; a division must come out even. "and" is a plus only where adding
    is spoken of.

    >>> [is_trivial_sum(text) for text in ("What is 7 x 8?", "1+1", "Add two and two", "17 * 23", "1 + 2 + 3")]
    [True, True, True, False, False]
    >>> is_trivial_sum("Set a timer of 2 + 3 minutes.")
    False
    """
    found = _SUM.search(text)
    if found is None:
        return False
    rest = f"{text[: found.start()]} {text[found.end() :]}".casefold()
    if re.search(r"[\d+*×·÷^%]", rest) or not set(re.findall(r"[^\W\d_]+(?:'s)?", rest)) <= _SUM_WORDS:
        return False
    left, right = (int(_words.digits(found[side].casefold())) for side in ("left", "right"))
    if found["plus"] or found["minus"]:
        spoken = (found["plus"] or "").casefold() != "and" or re.search(r"\b(?:add|sum|total)\b", rest)
        return bool(spoken) and max(left, right) <= _SMALL_TERM
    if found["times"]:
        return max(left, right) <= _SMALL_FACTOR
    return 0 < right <= _SMALL_FACTOR and left <= _SMALL_FACTOR**2 and left % right == 0


# Said of nothing in particular: a message made of these alone asks for nothing.
_PLEASANTRY = re.compile(
    r"\b(?:hello|hi|hey|howdy|greetings|welcome|cheers|farewell|good (?:morning|day|afternoon|evening|night)|good ?bye"
    r"|bye|see you(?: (?:later|soon|tomorrow))?|take care|have a (?:nice|good|great) (?:day|evening|night|weekend|one)"
    r"|(?:many )?thanks(?: (?:so much|a lot|again))?|thank you(?: (?:very|so) much)?|how are you(?: (?:doing|today))*"
    r"|how(?: is|'s) it going|what's up|(?:nice|good|pleased) to (?:meet|see) you|(?:you are|you're) (?:welcome|great)"
    r"|well done|good job|no problem|never mind|(?:who|what|how old) are you|what(?: is|'s) your name|what can you do"
    r"|are you (?:an? )?(?:robot|bot|human|person|machine|real|there)|(?:tell me|talk) about yourself"
    r"|that(?: is|'s) all"
    r"|i(?: am|'m| feel)(?: (?:so|very|a bit|a little))? (?:happy|tired|sad|bored|glad|fine|good|great|well))\b",
    re.IGNORECASE,
)
_AROUND_THEM = (
    "again all and are awesome cool dear everyone everything excellent for friend great help helped helpful i it lovely"
    " me my nice now of oh ok okay perfect really so still that the there this to today too very was wonderful yes you"
    " your"
)
_FILLERS = frozenset(_AROUND_THEM.split())


def is_small_talk(text: str) -> bool:
    """Whether a text is a greeting, thanks, a farewell or a word about the assistant, and nothing else.

    >>> [is_small_talk(text) for text in ("Hi there!", "Great, thanks for the help.", "Hi, is it raining in Oslo?")]
    [True, True, False]
    """
    rest, found = _PLEASANTRY.subn(" ", text)
    return found > 0 and set(re.findall(r"[^\W_]+", rest.casefold())) <= _FILLERS


_REPEAT = re.compile(
    r"\b(?:(?:say|tell|repeat)\b.*\b(?:again|once more|one more time|that|it)\b|once more|one more time"
    r"|what (?:was that|did you (?:say|find|tell))|repeat (?:that|it|please)|come again|remind me what"
    r"|(?:did not|didn't) (?:catch|hear|get) (?:that|it|you)|(?:i )?missed (?:that|it))\b",
    re.IGNORECASE,
)


def is_repeat(text: str, before: Sequence[Message]) -> bool:
    """Whether a text of few words asks for what was said before, and the assistant has said something.

    >>> is_repeat("Can you say that again?", [Message("user", "Time?"), Message("assistant", "It is noon.")])
    True
    >>> is_repeat("Can you say that again?", [])
    False
    """
    said = any(message.role == "assistant" and message.content.strip() for message in before)
    return said and len(_words.words(text)) <= 12 and bool(_REPEAT.search(text))


_FAILED = re.compile(r"\b(?:error|failed|failure|exception|timed? ?out|not found|denied|unavailable|invalid)\b", re.I)


def has_result(messages: Sequence[Message]) -> bool:
    """Whether the conversation ends in a tool result that does not speak of a failure: it is to be told, not fetched.

    A task of several steps looks the same between two of them.

    >>> has_result([Message("user", "Time in Oslo?"), Message("tool", '{"time": "8:00"}')])
    True
    >>> has_result([Message("user", "Time in Oslo?"), Message("tool", '{"error": "timed out"}')])
    False
    """
    return bool(messages) and messages[-1].role == "tool" and not _FAILED.search(messages[-1].content)


_TOLD = re.compile(
    r"\b(?:(?:was|were|been|am) (?:just )?(?:told|informed)|(?:is|was) what i (?:just )?(?:read|heard|saw|was told)"
    r"|i(?:'ve)? (?:just |have |have just |already )?(?:read|heard|learned|learnt|checked|saw|found out|looked it up)\b"
    r"|you should know|(?:already|now) know th(?:at|is)|just so you know|knowing this|keep (?:this|that) in mind"
    r"|with (?:this|that) in mind|according to|going by what|(?:says?|said|tells?|told me|informed me|report)(?: that"
    r"| this| here)?:|(?:told me so|(?:phone|screen|paper|radio) says)\b|(?:on|in) the (?:radio|news|screen)|fyi"
    r"|for your information|(?:please note|what i know|(?:remember|note) the following|first, some news|this answer):"
    r"|(?:listen to|remember) this|(?:tell|telling) you\b|that much is certain|know that for sure|(?:believe|take it"
    r" from) me|those are the facts|what i just said|(?:here's|here is) a fact|have it right here|given\b"
    r"|did you get that)",
    re.IGNORECASE,
)


def is_told(text: str, tools: Sequence[Tool]) -> bool | None:
    """Whether the user tells in one sentence what another one asks; None where they tell something else about it.

    A sentence with a mark of telling ("I was told", "according to") must name what is asked about, and speak of what a
    tool is for: then it holds the answer.

    >>> weather = Tool("get_weather", "Get the weather in a city.", {})
    >>> is_told("I just heard: the weather in Oslo is fine. How is the weather in Oslo?", [weather])
    True
    >>> is_told("I just heard: Oslo is pretty. How is the weather in Oslo?", [weather])  # None
    >>> is_told("How is the weather in Oslo?", [weather])
    False
    """
    if not _TOLD.search(text):
        return False
    sentences = [part for part in re.split(r"(?<=[.!?:])\s+", text) if _fit.stems(part)]
    if len(sentences) < 2:
        return False
    spoken = [set(_fit.stems(part)) for part in sentences]
    for place, asked in enumerate(spoken):
        said = set().union(*spoken[:place], *spoken[place + 1 :])
        if asked & said and any(_fit.worth(asked, tool) > 0 and _fit.worth(said, tool) > 0 for tool in tools):
            return True
    return None


_NEGATED = re.compile(
    r"\b(?:(?:do not|don't|please not|must not|mustn't|should not|shouldn't|need not|needn't|never|no need to|not to"
    r"|without|rather than|instead of|rather you didn't|not (?:going|asking you|necessary) to|no (?:need|reason) to"
    r"|nobody asked you to|too late to|let's not)\b(?!\s+(?:know|forget|hesitate|worry|remember|understand|care|mind"
    r"|have|let|think|like|see|feel|believe|bother|want|need|try)\b)|(?:do not|don't|no longer) (?:want|like|need|have"
    r"|try)(?: you)? to|(?:do not|don't) bother to)\s*(?P<deed>[^,.;:!?]*)",
    re.IGNORECASE,
)


def is_declined(text: str, tools: Sequence[Tool]) -> bool:
    """Whether a text names what a tool does only to say that it is not wanted: the rest of it fits no tool.

    >>> weather = Tool("get_weather", "Get the weather in a city.", {})
    >>> is_declined("Do not check the weather, just say hi.", [weather])
    True
    >>> is_declined("Do not be vague: how is the weather in Oslo?", [weather])
    False
    """
    deeds = " ".join(found["deed"] for found in _NEGATED.finditer(text))
    rest = _NEGATED.sub(" ", text)
    named = any(_fit.score(deeds, tool) >= _FITS for tool in tools)
    return named and bool(_words.words(rest)) and not any(_fit.score(rest, tool) for tool in tools)


_FOLLOW_UP = re.compile(
    r"\s*(?:(?:okay|good|thanks|please|next one)\W+)?(?:(?:and|what about|how about)\b[^.!?]*[?.]"
    r"|(?:(?:and|now|then|can you|could you|please|would you) )*(?:do |repeat )?(?:the same|same|that|it)\b.*\b(?:for"
    r"|in|with|to)\b|again\b|once more\b.*\bwith|make it\b|let's try\b|now \w|for .* (?:too|as well)\b"
    r"|.*\bfor .* too\b)",
    re.IGNORECASE,
)


def continued(text: str, before: Sequence[Message]) -> str | None:
    """The tool that a short message asks for again with another value: the one that was called last.

    >>> from data.transcript import ToolCall
    >>> called = Message("assistant", "", (ToolCall("get_weather", {"city": "Oslo"}),))
    >>> continued("And in Rome?", [called]), continued("Thanks a lot for Rome!", [called])
    ('get_weather', None)
    """
    calls = [call.name for message in before for call in message.tool_calls]
    short = len(_fit.stems(text)) <= 4 and _FOLLOW_UP.match(text)
    return calls[-1] if calls and short else None


_QUESTION = re.compile(
    r"^(?:please )?(?:(?:can|could|do|would) you (?:tell|know|say|explain|name)|tell me|name|explain|describe"
    r"|(?:say|give me|tell us) (?:the|how|what|which|who|where|when|why)"
    r"|who|whose|what|what's|which|when|where|why|how|is|are|was|were|does|did|do|has|have|can|could|should)\b|\?\s*$",
    re.IGNORECASE,
)


def is_question(text: str) -> bool:
    """Whether a text asks to be told something, which a model may know of itself.

    >>> is_question("Name the capital of Peru."), is_question("Lock the front door.")
    (True, False)
    """
    return bool(_QUESTION.search(text.strip()))


# Neither "555-0142" nor "3/4/2026" is arithmetic.
_ARITHMETIC = re.compile(
    r"\d\s*(?:[+*×÷^]|\b(?:plus|minus|times|divided by|multiplied by)\b)\s*\d|\d\s+[-\u2212/x]\s+\d", re.IGNORECASE
)


def fitting_tools(text: str, tools: Sequence[Tool]) -> list[Tool]:
    """The tools that a text speaks of most, if it speaks of them enough: a word of the name, and more in a long text.

    >>> tools = [Tool("get_weather", "Get the weather.", {}), Tool("play_song", "Play a song.", {})]
    >>> [tool.name for tool in fitting_tools("Could you play a song?", tools)]
    ['play_song']
    """
    scores = [_score(text, tool) for tool in tools]
    enough = max(_FITS, _FITTING_SHARE * len(set(_fit.stems(_fit.without_quotes(text)))), *scores)
    return [tool for tool, score in zip(tools, scores, strict=True) if score >= enough]


def _score(text: str, tool: Tool) -> float:
    return _fit.score(f"{text} calculate" if _ARITHMETIC.search(text) else text, tool)


_SEARCHES = frozenset(map(_fit.stem, ("web", "internet", "online", "google", "wikipedia", "knowledge")))


def no_tool_fits(text: str, tools: Sequence[Tool]) -> bool:
    """Whether a text has no word in common with any tool on offer, nor a value for one.

    Never for a question where the web can be searched, which is for any question, nor for a text that is not English.

    >>> tools = [Tool("get_weather", "Get the weather in a city.", {})]
    >>> no_tool_fits("Lock the front door.", tools), no_tool_fits("Is it raining in the city?", tools)
    (True, False)
    """
    if not _fit.is_english(text):
        return False
    if is_question(text) and any(_fit.vocabulary(tool).name & _SEARCHES for tool in tools):
        return False
    return bool(_fit.stems(text)) and not any(_score(text, tool) or _fit.fills(text, tool) for tool in tools)
