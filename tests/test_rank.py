"""The page for ranking by hand: nobody else gets in, every answer is kept at once, and it goes on where it was."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from data.transcript import Message
from stages import _ranking
from stages._errors import UserError
from stages._files import read_jsonl, write_jsonl
from stages.rank import Desk, Server, serve
from tests.test_pairing import OSLO, RIGHT, texting
from tests.test_report import EVIL, Page
from tests.toys import ROOT

ROWS = [
    _ranking.Ballot(OSLO, {"a": RIGHT, "b": "It rains.", "c": EVIL}).row(),
    _ranking.Ballot(texting("sum"), {"a": "2", "b": "3"}).row(),
    _ranking.Ballot(texting("hi", question=EVIL), {"a": "Hello!", "b": ""}).row(),
]


class Browser:
    """Talks to a server as its page does; headers of one call in place of those of the page, None leaves one out."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)

    def __call__(self, path: str, said: Any = None, **headers: str | None) -> tuple[int, dict[str, str], Any]:
        known: dict[str, str | None] = {"Host": self.url.netloc}
        body = None
        if said is not None:
            known |= {"Origin": f"http://{self.url.netloc}", "Content-Type": "application/json"}
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            known["Content-Length"] = str(len(body))
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.url.port, timeout=20)
        connection.putrequest("GET" if said is None else "POST", path, skip_host=True, skip_accept_encoding=True)
        for name, value in known.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        told = json.loads(content) if response.headers["Content-Type"].startswith("application/json") else content
        return response.status, dict(response.headers), told

    def get(self, path: str = "") -> Any:
        return self(self.url.path + path)[2]

    def post(self, path: str, said: Any, **headers: str | None) -> tuple[int, Any]:
        status, _, told = self(self.url.path + path, said, **headers)
        return status, told


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Browser]]:
    """Opens the page on the same file of ranks, as often as it is called."""
    servers: list[tuple[Server, threading.Thread]] = []

    def start() -> Browser:
        server = serve(Desk(ROWS, tmp_path / "ranks.jsonl"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return Browser(server.url)

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


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


def test_without_the_token_there_is_nothing(opened):
    browser = opened()
    for path in ("/", "/row", "/x/", "/x/row", browser.url.path[:-2] + "/row", browser.url.path.rstrip("/")):
        status, _, told = browser(path)
        assert (status, told) == (404, "no such page")
    assert browser("/x/answer", answer(0, skip=True))[0] == 404
    assert browser.get("nothing") == "no such page"
    assert len(browser.url.path) > 30


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", None])
def test_another_name_that_leads_here_gets_nothing(opened, host):
    browser = opened()
    assert browser(browser.url.path + "row", Host=host)[0] == 403
    origin = {"Origin": f"http://{host}"} if host else {}
    assert browser.post("answer", answer(0, skip=True), Host=host, **origin)[0] == 403


def test_localhost_is_this_machine_too(opened):
    browser = opened()
    name = f"localhost:{browser.url.port}"
    assert browser(browser.url.path + "row", Host=name)[0] == 200
    assert browser.post("answer", answer(0, skip=True), Host=name, Origin=f"http://{name}")[0] == 200


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://localhost"])
def test_another_page_can_post_nothing(opened, tmp_path, origin):
    browser = opened()
    assert browser.post("answer", answer(0, skip=True), Origin=origin)[0] == 403
    assert browser.post("finish", {}, Origin=origin)[0] == 403
    assert not (tmp_path / "ranks.jsonl").exists()
    if origin:
        assert browser(browser.url.path + "row", Origin=origin)[0] == 403


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


def test_what_is_no_answer_at_all_is_refused(opened):
    browser = opened()
    assert browser.post("answer", answer(0, skip=True), Content_Type="text/plain")[0] == 415
    assert browser.post("answer", b"x", Content_Length="99999999999")[0] == 413
    assert browser.post("answer", b"", Content_Length="-1")[0] == 413
    assert browser.post("answer", b"", Content_Length=None)[0] == 413
    assert browser.post("nothing", {})[0] == 404
    assert browser.get("row/3")["error"] == browser.get("row/x")["error"] == "there is no such request"


def test_the_page_runs_its_own_script_alone_and_data_never_becomes_html(opened):
    browser = opened()
    status, headers, text = browser(browser.url.path)
    page = Page(text)
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", headers["Content-Security-Policy"])
    assert status == 200
    assert nonce
    assert [(tag, value) for tag, name, value in page.attributes if name == "nonce"] == [
        ("style", nonce[1]), ("script", nonce[1]),
    ]  # fmt: skip
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert browser.url.path.strip("/") not in text
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


def test_a_port_that_is_taken_is_told(opened, tmp_path):
    browser = opened()
    with pytest.raises(UserError, match=r"rank\.port: \d+ cannot be had .*; choose another, or 0 for any"):
        serve(Desk(ROWS, tmp_path / "none.jsonl"), browser.url.port)


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

    def browser(self, running: subprocess.Popen[str]) -> Browser:
        assert running.stdout
        for line in running.stdout:
            if match := re.search(r"http://\S+", line):
                return Browser(match[0])
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
