"""bebechien/SimpleToolCalling: {user_content, tool_name, tool_arguments}; its two tools are part of the format."""

from __future__ import annotations

from typing import Any

from data.formats import _rows
from data.transcript import Message, RowError, Tool, ToolCall, Transcript

TEST_SHARE = 0.5  # half and half, as the notebook that comes with the data does it


def _search(name: str, description: str, query: str) -> Tool:
    properties = {"query": {"type": "string", "description": query}}
    return Tool(name, description, {"type": "object", "properties": properties, "required": ["query"]})


TOOLS = (
    _search(
        "search_knowledge_base",
        "Search the company's internal documents: policies, guides, projects and people.",
        "What to look for in the internal documents.",
    ),
    _search(
        "search_google",
        "Search the public web for general knowledge, news and current events.",
        "What to look for on the web.",
    ),
)


def read(row: dict[str, Any], place: str) -> Transcript:
    """A question and the one call that serves it. The row's tools are offered to every question."""
    question = _rows.words(row.get("user_content"), place, "user_content")
    name = _rows.typed(row.get("tool_name"), str, place, "tool_name")
    if name not in {tool.name for tool in TOOLS}:
        raise RowError(place, "tool_name", f"must be one of {', '.join(tool.name for tool in TOOLS)}, is {name!r}")
    arguments = _rows.decoded(row.get("tool_arguments"), dict, place, "tool_arguments")
    call = Message("assistant", tool_calls=(ToolCall(name, arguments),))
    return Transcript(_rows.row_id(row, place), TOOLS, (Message("user", question), call), kind=name)


def recognised(row: dict[str, Any]) -> str | None:
    """Its three fields."""
    known = {"user_content", "tool_name", "tool_arguments"} <= set(row)
    return "user_content, tool_name and tool_arguments" if known else None
