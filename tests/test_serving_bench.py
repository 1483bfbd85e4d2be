"""benchmarks/serving.py against a server that is not llama.cpp's: what it answers is held against the model here."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from benchmarks import serving
from data.load import DataConfig
from data.transcript import Expected, Message, Request, Tool, ToolCall
from data.world import WorldConfig

ROOT = Path(__file__).resolve().parents[1]

# It knows one prompt, says nothing, and cuts off what it is asked to say.
SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

ANSWERS = {
    "/tokenize": {"tokens": []},
    "/apply-template": {"prompt": "hello"},
    "/completion": {"content": ""},
    "/v1/chat/completions": {"choices": [{"finish_reason": "length", "message": {"tool_calls": [
        {"function": {"name": "a", "arguments": "{"}}]}}]},
}

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for call in (call for message in asked.get("messages", ()) for call in message.get("tool_calls") or ()):
            json.loads(call["function"]["arguments"])  # as JSON text
        answer = json.dumps(ANSWERS[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

assert sys.argv[1] == "-m" and "--jinja" in sys.argv
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose merge is the embedded base."""
    monkeypatch.setattr(serving, "RUNS", tmp_path)
    monkeypatch.setattr(serving, "TOKENS", 8)
    folder = tmp_path / "mine" / "merge"
    (folder / "gguf").mkdir(parents=True)
    (folder / "gguf" / "model-f16.gguf").write_text("")
    (folder / "model").symlink_to(ROOT / "assets" / "tiny")
    world = WorldConfig(sft_rows=20, preference_rows=20, validation_rows=20, test_rows=20, unseen_rows=20)
    inputs = {"model": {"dialect": "native"}, "data": DataConfig(world=world).model_dump(mode="json")}
    (folder / "manifest.json").write_text(json.dumps({"inputs": inputs}))
    return tmp_path


def program(folder: Path, text: str) -> str:
    file = folder / "server"
    file.write_text(text.replace("{python}", sys.executable))
    file.chmod(0o755)
    return str(file)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_what_the_server_does_otherwise_is_counted_and_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving.main(program(run, SERVER), "mine", 3, free_port())
    told = capsys.readouterr().out
    assert "model-f16.gguf: 3 requests" in told
    for name in ("prompts", "tokens", "texts"):
        assert f"  the same {name:8} 0 of 3" in told
    assert "  the same calls    3 of 3" in told  # the base calls nothing, and a call that was cut off is none
    assert "first difference in prompts: " in told
    assert "    server: 'hello'" in told


def test_a_server_that_does_not_start_and_a_merge_without_gguf_are_one_line(run: Path) -> None:
    with pytest.raises(SystemExit, match=r"server did not start on .+model-f16.gguf; try: .+ -m .+ --jinja"):
        serving.main(program(run, "#!{python}\nraise SystemExit(1)\n"), "mine", 1, free_port())
    with pytest.raises(SystemExit, match=r"holds no GGUF: python train\.py stage=merge run=other"):
        serving.main("server", "other", 1, free_port())


def test_requests_are_sent_as_clients_do() -> None:
    tool = Tool("f", "Does f.", {"type": "object", "properties": {}})
    call = ToolCall("f", {"a": "é"}, "c1")
    request = Request("r", "", (tool,), (Message("user", "Go."), Message("assistant", "", (call,))), Expected("answer"))
    sent = serving.as_sent(request)
    assert sent["tools"] == [tool.as_function()]
    assert sent["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": "é"}'}
