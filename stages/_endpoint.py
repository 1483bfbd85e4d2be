"""Answers sampled from an OpenAI-compatible chat-completions endpoint in place of the local policy.

Every answer is a request of its own, with a seed of its own, since many servers know no `n`. Several are asked at once;
a request's row is put into the cache when its last answer is there, so that an interrupted run asks for the rest only.
What is kept is the turn as the server gave it; it becomes text for this model's dialect and template when it is read.
The key comes from the environment and goes into the Authorization header alone. Left out: streaming, log-probabilities
(`Completion.logprob` is None), and servers that take the limit as `max_completion_tokens` only.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data import jsontext
from data.transcript import Expected, Message, Request, ToolCall
from stages import _control
from stages._errors import UserError
from stages._files import digest, locked, read_jsonl

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

    from stages._job import Job
    from stages._sampling import Completion

KEY_VARIABLE = "OPENAI_API_KEY"
_ATTEMPTS = 7  # with the waits between them a minute: limits are counted by the minute
_FIRST_WAIT = 1.0  # seconds, doubled each time
_LONGEST_WAIT = 600.0  # seconds; a server that says to come back later than that is not waited for
_PROBE = "zqxj"

T = TypeVar("T")
Turn = tuple[str, list[list[str]], bool]  # content, [name, arguments as a JSON string] of each call, cut off


class Names(NamedTuple):
    """The settings of stage=pairs that say which endpoint is asked: address, model, the variable of its key; and those
    of an answer that it may refuse. Errors point to them.
    """

    url: str
    model: str
    key: str
    answer: tuple[str, ...]


SAMPLER = Names("base_url", "endpoint_model", "api_key_variable", ("temperature", "max_new_tokens"))


class EndpointConfig(BaseModel):
    """Who answers, and how an endpoint is asked."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("api_key_variable", "concurrency", "requests_per_minute", "endpoint_timeout")
    STAGE: ClassVar[str] = "pairs"  # whose settings these are, for messages

    sampler: Literal["policy", "openai"] = "policy"
    """Who answers: the SFT policy, or an OpenAI-compatible chat-completions endpoint."""
    base_url: str | None = None
    """Address of the endpoint before /chat/completions, as in http://localhost:8000/v1; without keys."""
    endpoint_model: str | None = None
    """Name of the model at the endpoint."""
    api_key_variable: str | None = None
    """Environment variable that holds the endpoint's key; without it, OPENAI_API_KEY where there is one."""
    concurrency: int = Field(8, ge=1)
    """Answers asked for at once at an endpoint."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Most answers asked for in a minute at an endpoint, evenly spaced; null sets no limit."""
    endpoint_timeout: float = Field(120.0, gt=0)
    """Seconds to wait for one answer of an endpoint."""

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> EndpointConfig:
        """The messages leave out the values: they may hold keys."""
        named = {"base_url": self.base_url, "endpoint_model": self.endpoint_model}
        if self.sampler != "openai":
            if idle := [name for name, value in named.items() if value is not None]:
                raise ValueError(f"{' and '.join(idle)}: only {self.STAGE}.sampler=openai asks an endpoint; add it")
            return self
        if lacking := [name for name, value in named.items() if not value]:
            raise ValueError(
                f"sampler=openai needs {' and '.join(lacking)}: {self.STAGE}.base_url=http://localhost:8000/v1"
                f" {self.STAGE}.endpoint_model=NAME"
            )
        check_address(str(self.base_url), self.api_key_variable, SAMPLER, self.STAGE)
        return self


def check_address(address: str, variable: str | None, names: Names, stage: str) -> None:
    """ValueError, which shows neither, for what is no plain http address or may hold a key, and for what names no
    environment variable.
    """
    try:
        parts = urlsplit(address)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or any(letter.isspace() for letter in address):
        raise ValueError(f"{names.url}: must be an address such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"{names.url}: must hold no user, password or query; keys come from the environment ({stage}.{names.key})"
        )
    if variable is not None and not variable.isidentifier():
        raise ValueError(f"{names.key}: must be the name of an environment variable, such as OPENAI_API_KEY")


