"""stage=chat: what the terminal shows, what the page's server gives and refuses, and the page in a browser."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.dialects import native
from data.transcript import DataError, Message, Tool, ToolCall
from data.world.kinds import function_of
from runtime import Agent, Router, TextPolicy
from stages import _chat, chat
from stages._chat import MAX_LENGTH, Room, talk
from stages._errors import UserError
from stages._settings import RootConfig, Settings
from tests.test_local_page import Caller, served

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>\x1b[31m'


def shout(text: str) -> str:
    """Say it loudly.

    Args:
        text: What.
    """
    return text.upper()


def agent(complete: Callable[[Sequence[Tool], Sequence[Message]], str]) -> Agent:
    return Agent(Router(TextPolicy(complete), [shout]))


def calling(tools: Sequence[Tool], messages: Sequence[Message]) -> str:
    """Shouts what it is asked, then says how many messages it saw."""
    if messages[-1].role == "user":
        return native.write([ToolCall("shout", {"text": messages[-1].content})])
    return f"{len(messages)} messages, {messages[-1].content}"


@pytest.fixture
def room() -> Room:
    return Room(
        {
            "base": agent(lambda *_: f"Hm.\nWell.{HOSTILE}"),
            "sft": agent(calling),
            "dpo": agent(lambda *_: "<tool_call>"),
        }
    )


def test_the_terminal_shows_what_every_model_does_each_in_its_own_conversation(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(room, ["hello\n", "\n", "/forget\n", "again\n", "more\n", "x" * (MAX_LENGTH + 1)], "you> ")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert 'base    Hm.\n        Well.<img src=x onerror="document.title=1">' in shown
    assert 'sft  -> shout({"text": "hello"})\nsft  <- HELLO\nsft     3 messages, HELLO\n' in shown
    assert "sft     3 messages, AGAIN\n" in shown  # forgotten
    assert "sft     7 messages, MORE\n" in shown  # 4 of before, the new request, its call and its result
    assert "dpo  ?  I could not make sure" in shown
    assert "(a call that cannot be read:" in shown
    assert shown.count("you> ") == 7
    assert f"at most {MAX_LENGTH} characters" in shown


@pytest.fixture
def page(room: Room) -> Iterator[Caller]:
    with served(_chat.page(room)) as caller:
        yield caller


def test_the_page_streams_what_every_model_does(page: Caller) -> None:
    about = page.get("about")
    assert about["models"] == ["base", "sft", "dpo"]
    assert about["tools"][0]["name"] == "shout"
    status, body = page.post("say", {"text": " hello "})
    rows = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert [(row["model"], row["kind"]) for row in rows if row["kind"] != "piece"] == [
        ("base", "answer"), ("sft", "call"), ("sft", "result"), ("sft", "answer"), ("dpo", "invalid"),
    ]  # fmt: skip
    assert rows[1]["text"].endswith("</script>\\u001b[31m")
    assert [row["text"] for row in rows if row["kind"] == "call"] == ['shout({"text": "hello"})']
    assert page.post("forget", {}) == (200, {})
    assert "3 messages" in page.post("say", {"text": "x"})[1]


def test_a_model_that_fails_does_not_keep_the_others_from_answering() -> None:
    def fails(*_: Any) -> str:
        raise RuntimeError("out of memory")

    with served(_chat.page(Room({"sft": agent(fails), "dpo": agent(lambda *_: "Well.")}))) as caller:
        _, body = caller.post("say", {"text": "hello"})
    ends = [json.loads(line) for line in body.splitlines() if '"piece"' not in line]
    assert [(row["model"], row["kind"], row["text"]) for row in ends] == [
        ("sft", "broken", "RuntimeError: out of memory"), ("dpo", "answer", "Well."),
    ]  # fmt: skip


@pytest.mark.parametrize("said", [{"text": 3}, {"text": " "}, [], {}, {"text": "x" * (MAX_LENGTH + 1)}])
def test_what_is_no_request_is_refused(page: Caller, said: Any) -> None:
    assert page.post("say", said) == (400, {"error": "a request is a text of at most 4000 characters"})


def test_a_page_that_is_closed_stops_the_work(page: Caller, room: Room) -> None:
    went_on = threading.Event()
    ticks: list[int] = []

    def endless(*_: Any) -> Iterator[str]:
        while not went_on.is_set():
            ticks.append(1)
            yield "tick " * 2000
        yield "."

    room.agents = {"base": agent(endless)}  # type: ignore[arg-type]
    place = page.url
    connection = http.client.HTTPConnection("127.0.0.1", place.port or 0, timeout=30)
    headers = {"Origin": f"http://{place.netloc}", "Content-Type": "application/json"}
    connection.request("POST", f"{place.path}say", b'{"text": "x"}', headers)
    reply = connection.getresponse()
    reply.read(100)
    reply.close()
    connection.close()
    for _ in range(300):
        before = len(ticks)
        time.sleep(0.1)
        if len(ticks) == before and room._lock.acquire(blocking=False):
            room._lock.release()
            break
    else:
        went_on.set()
        pytest.fail("it goes on for nobody")


# The stage.


WAVE = '''
def wave(times: int) -> str:
    """Wave.

    Args:
        times: How often.
    """
    return "o/" * times
'''


def test_the_tools_are_the_worlds_or_those_of_a_file(tmp_path: Path) -> None:
    tools, functions = chat.offered(chat.Config(offer=["get_weather", "calculate"]))
    assert [tool.name for tool in tools] == list(functions) == ["get_weather", "calculate"]
    assert 132 in functions["calculate"](expression="12 * 11").values()
    assert functions["get_weather"](city="Oslo") == function_of("get_weather")(city="Oslo")
    with pytest.raises(ValueError, match="calculate knows nothing of"):
        functions["calculate"](expression="12 / 11")
    file = tmp_path / "mine.py"
    file.write_text(WAVE)
    tools, functions = chat.offered(chat.Config(tools=str(file)))
    assert tools[0].name == "wave"
    assert functions["wave"](times=2) == "o/o/"
    file.write_text('from pydantic import BaseModel\n\nclass A(BaseModel):\n    """A model."""\n    x: int\n')
    with pytest.raises(DataError, match="A: is a model, which cannot be called"):
        chat.offered(chat.Config(tools=str(file)))
    with pytest.raises(DataError, match="cannot be imported: FileNotFoundError"):
        chat.offered(chat.Config(tools=str(tmp_path / "none.py")))


def test_a_tool_that_the_world_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no tool get_wether; did you mean get_weather"):
        chat.Config(offer=["get_wether"])


def test_a_model_that_is_not_there_says_what_to_run_first() -> None:
    settings = Settings("chat", RootConfig(run="mine"), {"chat": chat.Config(models=["base", "dpo", "merged"])})
    with pytest.raises(UserError) as failed:
        chat.refuse(settings, {"sft": Path()})
    assert failed.value.lines == tuple(
        f"run first: python train.py stage={stage} run=mine" for stage in ("dpo", "merge")
    )


@pytest.mark.slow
def test_a_chat_with_the_embedded_model_in_the_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "stage=chat", f"runs_dir={tmp_path}", "threads=1", "chat.max_new_tokens=24"]
    for _ in range(2):  # done already, and yet a chat each time
        done = subprocess.run(
            command, cwd=ROOT, input="What is 2 + 2?\n", capture_output=True, text=True, timeout=500, check=True
        )
        assert "chat: base: one request a line" in done.stdout
        assert any(line.startswith("base ") and len(line) > 8 for line in done.stdout.splitlines())
        assert "chat: closed" in done.stdout
    assert json.loads((tmp_path / "default/chat/tools.json").read_text())[0]["function"]["name"] == "get_weather"


# The browser.

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """Headless Chromium, spoken to through two pipes: one JSON message after another, each ended by a zero byte."""

    def __init__(self, folder: Path) -> None:
        from_us, to_it = os.pipe()
        from_it, to_us = os.pipe()

        def pipes() -> None:  # it reads 3 and writes 4
            os.dup2(from_us, 198)
            os.dup2(to_us, 199)
            os.dup2(198, 3)
            os.dup2(199, 4)

        self.process = subprocess.Popen(
            [CHROMIUM or "", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--window-size=1280,800", f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(from_us)
        os.close(to_us)
        self._out, self._in = os.fdopen(to_it, "wb", buffering=0), os.fdopen(from_it, "rb")
        self._number = 0
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    _session: str | None = None

    def __call__(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            told = bytearray()
            while (letter := self._in.read(1)) not in (b"\0", b""):
                told += letter
            if not told:
                raise RuntimeError("the browser ended")
            answer = json.loads(told)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, self.value("document.body.innerText")
            time.sleep(0.1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self._out.close()
        self._in.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_typed_request_is_answered_by_all_models_on_the_page_and_hostile_text_stays_text(
    page: Caller, tmp_path: Path
) -> None:
    browser = Browser(tmp_path / "profile")
    try:
        browser("Page.enable")
        browser("Page.navigate", url=page.url.geturl())
        browser.until("document.getElementById('state')?.textContent === 'Ready.'")
        browser.value("document.getElementById('text').focus()")
        browser("Input.insertText", text="hello <b>there</b>")
        for kind in ("keyDown", "keyUp"):
            browser("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
        browser.until("document.getElementById('state').textContent === 'All have answered.'")
        columns = browser.value("[...document.querySelectorAll('section')].map(each => each.innerText)")
        assert [column.splitlines()[0] for column in columns] == ["base", "sft", "dpo"]
        assert all("hello <b>there</b>" in column for column in columns)
        assert "<img src=x onerror=" in columns[0]
        assert 'shout({"text": "hello <b>there</b>"})' in columns[1]
        assert "HELLO <B>THERE</B>" in columns[1]
        assert "I could not make sure" in columns[2]
        assert browser.value("document.title") == "Callwise: chat"
        assert browser.value("document.querySelectorAll('main img, main script, main b').length") == 0
        picture = base64.b64decode(browser("Page.captureScreenshot")["data"])
        assert picture.startswith(b"\x89PNG")
        if place := os.environ.get("CALLWISE_SCREENSHOT"):
            Path(place).write_bytes(picture)
    finally:
        browser.close()
