"""How tools are shown to a model and how its calls are written and read back: one module a dialect.

A dialect has three functions: `show(tools, messages)` gives the `tools=` and the conversation for a chat template,
`write(calls)` the text of an assistant turn that makes these calls, `read(text, tools)` what a completion did. `show`
writes the assistant's turns as the model is to write them, texts too where a dialect has a form for them. `read` takes
completions whose end-of-turn token has been cut off, never raises, and gives back the calls that `write` wrote. `show`
and `write` raise ValueError for what cannot be said in the dialect.
"""

from __future__ import annotations

import sys
from types import ModuleType

from data import _modules


def names() -> tuple[str, ...]:
    """The dialects there are."""
    return _modules.names(sys.modules[__name__])


def get(name: str) -> ModuleType:
    """The dialect of this name; ValueError with the nearest one when there is none."""
    return _modules.get(sys.modules[__name__], name, "dialect")
