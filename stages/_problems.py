"""What stage=check looks for: every problem by its word, what it means, what to do, and which silent failure it is.

A problem that rejects makes a row unusable: those of reading and order are refused by every stage that loads the row,
those of rendering by whatever renders it with this model. The others are warnings. The silent failures P01 to P17 and
P29 are a catalogue of bugs that trained models without an error; each is a problem here or stands in HELD.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of mistake; `code` is its word in metrics.json, rejected.jsonl and warnings.jsonl."""

    code: str
    failures: tuple[str, ...]
    rejects: bool
    means: str
    advice: str


def _rejects(code: str, failures: str, means: str, advice: str) -> Problem:
    return Problem(code, tuple(failures.split()), True, means, advice)


def _warns(code: str, failures: str, means: str, advice: str) -> Problem:
    return Problem(code, tuple(failures.split()), False, means, advice)


PROBLEMS = (
    # Found in reading (data/), and refused by every stage.
    _rejects("unreadable", "P05", "no JSON object, or not as many cells as the header", "mend the line"),
    _rejects("field", "P03 P05", "a field is missing or of a wrong type", "mend it, or choose another data=FORMAT"),
    _rejects("schema", "P06", "no JSON Schema can be made of a tool's parameters", "mend the tool"),
    _rejects(
        "unknown_tool", "P06", "a call of a tool that is not on offer", "offer it: in the row, or data.tools=FILE"
    ),
    _rejects(
        "arguments", "P06", "a call breaks the schema of its tool", "mend the call, or the schema if that is wrong"
    ),
    _rejects("answer", "P05", "no accepted call where one is needed", "name the file of answers: data.answers=FILE"),
    _rejects("empty", "P09", "an assistant turn without text or call", "leave the turn out, or the row"),
    _rejects("role_order", "P10", "the assistant speaks twice running", "join the turns, or put back what is missing"),
    _rejects("orphan_result", "P10", "a result whose id belongs to no call before it", "give it the id of its call"),
    _rejects(
        "unanswered_call", "P10", "a call that no result answers, and the assistant goes on", "put back its result"
    ),
    _rejects("same_pair", "P29", "chosen and rejected are the same", "leave the row out: nothing can be preferred"),
    # Found in rendering with this tokenizer, chat template and dialect.
    _rejects("template", "P12", "the chat template refuses the conversation", "choose model.dialect=json"),
    _rejects("template_drops", "P01 P02", "the chat template leaves out what the row has", "choose model.dialect=json"),
    _rejects("round_trip", "P03 P17", "what is trained does not read back as the call", "choose another model.dialect"),
    _rejects(
        "labels", "P09 P10", "trained tokens are not exactly the assistant's turns", "choose another model.dialect"
    ),
    _rejects(
        "end_of_turn", "P08", "the end of a turn is not trained: it would never stop", "name a model.chat_template"
    ),
    _rejects("arrow", "P04", "the row is another one when `datasets` gives it back", "report it: this is our mistake"),
    # Worth a look; nothing is left out for them.
    _warns("too_long", "P13", "more tokens than model.max_length: sft leaves the row out", "raise model.max_length"),
    _warns("duplicate", "P14", "the same conversation twice, but for case and punctuation", "leave out all but one"),
    _warns("overlap", "P14", "what it asks is asked in data.test too", "leave it out of data.train"),
    _warns("unusual_order", "P10", "a system turn late, or two user turns running", "see that it is meant so"),
    _warns("empty_turn", "P13", "a user or system turn without text", "see that nothing was lost"),
    _warns("reads_as_call", "P17", "a plain answer that reads as an attempt to call", "reword it, or make it a call"),
    _warns(
        "swapped_pair", "P29", "rejected earns no fewer points than chosen", "swap them, or see to the reward table"
    ),
    _warns("prefix_pair", "P29", "one of chosen and rejected is how the other begins", "see that nothing was cut off"),
    _warns("bos", "P07", "training, sampling and serving begin with unlike tokens", "name a model.chat_template"),
    _warns("tokenizer", "P15", "text does not survive the tokenizer", "load the checkpoint's own tokenizer files"),
)
BY_CODE = {problem.code: problem for problem in PROBLEMS}

# What cannot happen here, and why; the tests of these modules hold it up.
HELD = {
    "P04": "rows go into `datasets` as token ids, never as messages: there is no argument to fill (stages/_rows.py)",
    "P05": "rows in = rows kept + rows rejected is asserted, and sft counts what it leaves out by reason",
    "P07": "the template writes every special token and the tokenizer adds none (stages/_sampling.py)",
    "P11": "prompt and answer are encoded apart, exactly as in generation (stages/_rows.py)",
    "P12": "where a template renders history another way, each turn is a row of its own (stages/_rows.py)",
    "P13": "a row that is too long is counted and left out, never cut",
    "P16": "every stage encodes its rows anew; no tokenised rows are kept",
    "P17": "the template that trains is the one that the merged model is saved with (stages/merge.py)",
}