def sample(
    job: Job, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, requests: Sequence[Request], count: int
) -> list[list[Completion]]:
    """`count` answers to each request, in the order of the requests; what the cache has is not asked again.

    UserError where the endpoint refuses, gives no chat completion, or fails too often; what came until then is kept.
    """
    from stages._samples import counted, put  # which asks an endpoint through this file

    config = job.config
    longest = config.max_new_tokens or job.settings.model.max_new_tokens
    how = {"model": config.endpoint_model, "temperature": config.temperature, "max_tokens": longest}
    source = {"endpoint": url_of(config.base_url), "seed": job.seed, "n": count}
    cache = job.cache / f"candidates-{digest(source | how)[:16]}.jsonl"
    job.record(samples_of={"endpoint": source["endpoint"], "model": config.endpoint_model}, samples=cache.name)
    prompts = [prompt_of(request) for request in requests]
    keys = [digest([request.id, prompt]) for request, prompt in zip(requests, prompts, strict=True)]
    with locked(cache.with_suffix(".lock"), "", wait=True), counted(job, keys):
        known = {row["key"]: row["turns"] for row in read_jsonl(cache)} if cache.exists() else {}
        left = [place for place, key in enumerate(keys) if key not in known]
        if len(left) < len(keys):
            job.say(f"{len(keys) - len(left)} of {len(keys)} requests have their samples already")
        if left:
            endpoint = Endpoint(job, SAMPLER)
            job.say(f"asking {config.endpoint_model} at {config.base_url} for {len(left) * count} answers")
            with job.bar(len(keys), "sampling", len(keys) - len(left)) as bar:

                def keep(place: int, turns: list[Turn]) -> None:
                    known[keys[place]] = turns
                    put(job, cache, {"key": keys[place], "turns": turns})
                    bar.update(bar.done + 1)

                bodies = {place: how | prompts[place] for place in left}
                import asyncio  # here and below: not for --help to wait for

                try:
                    asyncio.run(_ask_all(endpoint, requests, bodies, count, keep))
                except UserError as error:
                    kept = f"; {bar.done} of {len(keys)} requests are sampled and kept, the same command goes on there"
                    raise UserError(*(line + kept for line in error.lines)) from None
    form = _call_form(tokenizer, dialect)
    return [
        [completion_of_turn(tokenizer, dialect, request, turn, form) for turn in known[key]]
        for request, key in zip(requests, keys, strict=True)
    ]


def url_of(base_url: str) -> str:
    """Where a base URL, such as http://localhost:8000/v1, takes chat completions."""
    return f"{base_url.rstrip('/')}/chat/completions"


def prompt_of(request: Request) -> dict[str, Any]:
    """`messages` and, where there are any, `tools` of the body, as the API has them: arguments are JSON strings.

    Calls and results that have no ids get some, results in the order of the calls: the API wants them.
    """
    chat: list[dict[str, Any]] = []
    waiting: list[str] = []  # ids of the last turn's calls that have no result yet
    for number, message in enumerate(request.messages):
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            waiting = [call.id or f"call_{number}_{place}" for place, call in enumerate(message.tool_calls)]
            turn["content"] = message.content or None
            turn["tool_calls"] = [
                {
                    "id": id_,
                    "type": "function",
                    "function": {"name": call.name, "arguments": jsontext.dumps(call.arguments)},
                }
                for id_, call in zip(waiting, message.tool_calls, strict=True)
            ]
        if message.role == "tool":
            turn["tool_call_id"] = message.tool_call_id or (waiting[0] if waiting else f"call_{number}")
            waiting = [id_ for id_ in waiting if id_ != turn["tool_call_id"]]
        chat.append(turn)
    return {"messages": chat} | ({"tools": [tool.as_function() for tool in request.tools]} if request.tools else {})


def completion_of_turn(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request, turn: Turn, form: str
) -> Completion:
    """The turn as the policy would have to write it; its tokens are those of our tokenizer.

    Calls go through dialect and template. A call whose arguments are no JSON object keeps them as they are, and does
    not parse; so does one that the dialect cannot write. A text stands as it is, but where the dialect has a form for
    texts. `form` is a call as the template writes it: control tokens of it are left whole in texts.
    """
    from stages._sampling import Completion, TemplateError, completion_of, encode

    content, calls, truncated = turn
    try:
        if calls:
            text = _written(tokenizer, dialect, request, content, calls)
        else:
            reading = dialect.read(content, request.tools)
            if reading.malformed and not reading.attempt:
                text = completion_of(tokenizer, dialect, request, Message("assistant", content))
            else:
                text = _control.spoken(tokenizer, content, form)
    except TemplateError:
        objects = [f'{{"name": {jsontext.dumps(name)}, "arguments": {arguments}}}' for name, arguments in calls]
        text = _control.spoken(tokenizer, "\n".join(part for part in (content, *objects) if part))
    return Completion(text, None, len(encode(tokenizer, text)), truncated)


