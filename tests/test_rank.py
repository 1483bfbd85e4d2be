"""The page for ranking by hand: nobody else gets in, every answer is kept at once, and it goes on where it was."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.transcript import Message
from stages import _ranking, rank
from stages._files import read_jsonl, write_jsonl
from stages.rank import Desk
from tests.test_local_page import Caller, served
from tests.test_pairing import OSLO, RIGHT, texting
from tests.test_report import EVIL
from tests.toys import ROOT

ROWS = [
    _ranking.Ballot(OSLO, {"a": RIGHT, "b": "It rains.", "c": EVIL}).row(),
    _ranking.Ballot(texting("sum"), {"a": "2", "b": "3"}).row(),
    _ranking.Ballot(texting("hi", question=EVIL), {"a": "Hello!", "b": ""}).row(),
]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Caller]]:
    """Opens the page on the same file of ranks, as often as it is called."""
    with contextlib.ExitStack() as open_ones:
        yield lambda: open_ones.enter_context(served(rank.page(Desk(ROWS, tmp_path / "ranks.jsonl"))))


def answer(place: int, **said: Any) -> dict[str, Any]:
    return {"place": place, "of": ROWS[place]["of"], **said}


def test_every_answer_is_in_the_file_at_once_and_the_next_request_comes(opened, tmp_path):
    browser, path = opened(), tmp_path / "ranks.jsonl"
    first = browser.get("row")
    assert (first["place"], first["total"], first["left"]) == (0, 3, 3)
    assert first["row"]["candidates"]["a"] == RIGHT
    status, second = browser.post("answer", answer(0, ranks=[["b"], ["a", "c"]]))
    assert (status, second["place"], second["ranked"]) == (200, 1, 1)
    assert list(read_jsonl(path)) == [{"id": "oslo", "of": ROWS[0]["of"], "ranks": [["b"], ["a", "c"]]}]
    _, third = browser.post("answer", answer(1, skip=True))
    assert (third["place"], third["skipped"], third["left"]) == (2, 1, 1)
    _, done = browser.post("answer", answer(2, ranks=["a", "b"]))
    assert (done["place"], done["row"], done["ranked"], done["left"]) == (None, None, 2, 0)
    lines = _ranking.parse_ranks(path)
    assert [(line.id, line.groups) for line in lines] == [
        ("oslo", [["b"], ["a", "c"]]), ("sum", None), ("hi", [["a"], ["b"]]),
    ]  # fmt: skip


def test_it_goes_on_where_it_was_and_an_answer_can_be_given_again(opened, tmp_path):
    opened().post("answer", answer(1, ranks=[["a"], ["b"]]))
    browser = opened()
    assert browser.get("row")["place"] == 0
    assert browser.get("row/1")["row"]["ranks"] == [["a"], ["b"]]
    assert browser.get("row/0")["row"]["ranks"] is None
    _, after = browser.post("answer", answer(1, ranks=[["b"], ["a"]]))
    assert (after["place"], after["ranked"]) == (2, 1)
    assert opened().get("row/1")["row"]["ranks"] == [["b"], ["a"]]
    lines = _ranking.parse_ranks(tmp_path / "ranks.jsonl")
    assert _ranking.latest(lines, {"sum": ROWS[1]["of"]})["sum"].groups == [["b"], ["a"]]


def test_answers_to_other_completions_are_asked_for_again(opened, tmp_path):
    write_jsonl(
        tmp_path / "ranks.jsonl", [{"id": "oslo", "of": "others", "ranks": ["a"]}, {"id": "sum", "ranks": ["a"]}]
    )
    browser = opened()
    assert browser.get("row")["place"] == 0
    assert browser.get("row/1")["row"]["ranks"] == [["a"]]


@pytest.mark.parametrize(
    ("left", "kept"),
    [('{"id": "sum", "skip": true}', 2), ('{"id": "sum", "ra', 1)],
    ids=["a whole line without its end", "half a line"],
)
def test_what_an_interruption_or_an_editor_left_at_the_end_does_not_harm(opened, tmp_path, left, kept):
    path = tmp_path / "ranks.jsonl"
    path.write_text('{"id": "oslo", "ranks": ["a"]}\n' + left)
    browser = opened()
    assert browser.get("row")["left"] == 3 - kept
    browser.post("answer", answer(2, skip=True))
    assert len(_ranking.parse_ranks(path)) == kept + 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"{", "at character 2"),
        (b"\xff", "utf-8"),
        ([], "an answer has place, of, and ranks or skip"),
        (answer(0), "an answer has place, of, and ranks or skip"),
        (answer(0, ranks=["a"], skip=True), "an answer has place, of, and ranks or skip"),
        (answer(0, skip=False), "skip must be true"),
        (answer(0, ranks=["z"]), "no candidate 'z'; there are a, b, c"),
        (answer(0, ranks=[["a"], ["a"]]), "'a' stands there more than once"),
        (answer(0, ranks=[]), "ranks must be a list of keys"),
        (answer(0, skip=True) | {"place": 3}, "there is no such request"),
        (answer(0, skip=True) | {"place": True}, "there is no such request"),
        (answer(0, skip=True) | {"place": -1}, "there is no such request"),
        (answer(0, skip=True) | {"of": "x"}, "this answer is of other candidates"),
    ],
)
def test_a_bad_answer_is_refused_with_a_reason_and_leaves_no_trace(opened, tmp_path, said, told):
    browser = opened()
    status, reply = browser.post("answer", said)
    assert status == 400
    assert told in reply["error"]
    assert not (tmp_path / "ranks.jsonl").exists()
    assert browser.get("row")["left"] == 3


def test_there_is_no_such_request(opened):
    browser = opened()
    assert browser.get("row/3")["error"] == browser.get("row/x")["error"] == "there is no such request"


def test_hidden_characters_are_shown_as_codes(opened):
    browser = opened()
    told = json.dumps(browser.get("row/2") | {"more": browser.get("row/0")}, ensure_ascii=False)
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "\\u202e" in browser.get("row/0")["row"]["candidates"]["c"]


def test_a_conversation_with_calls_and_tools_is_shown_as_text(tmp_path):
    request = texting("r")
    called = Message("assistant", tool_calls=OSLO.gold.tool_calls)
    asked = type(request)(
        "r", "", request.tools, (*request.messages, called, Message("tool", "7")), request.expected, None
    )
    shown = Desk([_ranking.Ballot(asked, {"a": "x", "b": "y"}).row()], tmp_path / "none.jsonl").show(0)["row"]
    assert [turn["role"] for turn in shown["turns"]] == ["user", "assistant", "tool"]
    assert shown["turns"][1]["text"] == 'get_weather {"city": "Oslo"}'
    assert [tool["name"] for tool in shown["tools"]] == ["get_weather", "show_map", "calculator"]
    assert '"required": ["city"]' in shown["tools"][0]["parameters"]


# As a user types it


class Typed:
    """train.py stage=rank in a folder whose pairs wait to be ranked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "runs/mine/pairs").mkdir(parents=True)
        write_jsonl(folder / "runs/mine/pairs/to_rank.jsonl", ROWS)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", str(ROOT / "train.py"), "stage=rank", "run=mine", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=self.folder)

    def browser(self, running: subprocess.Popen[str]) -> Caller:
        assert running.stdout
        for line in running.stdout:
            if match := re.search(r"http://\S+", line):
                return Caller(match[0])
        raise AssertionError(running.communicate()[1])


