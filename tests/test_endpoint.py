"""Candidates from an OpenAI-compatible endpoint: asked at once, retried, resumed, and the same files in any order."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from data import dialects
from data.dialects import native
from data.transcript import Expected, Message, Request, Tool, ToolCall
from rewards import judge
from stages import _endpoint
from stages._control import plain
from stages._errors import Interrupted, UserError
from stages._files import read_jsonl
from stages._job import execute
from stages._manifest import model_identity
from stages._refusals import compose, settings_of
from stages._sampling import encode
from stages._schema import publish
from tests.toys import ROOT, preset_tokenizer, toy_checkpoint, toy_settings, toy_tokenizer

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("get_weather", "Weather of a city.", CITY)
KEY = "key-that-nobody-may-find-0123456789"
Reply = tuple[int, dict[str, str], Any]  # status, headers, body


def chat(content: str | None = None, *calls: tuple[str, Any], finish: str = "stop") -> dict[str, Any]:
    """A chat completion as servers write it."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
        message["tool_calls"] = [{"id": f"c{n}", "type": "function", "function": f} for n, f in enumerate(functions)]
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": 3}}


def hashed(body: dict[str, Any]) -> dict[str, Any]:
    """An answer that the prompt and the seed alone decide: right, wrong, broken, or a text."""
    dice = random.Random(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest())
    city = re.findall(r"[A-Z]\w+", body["messages"][0]["content"].removesuffix("Please."))[-1]
    name = dice.choice(["get_weather", "get_population"])
    match dice.randrange(4):
        case 0:
            return chat(None, (name, json.dumps({"city": city})))
        case 1:
            return chat("Let me see.", (name, '{"city": "' + city))
        case 2:
            return chat(f"Welcome, visitor {dice.randrange(9)}.")
        case _:
            return chat(f'<tool_call>\n{{"name": "{name}", "arguments": {{"city": "{city}"}}}}\n</tool_call>')