def _written(
    tokenizer: PreTrainedTokenizerBase, dialect: ModuleType, request: Request, content: str, calls: list[list[str]]
) -> str:
    """A turn with calls as dialect and template write it; TemplateError where they cannot."""
    from stages._sampling import TemplateError, completion_of

    broken: dict[str, str] = {}  # what stands for arguments that are no object until the template has written the rest
    made: list[ToolCall] = []
    for number, (name, given) in enumerate(calls):
        try:
            arguments = jsontext.loads(given)
        except jsontext.JsonError:
            arguments = None
        if not isinstance(arguments, dict):
            mark = f"{_PROBE}{number}"
            broken[mark], arguments = given, {mark: mark}
        made.append(ToolCall(name, arguments))
    text = completion_of(tokenizer, dialect, request, Message("assistant", content, tuple(made)))
    for mark, given in broken.items():
        raw = _control.spoken(tokenizer, given).replace("\\", r"\\")
        text, found = re.subn(rf'\{{\s*"{mark}"\s*:\s*"{mark}"\s*\}}', raw, text)
        if not found:
            raise TemplateError(f"no place for arguments that are no object: {given[:60]!r}")
    return text


def _call_form(tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> str:
    """A call as the template writes it; nothing where it cannot write this one."""
    from stages._sampling import TemplateError, completion_of

    request = Request("", "", (), (Message("user", _PROBE),), Expected("call"))
    try:
        return completion_of(
            tokenizer, dialect, request, Message("assistant", tool_calls=(ToolCall(_PROBE, {_PROBE: _PROBE}),))
        )
    except TemplateError:
        return ""


async def _ask_all(
    endpoint: Endpoint,
    requests: Sequence[Request],
    bodies: dict[int, dict[str, Any]],
    count: int,
    keep: Callable[[int, list[Turn]], None],
) -> None:
    """Ask for `count` answers to each, `concurrency` at a time; `keep` gets the place of a request that has all."""
    turns = dict[int, list[Turn | None]]()

    def each() -> Iterator[tuple[int, int]]:
        for place in bodies:
            turns[place] = [None] * count
            yield from ((place, number) for number in range(count))

    async def one(client: httpx.AsyncClient, wanted: tuple[int, int]) -> None:
        place, number = wanted
        body = bodies[place] | {"seed": seed_of(f"{endpoint.seed}/{requests[place].id}/{number}")}
        turns[place][number] = await endpoint.ask(client, body, requests[place].id)
        if None not in turns[place]:
            keep(place, turns.pop(place))  # type: ignore[arg-type]

    await at_once(endpoint, each(), one)


def seed_of(name: str) -> int:
    """A seed of 31 bits that the name alone decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


async def at_once(
    endpoint: Endpoint, items: Iterator[T], one: Callable[[httpx.AsyncClient, T], Awaitable[None]]
) -> None:
    """Do one thing for each item, `concurrency` at a time; what fails first is raised, and ends the others."""
    import asyncio

    import httpx

    async def work(client: httpx.AsyncClient) -> None:
        for item in items:
            await one(client, item)

    width = endpoint.config.concurrency
    limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
    timeout = endpoint.config.endpoint_timeout
    async with httpx.AsyncClient(headers=endpoint.headers, timeout=timeout, limits=limits) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(width):
                    group.create_task(work(client))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None


class Endpoint:
    """Asks for one answer at a time, as often as it takes and as fast as the limits allow."""

    def __init__(self, job: Job, names: Names) -> None:
        self.config, self.seed, self.say, self.names = job.config, job.seed, job.say, names
        self.url = url_of(getattr(self.config, names.url))
        self.stage, self.variable = self.config.STAGE, getattr(self.config, names.key)
        self.where = f"{self.stage}.{names.url}"
        self.key = _key(self.variable, f"{self.stage}.{names.key}")
        self.headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._gap = 60 / self.config.requests_per_minute if self.config.requests_per_minute else 0.0
        self._free = 0.0  # when the next request may go out
        self._told = False
        self._dice = random.Random()  # decides when to ask, never what is answered

    async def ask(self, client: httpx.AsyncClient, body: dict[str, Any], name: str) -> Turn:
        """The assistant's turn; UserError with URL, status and way out where there is none to be had."""
        import asyncio

        import httpx

        for attempt in range(1, _ATTEMPTS + 1):
            await self._wait()
            asked = 0.0
            try:
                response = await client.post(self.url, json=body)
            except httpx.RequestError as error:
                failure = " ".join(f"{type(error).__name__} {error}".split())
                way_out = (
                    f"see that it runs and {self.where} names it; if it is slow, raise {self.stage}.endpoint_timeout"
                )
            else:
                status = response.status_code
                failure = f"answered {status}{self._words(response)}"
                if response.is_success:
                    if turn := _turn_of(response.content):
                        return turn
                    raise UserError(
                        f"{self.where}: {self.url} {failure}, which is no chat completion (request {name}); is it the"
                        " address before /chat/completions?"
                    )
                if status not in (408, 429) and status < 500:
                    raise UserError(f"{self.where}: {self.url} {failure} (request {name}); {self._way_out(status)}")
                asked = _retry_after(response.headers.get("Retry-After", ""))
                way_out = f"lower {self.stage}.concurrency, set {self.stage}.requests_per_minute, or try later"
            if attempt == _ATTEMPTS or asked > _LONGEST_WAIT:
                wanted = f", and says to wait {asked:.0f} s" if asked > _LONGEST_WAIT else ""
                raise UserError(
                    f"{self.where}: {self.url} {failure}{wanted} (request {name}, attempt {attempt}); {way_out}"
                )
            if not self._told:
                self._told = True
                self.say(f"{self.url} {failure}; trying again, up to {_ATTEMPTS} times")
            self._free = max(self._free, time.monotonic() + asked)  # a limit is everybody's
            await asyncio.sleep(max(asked, _FIRST_WAIT * 2 ** (attempt - 1) * self._dice.uniform(0.5, 1.0)))
        raise AssertionError("the last attempt returns or raises")

    async def _wait(self) -> None:
        """Wait until the next request may go out."""
        import asyncio

        start = max(time.monotonic(), self._free)
        self._free = start + self._gap
        await asyncio.sleep(start - time.monotonic())

    def _words(self, response: httpx.Response) -> str:
        """What the server says about it, in one short line without the key."""
        told = response.text
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            told = str(json.loads(response.content)["error"]["message"])
        if self.key and len(self.key) >= 8:  # shorter ones are no secret, but words
            told = told.replace(self.key, "…")
        told = " ".join("".join(letter if letter.isprintable() else " " for letter in told[:2000]).split())
        return f" ({told[:200]})" if told else ""

    def _way_out(self, status: int) -> str:
        model = f"{self.stage}.{self.names.model}"
        if status in (401, 403):
            there = "is" if self.key else "is not"
            return f"see to the key in the environment variable {self.variable or KEY_VARIABLE}, which {there} set"
        if status == 404 or 300 <= status < 400:
            return f"{self.where} is the address before /chat/completions; see to it and to {model}"
        knobs = " and ".join(f"{self.stage}.{name}" for name in self.names.answer)
        return f"see to {model}, {knobs}, or leave the row out"


def _key(variable: str | None, setting: str) -> str | None:
    """The key in this variable, or in OPENAI_API_KEY if there is one; UserError where it is lacking or no header's."""
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable and not key:
        raise UserError(f"{setting}: the environment has no {variable}; set it, or leave it out")
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise UserError(f"{variable or KEY_VARIABLE}: a key holds neither spaces nor letters beyond ASCII")
    return key or None


def _turn_of(content: bytes) -> Turn | None:
    """The first choice of a chat completion; None for what is none."""
    try:
        if len(content) > jsontext.MAX_LENGTH:
            return None
        choice = json.loads(content)["choices"][0]
        message = choice["message"]
        said = message.get("content") or message.get("refusal") or ""
        functions = [call["function"] for call in message.get("tool_calls") or []]
        calls = [[_text(function["name"]), _arguments(function.get("arguments"))] for function in functions]
        return _text(said), calls, choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _arguments(value: Any) -> str:
    """Arguments as the API has them; a call of a tool without parameters may lack them, some servers give objects."""
    if value is None or value == "":
        return "{}"
    return _text(value if isinstance(value, str) else jsontext.dumps(value))


def _text(value: str) -> str:
    """A string without halves of characters, which no file can hold; a server may cut between them."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header says to wait: a number or a date (RFC 9110, 10.2.3); 0 for neither."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
