"""Whether llama.cpp's server, given a merge's GGUF, does what the merged model does here.

    python train.py stage=merge run=mine model=… merge.gguf=f16 merge.llama_cpp=FOLDER
    python -m benchmarks.serving FOLDER/build/bin/llama-server --run mine [--requests 100]

It is started on runs/<run>/merge/gguf, and asked test requests of the run's data one by one, without sampling. Printed:
for how many of them it renders the same prompt, cuts that into the same tokens, goes on from it with the same text, and
answers `/v1/chat/completions` with the same calls, where the model's own are valid: the server lets it write no others,
and makes something else of these. Then the first difference of each kind; weights that were rounded for GGUF may answer
otherwise now and then. llama.cpp knows the tokenizers of published models alone, so that the embedded
model, which has one of its own, cannot be converted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from data import dialects, schema
from data.load import DataConfig, load
from data.transcript import Request
from runtime import Answer, LocalModel
from stages._files import read_json
from stages._sampling import encode, prompt_of
from stages._scoring import spread

RUNS = Path("runs")
STARTS = 120  # seconds that the server may take to load the model
TOKENS = 128

Ask = Callable[..., Any]  # a path of the server and the fields of what it is sent; its answer


@contextlib.contextmanager
def server(binary: str, model: Path, port: int) -> Iterator[Ask]:
    """Start the server on a model, hand out what asks it, stop it."""

    def ask(path: str, **fields: Any) -> Any:
        sent = urllib.request.Request(
            f"http://127.0.0.1:{port}/{path}", json.dumps(fields).encode() or None, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(sent, timeout=600) as answer:
            return json.load(answer)

    words = [binary, "-m", str(model), "--jinja", "--host", "127.0.0.1", "--port", str(port), "-np", "1"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + STARTS
            while True:
                with contextlib.suppress(urllib.error.URLError):
                    ask("tokenize", content="")
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{binary} did not start on {model}; try: {' '.join(words)}")
                time.sleep(0.2)
            yield ask
        finally:
            process.terminate()


def as_sent(request: Request) -> dict[str, Any]:
    """A request as clients of OpenAI's interface send it: arguments as JSON text."""
    messages = json.loads(json.dumps([message.as_chat() for message in request.messages]))
    for call in (call for message in messages for call in message.get("tool_calls") or ()):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    tools = [tool.as_function() for tool in request.tools]
    return {"messages": messages} | ({"tools": tools} if tools else {})


def calls_of(choice: Any, speech: ModuleType, request: Request) -> list[tuple[str, Any]]:
    """The calls that the server read, or that stand in its text; none where it cut the answer off."""
    message = choice["message"]
    if choice["finish_reason"] == "length":
        return []
    if made := message.get("tool_calls"):
        return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]
    return [(call.name, call.arguments) for call in speech.read(message.get("content") or "", request.tools).calls]


def compare(ask: Ask, here: LocalModel, tokenizer: Any, dialect: str, request: Request) -> dict[str, tuple[Any, Any]]:
    """What the server and the model here make of a request, by what is compared."""
    speech = dialects.get(dialect)
    prompt = prompt_of(tokenizer, speech, request)
    answer = next(each for each in here.stream(request.tools, request.messages) if isinstance(each, Answer))
    greedy = {"temperature": 0, "top_k": 1}
    (choice,) = ask("v1/chat/completions", **as_sent(request), **greedy, max_tokens=TOKENS)["choices"]
    found = {
        "prompts": (ask("apply-template", **as_sent(request))["prompt"], prompt),
        "tokens": (
            ask("tokenize", content=prompt, add_special=False, parse_special=True)["tokens"],
            encode(tokenizer, prompt),
        ),
        "texts": (
            ask("completion", prompt=prompt, n_predict=TOKENS, **greedy)["content"].strip(),
            answer.text.strip(),
        ),
    }
    offered = {tool.name: tool.parameters for tool in request.tools}
    made = answer.reading.calls
    if answer.reading.malformed or not all(
        call.name in offered and schema.fits(call.arguments, offered[call.name]) for call in made
    ):
        return found
    return found | {"calls": (calls_of(choice, speech, request), [(call.name, call.arguments) for call in made])}


def main(binary: str, run: str, requests: int, port: int) -> None:
    """Ask both, count, print."""
    from stages._model import ModelConfig, load_base, load_tokenizer

    folder = RUNS / run / "merge"
    files = sorted(folder.glob("gguf/*.gguf"))
    if not files:
        sys.exit(f"{folder} holds no GGUF: python train.py stage=merge run={run} merge.gguf=f16 merge.llama_cpp=FOLDER")
    inputs = read_json(folder / "manifest.json")["inputs"]
    dialect = inputs["model"]["dialect"]
    asked = spread(load(DataConfig(**inputs["data"])).test, requests)
    config = ModelConfig(path=str(folder / "model"), dialect=dialect)
    tokenizer = load_tokenizer(config)
    here = LocalModel(load_base(config), tokenizer, dialect, TOKENS)
    alike: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    first: dict[str, str] = {}
    with server(binary, files[0], port) as ask:
        for request in asked:
            for name, (theirs, ours) in compare(ask, here, tokenizer, dialect, request).items():
                compared[name] += 1
                compared["calls made"] += name == "calls" and bool(ours)
                alike[name] += theirs == ours
                if theirs != ours:
                    first.setdefault(name, f"{request.id}\n    server: {theirs!r}\n    here:   {ours!r}")
    print(f"{files[0]}: {len(asked)} requests")
    for name in ("prompts", "tokens", "texts", "calls"):
        print(f"  the same {name:8} {alike[name]} of {compared[name]}")
    print(f"  (the model answers {compared['calls made']} of these with a valid call)")
    for name, difference in first.items():
        print(f"first difference in {name}: {difference}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="llama-server of llama.cpp")
    parser.add_argument("--run", default="demo")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--port", type=int, default=8091)
    arguments = parser.parse_args()
    main(arguments.binary, arguments.run, arguments.requests, arguments.port)
