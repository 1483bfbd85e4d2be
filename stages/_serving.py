"""What lets others serve a merged model: a chat template that shows tools, the name of vLLM's parser, a Modelfile.

Nothing here runs vLLM or Ollama. Texts are made from the tokenizer's own rendering and tested against it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from data import dialects
from data.transcript import Message, Tool, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = ("hermes", "json", "pythonic", "router")  # the dialects that _tools.jinja can write
_WORDS = ("zqxa", "zqxb", "zqxc", "zqxd")  # found again in what a template renders
_CHATS = (
    (("system", "a b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
    (("user", "c"), ("assistant", "d"), ("user", "e")),
    (("user", "c"),),
)


def template_with_tools(template: str, dialect: str) -> str:
    """A chat template that, given `tools`, shows them as this dialect does; without any it renders what it did.

    `native` has that from its own template; a dialect that _tools.jinja does not know is left to the client.
    """
    if dialect not in SHOWN:
        return template
    instruction = json.dumps(dialects.get(dialect).INSTRUCTION.split("{tools}"))
    shown = (Path(__file__).parent / "_tools.jinja").read_text(encoding="utf-8").strip()
    variables = f'{{%- set tool_dialect = "{dialect}" -%}}{{%- set tool_instruction = {instruction} -%}}'
    return template if template.startswith(variables) else f"{variables}{shown}{template}"


def tool_call_parser(tokenizer: PreTrainedTokenizerBase, dialect: str) -> str | None:
    """The name of vLLM's parser that reads the calls of this dialect, or None where it has none.

    `native` is what the chat template makes of a call: <tool_call> blocks are read by hermes, a bare object with
    parameters by llama3_json. A list of objects (`json`, `router`) is read by none.
    """
    if dialect != "native":
        return dialect if dialect in ("hermes", "pythonic") else None
    text = _native_call(tokenizer, dialects.get(dialect))
    if text.startswith("<tool_call>"):
        return "hermes"
    return "llama3_json" if text.startswith('{"name"') and '"parameters"' in text else None


def _native_call(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> str:
    from stages._sampling import TemplateError, split_turn

    tool = Tool(_WORDS[0], "", {"type": "object", "properties": {_WORDS[1]: {"type": "string"}}})
    turn = Message("assistant", tool_calls=(ToolCall(_WORDS[0], {_WORDS[1]: _WORDS[3]}),))
    try:
        return split_turn(tokenizer, dialect, (tool,), (Message("user", _WORDS[2]), turn))[1]
    except TemplateError:
        return ""


def modelfile(tokenizer: PreTrainedTokenizerBase, dialect: str) -> str:
    """Ollama's Modelfile for the model in the same folder.

    TEMPLATE says in Go's language what the chat template renders, where each message is rendered by itself; else it is
    left out, and Ollama guesses. It shows no tools: those of `native` are in the Jinja template alone.
    """
    from stages._sampling import turn_end

    stop = turn_end(tokenizer).text.strip()
    lines = ["FROM .", "PARAMETER temperature 0", f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}"]
    template = go_template(tokenizer) if dialect != "native" else None
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    return "\n".join(lines) + "\n"


def go_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template for conversations without tools in the language of Go's text/template, as Ollama wants it.

    Made of what stands around the texts of rendered messages. None where rendering other conversations shows that this
    is not all that the template does. The beginning-of-text token is left to Ollama, which adds it.
    """
    first = tokenizer.bos_token or ""
    try:
        parts = _around(tokenizer, first)
        if parts is None or any(mark in "".join(sum(parts.values(), ())) for mark in ("{{", '"""')):
            return None
        for chat in _CHATS:
            made = "".join(parts[role][0] + content + parts[role][1] for role, content in chat) + parts["assistant"][0]
            if made != _rendered(tokenizer, chat, first):
                return None
    except ValueError:
        return None
    branches = "{{ else ".join(
        f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{behind}' for role, (before, behind) in parts.items()
    )
    return f"{{{{ range .Messages }}}}{{{{ {branches}{{{{ end }}}}{{{{ end }}}}{parts['assistant'][0]}"


def _around(tokenizer: PreTrainedTokenizerBase, first: str) -> dict[str, tuple[str, str]] | None:
    """What stands before and behind the text of each role's messages."""
    s, u, a, v = _WORDS
    alone = _rendered(tokenizer, (("user", u),), first, prompt=False)
    whole = _rendered(tokenizer, (("system", s), ("user", u), ("assistant", a), ("user", v)), first)
    places = [whole.find(word) for word in _WORDS]
    if u not in alone or places != sorted(places) or places[0] < 0:
        return None
    before_user, behind_user = alone.split(u, 1)
    ends = [*places[1:], len(whole)]
    gaps = [whole[here + len(word) : end] for word, here, end in zip(_WORDS, places, ends, strict=True)]
    if not (gaps[0].endswith(before_user) and gaps[2].endswith(before_user) and gaps[1].startswith(behind_user)):
        return None
    return {
        "system": (whole[: places[0]], gaps[0][: len(gaps[0]) - len(before_user)]),
        "user": (before_user, behind_user),
        "assistant": (gaps[1][len(behind_user) :], gaps[2][: len(gaps[2]) - len(before_user)]),
    }


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Any, first: str, prompt: bool = True) -> str:
    from stages._sampling import render

    messages = [{"role": role, "content": content} for role, content in chat]
    return render(tokenizer, None, messages, prompt=prompt).removeprefix(first)
