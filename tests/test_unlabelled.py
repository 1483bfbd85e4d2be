"""Prompts that nobody labelled: what is read, what rules make of it, and that pairs come of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.transcript import Expected, Message, Request, Tool
from stages import _unlabelled
from stages._errors import UserError
from stages._job import execute
from stages._refusals import compose, settings_of
from stages._sampling import Completion
from stages._schema import publish
from stages.pairs import Config

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("get_weather", "Get the current weather in a city.", CITY),)
ASKED, SAID = Message("user", "Open the window."), Message("assistant", "I cannot do that.")
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
REFUSED = Request("r", "", TOOLS, (ASKED,), Expected("refuse"), SAID)


def rows(place: Path, *said: str, **more: Any) -> str:
    file = place / "prompts.jsonl"
    tools = [tool.as_function() for tool in TOOLS]
    lines = [{"messages": [{"role": "user", "content": text}], "tools": tools} | more for text in said]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def test_prompts_that_need_no_call_become_requests_and_the_others_are_counted(tmp_path: Path) -> None:
    said = ("How is the weather in Oslo?", "How is the weather?", "Lock the front door.", "Thank you!", "Qwx zt vb?")
    prompts = _unlabelled.read(rows(tmp_path, *said))
    assert [prompt.id for prompt in prompts][:2] == ["unlabelled/0/prompts.jsonl:1", "unlabelled/1/prompts.jsonl:2"]
    found, counts = _unlabelled.labelled(prompts, [REFUSED], 0.95, seed=0)
    assert [(one.messages[-1].content, one.kind, one.expected.act) for one in found] == [
        ("How is the weather?", "missing_argument", "ask"),
        ("Lock the front door.", "no_tool_fits", "refuse"),
        ("Thank you!", "small_talk", "answer"),
    ]
    assert [one.gold and one.gold.content for one in found] == [None, "I cannot do that.", None]
    assert counts["prompts"] == 5
    assert counts["joined"] == {"missing_argument": 1, "no_tool_fits": 1, "small_talk": 1}
    assert counts["left_out"]["tool_fits"] == 1
    assert sum(counts["left_out"].values()) == 2
    assert all(one.gold is None for one in _unlabelled.labelled(prompts, [], 0.95, seed=0)[0])


def test_rules_that_are_less_sure_than_wanted_label_nothing(tmp_path: Path) -> None:
    prompts = _unlabelled.read(rows(tmp_path, "How is the weather?", "Lock the front door."))
    found, counts = _unlabelled.labelled(prompts, [REFUSED], 0.97, seed=0)
    assert [one.kind for one in found] == ["missing_argument"]
    assert counts["left_out"] == {"no_tool_fits": 1}


def test_a_conversation_that_ends_in_a_result_waits_for_an_answer(tmp_path: Path) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}]
    turns = [
        {"role": "user", "content": "How is the weather in Oslo?"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": '{"sky": "mild"}'},
    ]
    found, _ = _unlabelled.labelled(_unlabelled.read(rows(tmp_path, "", messages=turns)), [], 0.95, seed=0)
    assert [(one.kind, one.expected.act, one.expected.text) for one in found] == [("answered", "answer", None)]


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (["Paris.", "It is Paris.", "Paris."], "Paris."),
        (["Paris.", "Rome."], None),
        (["It is 12.", "12"], "12"),
        (["It is 12.", "It is 13."], None),
        (["I cannot do that.", "I cannot do that."], None),
        (["Which city?", "Which city?"], None),
        (["", ""], None),
        ([CALL, CALL], None),
        (["Paris.", CALL], None),
    ],
)
def test_a_policy_knows_what_it_always_answers(said: list[str], known: str | None) -> None:
    from data.dialects import native

    request = Request("r", "", (), (Message("user", "What is it?"),), Expected("answer"))
    answers = [Completion(text, 0.0, 3, truncated=False) for text in said]
    assert _unlabelled.agreed(request, answers, native) == known
    cut = [*answers[:-1], replace(answers[-1], truncated=True)]
    assert _unlabelled.agreed(request, cut, native) is None


def test_a_policy_is_asked_without_tools_where_the_rules_name_no_act(tmp_path: Path) -> None:
    said = ("How is the weather in Oslo?", "Lock the front door.", "Thank you!", "Who wrote Hamlet?", "Qwx zt vb?")
    prompts = _unlabelled.read(rows(tmp_path, *said))
    unsure = _unlabelled.unsure(prompts)
    assert [(one.messages[-1].content, one.tools) for one in unsure] == [("Who wrote Hamlet?", ()), ("Qwx zt vb?", ())]
    found, counts = _unlabelled.labelled(prompts, [], 0.95, 0, {unsure[0].id: "Shakespeare."})
    assert counts["joined"] == {"known": 1, "no_tool_fits": 1, "small_talk": 1}
    assert [(one.expected.text, one.tools) for one in found if one.kind == "known"] == [("Shakespeare.", TOOLS)]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"probe": 1, "unlabelled": "x.jsonl"}, "greater than or equal to 2"), ({"probe": 2}, "name a file of them")],
)
def test_a_probe_that_can_find_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**given)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"messages": []}, "messages: must end in a turn of the user or in a result"),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "must end in a turn of the user or in a result"),
        ({"messages": [{"role": "me", "content": "Hi."}]}, "must be one of system"),
        ({"tools": [{"name": 3}]}, "name: must be"),
    ],
)
def test_a_row_that_is_no_prompt_is_named_by_its_place(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"pairs\.unlabelled: .*prompts\.jsonl:1\b.*{message}"):
        _unlabelled.read(rows(tmp_path, "Hi.", **more))


def test_every_row_that_is_no_prompt_is_told_of_up_to_twenty(tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        _unlabelled.read(rows(tmp_path, *"x" * 30, messages=[]))
    assert len(str(told.value).splitlines()) == 21
    assert str(told.value).endswith("and 10 more")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.jsonl", None, "there is no such file$"),
        ("prompts.txt", "x", r"must be a \.jsonl"),
        ("prompts.jsonl", "", "is empty; it must hold at least one row"),
        ("prompts.json", "7", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"pairs\.unlabelled: .*{message}"):
        _unlabelled.read(str(tmp_path / name))


@pytest.mark.parametrize("stage", ["pairs", "dpo", "pipeline"])
def test_prompts_that_cannot_be_read_are_told_before_any_stage_begins(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = rows(tmp_path, "Hi.", messages=[])
    publish()
    settings = settings_of(*compose([f"stage={stage}", f"pairs.unlabelled={file}"]))
    with pytest.raises(UserError, match="must end in a turn of the user"):
        execute(stage, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