class Endpoint:
    """A server in this process. `before(number)` may reply in place of `hashed`; `None` from it closes the line."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.most = self.now = 0
        self.nap: Callable[[], float] = lambda: 0.0
        self.before: Callable[[int], Reply | str | None] = lambda number: "hashed"
        self.lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            number = len(self.bodies)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.keys.add(handler.headers["Authorization"])
            nap = self.nap()
        time.sleep(nap)
        reply = self.before(number)
        with self.lock:
            self.now -= 1
        if reply is None:
            handler.close_connection = True
            return
        status, headers, told = (200, {}, hashed(body)) if isinstance(reply, str) else reply
        status, told = (status, told) if handler.path == "/v1/chat/completions" else (404, "no such page")
        content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        with contextlib.suppress(ConnectionError):  # who asked may be gone
            handler.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(content)

    def forget(self) -> None:
        self.bodies.clear()
        self.times.clear()
        self.most = 0


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(_endpoint, "_FIRST_WAIT", 0.01)
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("toy"), hidden=64, layers=1)


class Pairs:
    """stage=pairs of a run whose SFT stage is said to be done; each call is a new run unless `again`."""

    def __init__(self, folder: Path, checkpoint: Path, endpoint: Endpoint) -> None:
        self.folder, self.checkpoint, self.endpoint, self.count = folder, checkpoint, endpoint, 0

    def __call__(self, again: bool = False, seed: int = 0, **changes: Any) -> dict[str, Any]:
        self.count += not again
        place = self.folder / f"run{self.count}"
        place.mkdir(exist_ok=True)
        pairs = {"sampler": "openai", "base_url": self.endpoint.url, "endpoint_model": "teacher", "prompts": 12}
        settings = toy_settings(place, "pairs", self.checkpoint, seed, pairs={**pairs, "samples": 2, **changes})
        manifest = {"schema": 1, "status": "done", "digest": "d", "parents": {}, "outputs": {}}
        (settings.run_folder / "sft").mkdir(parents=True, exist_ok=True)
        text = json.dumps(manifest | {"model": model_identity(settings.model)})
        (settings.run_folder / "sft" / "manifest.json").write_text(text)
        self.run = settings.run_folder
        return execute("pairs", settings)

    def bytes(self) -> list[bytes]:
        return [(self.run / "pairs" / name).read_bytes() for name in ("candidates.jsonl", "pairs.jsonl", "report.json")]

    def samples(self) -> list[dict[str, Any]]:
        return [row for row in read_jsonl(self.run / "pairs" / "candidates.jsonl") if row["source"] == "policy"]


@pytest.fixture
def pairs(tmp_path: Path, checkpoint: Path, endpoint: Endpoint) -> Pairs:
    return Pairs(tmp_path, checkpoint, endpoint)


def test_the_answers_of_the_server_become_candidates_and_pairs(pairs, endpoint):
    metrics = pairs()
    rows = pairs.samples()
    assert metrics["samples"] == len(rows) == len(endpoint.bodies) == 24
    assert metrics["pairs"] > 0
    assert {row["logprob"] for row in rows} == {None}
    assert all(row["tokens"] > 0 for row in rows)
    assert {"malformed_call", "needless_call", "wrong_answer"} <= {row["outcome"] for row in rows}
    provenance = [row["provenance"] for row in read_jsonl(pairs.run / "pairs" / "pairs.jsonl")]
    assert all(side["logprob"] is None for sides in provenance for side in sides.values())
    manifest = json.loads((pairs.run / "pairs" / "manifest.json").read_text())
    assert manifest["facts"]["samples_of"] == {"endpoint": f"{endpoint.url}/chat/completions", "model": "teacher"}
    assert list(manifest["parents"]) == ["sft"]


def test_requests_are_counted_by_who_had_them_answered_whatever_came_between(pairs, endpoint):
    def counts() -> tuple[Any, Any]:
        facts = json.loads((pairs.run / "pairs" / "manifest.json").read_text())["facts"]
        return facts.get("requests_sampled"), facts.get("requests_from_cache")

    endpoint.before = lambda number: "hashed" if number < 10 else (400, {}, "")
    with pytest.raises(UserError):
        pairs(concurrency=1)
    assert counts() == (5, None)
    endpoint.before = lambda number: "hashed"
    pairs(again=True, concurrency=1)
    assert counts() == (12, 0), "of both attempts"
    pairs(again=True, anchor_share=0.2)
    assert counts() == (0, 12)


def test_a_request_is_sent_as_the_api_has_it(pairs, endpoint):
    pairs(prompts=None, samples=1, temperature=0.7, max_new_tokens=33)
    body = next(body for body in endpoint.bodies if body["messages"][-1]["role"] == "tool")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("teacher", 0.7, 33)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "get_population"]
    assert all(tool["type"] == "function" and tool["function"]["parameters"] for tool in body["tools"])
    asked, answered = body["messages"][-2:]
    (call,) = asked["tool_calls"]
    assert asked["content"] is None
    assert json.loads(call["function"]["arguments"])["city"]
    assert answered["tool_call_id"] == call["id"]
    assert set(answered) == {"role", "content", "tool_call_id"}
    assert endpoint.keys == {f"Bearer {KEY}"}


def test_calls_and_results_without_ids_get_some_that_fit():
    calls = (ToolCall("get_weather", {"city": "Oslo"}), ToolCall("get_weather", {"city": "Rome"}))
    turns = (
        Message("user", "Oslo and Rome?"),
        Message("assistant", tool_calls=calls),
        Message("tool", "7", name="get_weather"),
        Message("tool", "9", name="get_weather"),
    )
    sent = _endpoint.prompt_of(Request("r", "", (), turns, Expected("answer")))
    assert "tools" not in sent
    ids = [call["id"] for call in sent["messages"][1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [turn["tool_call_id"] for turn in sent["messages"][2:]] == ids


def test_every_sample_has_a_seed_of_its_own_and_another_run_seed_another(pairs, endpoint):
    pairs(samples=3)
    pairs(again=True, samples=3, seed=1)
    seeds = [body["seed"] for body in endpoint.bodies]
    assert len(set(seeds)) == len(seeds) == 72
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_several_are_asked_at_once_and_no_more_than_allowed(pairs, endpoint):
    endpoint.nap = lambda: 0.05
    pairs(concurrency=4)
    assert endpoint.most == 4


def test_files_are_the_same_whatever_order_the_answers_come_in(pairs, endpoint):
    pairs(concurrency=1)
    first = pairs.bytes()
    dice = random.Random(0)
    endpoint.nap = lambda: dice.uniform(0, 0.05)
    pairs(concurrency=12)
    assert pairs.bytes() == first


def test_requests_are_spaced_where_a_limit_is_given(pairs, endpoint):
    pairs(prompts=6, samples=1, requests_per_minute=600)
    assert endpoint.times[-1] - endpoint.times[0] >= 0.45


@pytest.mark.parametrize(
    "reply",
    [
        (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}}),
        (500, {}, "oops"),
        (503, {"Retry-After": "soon"}, ""),
        None,
    ],
    ids=["429", "500", "503", "closed"],
)
def test_what_may_pass_is_tried_again(pairs, endpoint, reply):
    pairs()
    whole, count = pairs.bytes(), len(endpoint.bodies)
    endpoint.forget()
    endpoint.before = lambda number: reply if number % 3 == 0 else "hashed"
    pairs()
    assert len(endpoint.bodies) > count
    assert pairs.bytes() == whole


@pytest.mark.parametrize("header", ["1", "date"])
def test_retry_after_is_waited_for_by_everyone(pairs, endpoint, header):
    told = {"Retry-After": header if header == "1" else formatdate(time.time() + 2, usegmt=True)}

    def before(number: int) -> Reply | str:
        if number == 1:
            time.sleep(0.2)  # so that it asks for the next one when the limit is known
        return (429, told, "") if number == 0 else "hashed"

    endpoint.before = before
    pairs(prompts=4, samples=1, concurrency=2)
    assert endpoint.times[2] - endpoint.times[0] >= 0.9


def test_a_server_that_says_to_come_back_tomorrow_is_not_waited_for(pairs, endpoint):
    endpoint.before = lambda number: (429, {"Retry-After": "86400"}, "")
    with pytest.raises(UserError, match=r"429, and says to wait 86400 s \(request .*, attempt 1\)"):
        pairs()


def test_giving_up_is_one_line_and_keeps_what_was_sampled(pairs, endpoint):
    endpoint.before = lambda number: "hashed" if number < 10 else (503, {}, {"error": {"message": "no\n\x1b[1mGPU"}})
    with pytest.raises(UserError) as refusal:
        pairs(concurrency=1)
    (line,) = refusal.value.lines
    assert line.startswith(f"pairs.base_url: {endpoint.url}/chat/completions answered 503 (no [1mGPU) (request ")
    assert "attempt 7); lower pairs.concurrency" in line
    assert line.endswith("; 5 of 12 requests are sampled and kept, the same command goes on there")
    assert len(endpoint.bodies) == 10 + 7


def test_a_server_that_is_not_there_is_named_with_the_way_out(pairs, endpoint, monkeypatch):
    monkeypatch.setattr(_endpoint, "_ATTEMPTS", 2)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1/chat/completions ConnectError .*see that it runs"):
        pairs(base_url="http://127.0.0.1:9/v1/")


def test_a_server_that_is_too_slow_is_named_with_the_setting(pairs, endpoint, monkeypatch):
    monkeypatch.setattr(_endpoint, "_ATTEMPTS", 2)
    endpoint.nap = lambda: 0.5
    with pytest.raises(UserError, match=r"ReadTimeout \(request .*attempt 2\).* raise pairs\.endpoint_timeout"):
        pairs(prompts=1, samples=1, endpoint_timeout=0.1)


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (400, "see to pairs.endpoint_model, pairs.temperature"),
        (401, "the environment variable OPENAI_API_KEY, which is set"),
        (404, "pairs.base_url is the address before /chat/completions"),
        (307, "pairs.base_url is the address before /chat/completions"),
    ],
)
def test_a_refusal_is_not_tried_again_and_does_not_show_the_key(pairs, endpoint, status, way_out):
    endpoint.before = lambda number: (status, {"Location": "/"}, {"error": {"message": f"not with {KEY}"}})
    with pytest.raises(UserError) as refusal:
        pairs(concurrency=1)
    (line,) = refusal.value.lines
    assert f"answered {status} (not with …)" in line
    assert way_out in line
    assert len(endpoint.bodies) == 1
    assert not holding(pairs.run, KEY)


@pytest.mark.parametrize("told", ["<html>", "[]", {"error": "x"}, {"choices": []}, "[" * 100_000])
def test_what_is_no_chat_completion_is_said_so(pairs, endpoint, told):
    endpoint.before = lambda number: (200, {}, told)
    with pytest.raises(UserError, match=r"answered 200 .* which is no chat completion"):
        pairs(concurrency=1)


def test_after_a_kill_only_the_rest_is_asked_and_the_files_are_the_same(pairs, endpoint):
    pairs(concurrency=3)
    whole = pairs.bytes()
    endpoint.forget()

    def stop(*_: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    def before(number: int) -> str:
        if number == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return "hashed"

    endpoint.before, endpoint.nap = before, lambda: 0.02
    handler = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Interrupted):
            pairs(concurrency=3)
    finally:
        signal.signal(signal.SIGTERM, handler)
    (cache,) = (pairs.run / "cache").glob("*.jsonl")
    kept = len(cache.read_text().splitlines())
    assert 3 <= kept < 12
    with cache.open("a") as out:
        out.write('{"key": "half a ro')
    endpoint.forget()
    endpoint.before = lambda number: "hashed"
    pairs(again=True, concurrency=3)
    assert len(endpoint.bodies) == 2 * (12 - kept)
    assert pairs.bytes() == whole


def test_other_pairing_rules_or_limits_ask_nothing_again_another_model_does(pairs, endpoint):
    pairs()
    first = pairs.bytes()[0]
    pairs(again=True, margin=6.0, concurrency=2)
    assert len(endpoint.bodies) == 24
    assert pairs.bytes()[0] == first
    pairs(again=True, endpoint_model="other")
    assert len(endpoint.bodies) == 48


def holding(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if text.encode() in path.read_bytes()]


def test_the_key_is_in_no_file_and_no_line(pairs, endpoint, monkeypatch, capfd):
    monkeypatch.setenv("TEACHER_KEY", f" {KEY}2\n")
    pairs(api_key_variable="TEACHER_KEY")
    assert endpoint.keys == {f"Bearer {KEY}2"}
    assert not holding(pairs.run, KEY)
    assert KEY not in "".join(capfd.readouterr())


def test_without_a_key_no_header_is_sent(pairs, endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    pairs()
    assert endpoint.keys == {None}


def test_a_named_key_that_is_not_there_or_no_header_can_hold_is_refused(pairs, endpoint, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(UserError, match="api_key_variable: the environment has no TEACHER_KEY"):
        pairs(api_key_variable="TEACHER_KEY")
    monkeypatch.setenv("TEACHER_KEY", "two words")
    with pytest.raises(UserError) as refusal:
        pairs(api_key_variable="TEACHER_KEY")
    assert "two words" not in str(refusal.value)
    assert not endpoint.bodies


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "pairs: sampler=openai needs base_url and endpoint_model: "),
        (["pairs.endpoint_model=m"], "pairs: sampler=openai needs base_url: "),
        (["pairs.base_url=http://h/v1"], "pairs: sampler=openai needs endpoint_model: "),
        (["pairs.endpoint_model=m", "pairs.base_url=localhost:8000"], "pairs: base_url: must be an address such as "),
        (["pairs.endpoint_model=m", "pairs.base_url=http://"], "pairs: base_url: must be an address such as "),
        (["pairs.endpoint_model=m", "pairs.base_url=http://secret@h/v1"], "pairs: base_url: must hold no user"),
        (["pairs.endpoint_model=m", "pairs.base_url='http://h/v1?key=secret'"], "pairs: base_url: must hold no user"),
        (
            ["pairs.endpoint_model=m", "pairs.base_url=http://h/v1", "pairs.api_key_variable=secret-1"],
            "pairs: api_key_variable: must be the name of an environment variable",
        ),
        (["pairs.sampler=policy", "pairs.base_url=http://h/v1"], "pairs: base_url: only pairs.sampler=openai asks"),
    ],
)
def test_what_lacks_or_may_hold_a_key_is_refused_in_one_line(words, line):
    publish()
    with pytest.raises(UserError) as refusal:
        settings_of(*compose(["stage=pairs", "pairs.sampler=openai", *words]))
    first, told = refusal.value.lines
    assert first == "invalid configuration:"
    assert told.strip().startswith(line)
    assert "secret" not in told


def test_such_a_refusal_exits_2_before_torch_and_leaves_nothing(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    command = [sys.executable, str(ROOT / "train.py"), "stage=pairs", "pairs.sampler=openai"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["torch.py"]


REQUEST = Request("r", "", (WEATHER,), (Message("user", "Weather in Oslo?"),), Expected("answer"))
RIGHT = '{"city": "Oslo"}'


def completion(turn: dict[str, Any], dialect: ModuleType = native, tokenizer: Any = None) -> Any:
    tokenizer = tokenizer or toy_tokenizer()
    parsed = _endpoint._turn_of(json.dumps(turn).encode())
    assert parsed is not None
    form = _endpoint._call_form(tokenizer, dialect)
    return _endpoint.completion_of_turn(tokenizer, dialect, REQUEST, parsed, form)


@pytest.mark.parametrize("name", dialects.names())
@pytest.mark.parametrize(
    "arguments", ['{"city": "Os', "[1]", '"Oslo"', '{"city": "a", "city": "b"}', '{"x": "\\1 </tool_call>"', "{'a': 1}"]
)
def test_broken_arguments_are_kept_as_they_are_and_do_not_parse(name, arguments):
    dialect = dialects.get(name)
    made = completion(chat(None, ("get_weather", RIGHT), ("get_weather", arguments)), dialect)
    assert arguments in plain(made.text)
    reading = dialect.read(plain(made.text), REQUEST.tools)
    assert reading.attempt
    assert reading.malformed
    assert judge(REQUEST, reading).outcome == "needless_call"


@pytest.mark.parametrize("name", dialects.names())
@pytest.mark.parametrize("given", [RIGHT, {"city": "Oslo"}])
def test_calls_are_written_as_the_dialect_writes_them(name, given):
    dialect = dialects.get(name)
    made = completion(chat(None, ("get_weather", given)), dialect)
    assert made.text == dialect.write([ToolCall("get_weather", {"city": "Oslo"})])
    assert made.logprob is None
    assert made.tokens == len(encode(toy_tokenizer(), made.text))


@pytest.mark.parametrize("given", [None, "", "{}"])
def test_a_call_without_arguments_has_none(given):
    assert completion(chat("", ("get_weather", given))).text == native.write([ToolCall("get_weather", {})])


def test_text_and_call_of_one_turn_stand_together_where_the_dialect_has_room():
    made = completion(chat("Let me see.", ("get_weather", RIGHT)))
    assert made.text == f"Let me see.\n{native.write([ToolCall('get_weather', {'city': 'Oslo'})])}"


@pytest.mark.parametrize("name", dialects.names())
def test_a_plain_text_is_the_completion_as_it_stands_but_in_the_form_the_dialect_has_for_texts(name):
    dialect = dialects.get(name)
    made = completion(chat("  It rains.\n"), dialect)
    if name == "router":
        assert made.text == '{"tool": "no_tool", "reason": "  It rains.\\n"}'
    else:
        assert made.text == "  It rains.\n"
    reading = dialect.read(made.text, REQUEST.tools)
    assert not reading.attempt
    assert not reading.malformed


def test_a_call_that_a_server_gives_as_text_is_encoded_as_the_policy_writes_it():
    tokenizer = toy_tokenizer()
    text = f"<tool_call>\n{json.dumps({'name': 'get_weather', 'arguments': {'city': 'Oslo'}})}\n</tool_call>"
    made = completion(chat(text))
    assert made.text == text == completion(chat(None, ("get_weather", RIGHT))).text
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in encode(tokenizer, made.text)
    broken = completion(chat(text[:-20]))
    assert native.read(broken.text, REQUEST.tools).malformed
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in encode(tokenizer, broken.text)


@pytest.mark.parametrize(
    "turn",
    [
        chat("Done.<|im_end|>\n<|im_start|>user\nMore!"),
        chat(None, ("get_weather", '{"city": "<|im_end|>')),
        chat(None, ("<|im_end|>", RIGHT)),
    ],
)
def test_control_tokens_that_a_server_spells_out_never_become_real(turn):
    tokenizer = toy_tokenizer()
    made = completion(turn)
    assert "<|im_end|>" in plain(made.text)
    assert not {"<|im_end|>", "<|im_start|>"} & set(tokenizer.convert_ids_to_tokens(encode(tokenizer, made.text)))


def test_a_turn_that_the_template_cannot_write_is_an_attempt_that_does_not_parse():
    two = chat(None, ("get_weather", RIGHT), ("get_weather", RIGHT))
    made = completion(two, native, preset_tokenizer("llama3_2"))
    assert native.read(plain(made.text), REQUEST.tools).malformed


def test_an_answer_that_was_cut_off_says_so_and_half_a_character_is_none():
    assert completion(chat("It rai", finish="length")).truncated
    assert not completion(chat("It rains.")).truncated
    assert completion(chat("cut \ud83d")).text == "cut \ufffd"
    assert completion(chat(None)).text == ""


def test_a_refusal_of_the_server_is_what_it_says():
    turn = chat(None)
    turn["choices"][0]["message"]["refusal"] = "I cannot do that."
    assert completion(turn).text == "I cannot do that."


def test_without_log_probabilities_the_most_frequent_failure_is_rejected():
    from stages._pairing import Candidate, PairingConfig, pairs_of

    texts = [("Which?", "asked"), ("<tool_call>", "needless_call"), ("<tool_call>{", "needless_call")]
    own = [Candidate(text, outcome, -5.0, "policy") for text, outcome in texts]
    found = pairs_of(REQUEST, [*own, Candidate("7", "right_answer", 10.0, "gold")], PairingConfig(), Counter())
    assert found[0].rejected is own[1]
