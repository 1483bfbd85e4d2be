"""Base, every adapter that is done, and merged answer one request side by side, calls and results shown.

    python train.py stage=chat run=mine                                      # in this terminal
    python train.py stage=chat run=mine chat.mode=page                       # as a page of this machine's browser
    python train.py stage=chat run=mine chat.tools=my_tools.py [chat.threshold=0.8]

Each model has its own conversation and its own agent (runtime/), with the tools of the built-in world, whose results
are made up, or with the functions of your own Python file, which is run, and whose functions every model may call. A
page is for this machine alone: it listens on 127.0.0.1, at an address that cannot be guessed. Ctrl-C ends it. Writes
chat/tools.json. Left out: sampling, and several people at once.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages._errors import Interrupted, UserError, nearest
from stages._lineage import STAGE_OF, ModelName, command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runtime import Agent
    from stages._job import Job
    from stages._settings import Settings

OPTIONAL = tuple(STAGE_OF.values())
BLOCKS = ("model",)


class Config(BaseModel):
    """Settings of stage=chat."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("mode", "port", "threshold", "timeout", "max_turns", "max_new_tokens")
    FILES: ClassVar[tuple[str, ...]] = ("tools",)

    mode: Literal["terminal", "page"] = "terminal"
    """Where to chat: in the terminal, one request a line, or on a page in the browser."""
    models: list[ModelName] | None = Field(None, min_length=1)
    """Which of base, the adapters and merged; without it, base and all that are done. All are held in memory."""
    tools: str | None = None
    """Your own Python file of functions, with type hints and docstrings; without it, tools of the built-in world."""
    offer: list[str] = Field(["get_weather", "calculate", "web_search", "send_message", "book_table"], min_length=1)
    """Tools of the built-in world to offer, where chat.tools names no file."""
    threshold: float = Field(0.5, ge=0)
    """A call is made where P(call) is at least this."""
    timeout: float = Field(10.0, gt=0)
    """Seconds that a tool may take."""
    max_turns: int = Field(4, ge=1)
    """Turns that a model may take for one request."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest turn, by default model.max_new_tokens."""
    port: int = Field(0, ge=0, lt=65536)
    """Port of the page; 0 takes any that is free."""

    @field_validator("offer")
    @classmethod
    def _the_world_has_them(cls, names: list[str]) -> list[str]:
        from data.world.catalogue import BY_NAME

        for name in names:
            if name not in BY_NAME:
                raise ValueError(f"the world has no tool {name}{nearest(name, BY_NAME)}")
        return names


def refuse(settings: Settings, above: Mapping[str, Path]) -> None:
    """UserError for models that are named and not there."""
    named = settings.stage("chat").models or ()
    missing = [stage for model, stage in STAGE_OF.items() if model in named and stage not in above]
    if missing:
        raise UserError(*(f"run first: {command(stage, settings)}" for stage in missing))


def run(job: Job) -> dict[str, Any]:
    """Write down what is on offer; returns how many models and tools there are."""
    from stages._files import write_json

    tools, _ = offered(job.config)
    write_json(job.folder / "tools.json", [tool.as_function() for tool in tools])
    return {"models": len(chosen(job)), "tools": len(tools)}


def after(job: Job) -> None:
    """The chat itself, each time anew."""
    from stages import _chat, _machine

    _machine.prepare(job.settings, heavy=True)
    tools, functions = offered(job.config)
    room = _chat.Room({model: agent(job, model, tools, functions) for model in chosen(job)})
    try:
        if job.config.mode == "page":
            with _chat.page(room, job.config.port) as page:
                job.say(f"open {page.url} on this machine; Ctrl-C ends it")
                page.serve_forever()
        else:
            job.say(f"{', '.join(room.agents)}: one request a line; /forget starts anew, the end of input ends it")
            _chat.talk(room, sys.stdin, "you> " if sys.stdin.isatty() else "")
    except Interrupted as interrupt:
        if interrupt.signum != signal.SIGINT:
            raise
    job.say("closed")


def chosen(job: Job) -> list[str]:
    """The models that answer, in the order of the stages."""
    there = ["base", *(model for model, stage in STAGE_OF.items() if job.has(stage))]
    return [model for model in there if model in (job.config.models or there)]


def offered(config: Config) -> tuple[list[Any], dict[str, Any]]:
    """The tools, and the function of each by name."""
    from data.python_tools import functions_of_file, tool_of
    from data.world.catalogue import BY_NAME
    from data.world.kinds import function_of

    if config.tools is None:
        return [BY_NAME[name].tool for name in config.offer], {name: function_of(name) for name in config.offer}
    functions = {function.__name__: function for function in functions_of_file(config.tools)}
    return [tool_of(function) for function in functions.values()], functions


def agent(job: Job, model: str, tools: list[Any], functions: dict[str, Any]) -> Agent:
    """The agent of one model, which stays in memory."""
    from runtime import Agent, LocalModel, Router
    from stages._asking import Model

    config, asked = job.config, Model(job, model)
    longest = config.max_new_tokens or job.settings.model.max_new_tokens
    local = LocalModel(*asked.loaded, asked.of.dialect, longest)
    router = Router(local, tools, threshold=config.threshold)
    return Agent(router, functions, timeout=config.timeout, max_turns=config.max_turns)