def test_ctrl_c_stops_it_the_same_command_goes_on_and_a_button_finishes(tmp_path):
    typed, ranks = Typed(tmp_path), tmp_path / "runs/mine/ranks.jsonl"
    running = typed.start()
    typed.browser(running).post("answer", answer(0, ranks=["b", "a", "c"]))
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "interrupted; the same command goes on from here\n")
    assert "rank: 1 ranked, 0 skipped, 2 left -> runs/mine/ranks.jsonl" in out
    assert len(list(read_jsonl(ranks))) == 1

    running = typed.start()
    browser = typed.browser(running)
    assert browser.get("row")["place"] == 1
    browser.post("answer", answer(1, skip=True))
    assert browser.post("finish", {}) == (200, {"ranked": 1, "skipped": 1, "left": 1})
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    command = "python train.py stage=pairs run=mine pairs.rank=human pairs.ranks=runs/mine/ranks.jsonl"
    assert f"rank: next: {command}\n" in out
    metrics = json.loads((tmp_path / "runs/mine/rank/metrics.json").read_text())
    assert metrics == {"requests": 3, "ranked": 1, "skipped": 1, "left": 1}

    running = typed.start()  # there is something left, and ranks have changed: it opens again
    browser = typed.browser(running)
    assert browser.get("row")["place"] == 2
    assert browser.post("finish", {})[0] == 200
    running.communicate(timeout=60)
    assert running.returncode == 0
    out, _ = typed.start().communicate(timeout=60)
    assert "rank: done already with the same inputs" in out
    assert len(list(read_jsonl(ranks))) == 2


def test_without_anything_to_rank_it_says_what_to_run_first_and_ranks_lie_where_nothing_replaces_them(tmp_path):
    typed = Typed(tmp_path)
    for place in ("pairs", "rank"):
        running = typed.start(f"rank.ranks=runs/mine/{place}/ranks.jsonl")
        assert running.communicate(timeout=60)[1].startswith(f"rank.ranks: runs/mine/{place}/ranks.jsonl lies in a")
        assert running.returncode == 2
    (tmp_path / "runs/mine/pairs/to_rank.jsonl").unlink()
    running = typed.start()
    told = running.communicate(timeout=60)[1]
    assert (running.returncode, told) == (2, "run first: python train.py stage=pairs run=mine pairs.rank=human\n")
