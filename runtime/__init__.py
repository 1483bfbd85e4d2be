"""The loop closed: an aligned model's calls, checked and made. A package to import; stage=chat shows it.

    from runtime import Agent, Calls, Invalid, LocalModel, NoCall, Router

    def get_weather(city: str) -> dict:
        \"\"\"Get the current weather in a city.

        Args:
            city: The city.
        \"\"\"
        return {"temperature": 4}

    router = Router(LocalModel.load("runs/demo/merge/model"), [get_weather])
    match router.route("What is the weather in Oslo?"):
        case Calls(calls): ...                # each is on offer, fits its schema, and says nothing made up
        case NoCall(text): ...                # the answer; in the router dialect, the reason why no tool is called
        case Invalid(reason, ask): ...        # nothing to act on; `ask` is what to say to the user

    print(Agent(router).run("What is the weather in Oslo?").text)

`route` decides and never acts; an `Agent` makes the calls, tells the model what came of them, and stops at a bound.
Both stream, and both have async forms. What a model writes is read and checked, never evaluated. Run from the
project's folder, or with it on PYTHONPATH. Left out: tools in processes of their own, so a tool that hangs is left
behind, not killed; and policies behind an endpoint, for which TextPolicy takes a function that asks it.
"""

from __future__ import annotations

from data.transcript import Message, Tool, ToolCall
from runtime._agent import Agent
from runtime._calibration import Calibration, calibrate, threshold_for
from runtime._policies import LocalModel, TextPolicy
from runtime._results import (
    Answer,
    Called,
    Calls,
    Done,
    Event,
    Invalid,
    NoCall,
    Piece,
    Policy,
    Returned,
    Route,
)
from runtime._router import Router

__all__ = [
    "Agent",
    "Answer",
    "Calibration",
    "Called",
    "Calls",
    "Done",
    "Event",
    "Invalid",
    "LocalModel",
    "Message",
    "NoCall",
    "Piece",
    "Policy",
    "Returned",
    "Route",
    "Router",
    "TextPolicy",
    "Tool",
    "ToolCall",
    "calibrate",
    "threshold_for",
]
