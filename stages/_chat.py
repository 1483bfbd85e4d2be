"""Several agents asked the same thing, in a terminal or on a page that only this machine's user can reach.

The page is one file served by the standard library: no package to install, nothing fetched from elsewhere. It listens
on 127.0.0.1 under a random path; requests of other hosts' names (DNS rebinding) and of other origins are refused, and
what models, tools and users say is put into it as text, never as HTML.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socketserver
import threading
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import jsontext
from data.transcript import Message, Tool, ToolCall
from stages._errors import UserError
from stages._examples import clip, visible

if TYPE_CHECKING:
    from runtime import Agent

MAX_LENGTH = 4000  # characters of a request
_MAX_BODY = 64 * 1024
_SHOWN = 2000  # characters of a result


class Room:
    """Agents with a conversation each. One request at a time."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self.agents = dict(agents)
        self._said: dict[str, tuple[Message, ...]] = {}
        self._lock = threading.Lock()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What is on offer to all of them."""
        return next(iter(self.agents.values())).router.tools

    def say(self, text: str) -> Iterator[dict[str, Any]]:
        """Ask every agent, one after the other; what happens, as rows of model, kind and text.

        Kinds: piece (of the completion as it is written), call, result and failed (of a call, with its id), answer,
        invalid and bound (the end; an invalid one has a reason).
        """
        with self._lock:
            for model, agent in self.agents.items():
                for event in agent.stream((*self._said.get(model, ()), Message("user", text))):
                    row = _row(event)
                    if row["kind"] in ("answer", "invalid", "bound"):
                        self._said[model] = event.messages  # type: ignore[union-attr]
                    yield {"model": model} | row

    def forget(self) -> None:
        """Start all conversations anew."""
        with self._lock:
            self._said.clear()


def _row(event: Any) -> dict[str, Any]:
    from runtime import Called, Piece, Returned

    match event:
        case Piece(text):
            return {"kind": "piece", "text": visible(text)}
        case Called(call):
            return {"kind": "call", "id": call.id, "text": visible(_written(call))}
        case Returned(call, content, failed):
            shown = visible(clip(content, _SHOWN))
            return {"kind": "failed" if failed else "result", "id": call.id, "text": shown}
        case _:
            return {"kind": event.stop, "text": visible(event.text), "reason": visible(event.reason)}


def _written(call: ToolCall) -> str:
    """A call as people read it: `name({"argument": "value"})`."""
    return f"{call.name}({jsontext.dumps(call.arguments)})"


def talk(room: Room, lines: Iterable[str], prompt: str = "") -> None:
    """A conversation by lines: each is a request, /forget starts anew. Prints what each model does."""
    width = max(map(len, room.agents))
    marks = {"call": "->", "result": "<-", "failed": "<-", "answer": "  ", "invalid": "? ", "bound": "! "}
    print(prompt, end="", flush=True)
    for line in lines:
        text = line.strip()
        if text == "/forget":
            room.forget()
        elif len(text) > MAX_LENGTH:
            print(f"at most {MAX_LENGTH} characters")
        elif text:
            for row in room.say(text):
                if row["kind"] != "piece":
                    reason = f"  ({row['reason']})" if row.get("reason") else ""
                    told = row["text"].replace("\n", f"\n{'':{width + 4}}")
                    print(f"{row['model']:{width}} {marks[row['kind']]} {told}{reason}", flush=True)
        print(prompt, end="", flush=True)


class Page:
    """The page and its server; `url` holds the secret part of its address. UserError for a port that is taken."""

    def __init__(self, room: Room, port: int = 0) -> None:
        token, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(16)
        source = (Path(__file__).parent / "_chat.html").read_text(encoding="utf-8")
        handler = type("Handler", (_Handler,), {"room": room, "token": token, "nonce": nonce})
        handler.page = source.replace("{{nonce}}", nonce).encode()  # type: ignore[attr-defined]
        try:
            self._server = _Server(("127.0.0.1", port), handler)
        except OSError as error:
            raise UserError(f"chat.port: {port} cannot be listened on ({error}); leave it out for a free one") from None
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/{token}/"

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def serve(self) -> None:
        """Until it is interrupted, or `stop` is called from another thread."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `serve`."""
        self._server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an answer under way does not keep the process from ending

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the resolver for a name, which may take long
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    """GET gives the page and what it shows; POST say and forget. Everything else is refused without a word."""

    room: Room
    token: str
    nonce: str
    page: bytes
    timeout = 30  # seconds for a request to arrive
    server: _Server

    def do_GET(self) -> None:
        """The page, and what is on offer."""
        match self._asked():
            case "":
                self._send(self.page, "text/html; charset=utf-8")
            case "about":
                tools = [tool.as_function()["function"] for tool in self.room.tools]
                self._send(_json({"models": list(self.room.agents), "tools": tools}), "application/json")
            case _:
                self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """A request to the models, or to start anew."""
        asked = self._asked()
        if asked not in ("say", "forget"):
            return self._refuse(HTTPStatus.NOT_FOUND)
        if self.headers.get("Origin") not in {f"http://{host}" for host in self._hosts()}:
            return self._refuse(HTTPStatus.FORBIDDEN)
        if self.headers.get_content_type() != "application/json":  # a form of another page cannot send this
            return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 9):
            return self._refuse(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > _MAX_BODY:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            body = jsontext.loads(self.rfile.read(int(length)).decode())
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if asked == "forget":
            self.room.forget()
            return self._send(b"{}", "application/json")
        text = body.get("text") if isinstance(body, dict) else None
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_LENGTH:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        self._head("application/x-ndjson")
        rows = self.room.say(text.strip())
        try:
            for row in rows:
                self.wfile.write(_json(row) + b"\n")
                self.wfile.flush()
        except OSError:  # the page was closed: so is the work
            pass
        finally:
            rows.close()  # type: ignore[attr-defined]

    def _hosts(self) -> set[str]:
        port = self.server.server_address[1]
        return {f"127.0.0.1:{port}", f"localhost:{port}"}

    def _asked(self) -> str | None:
        """The path behind the token; None where the host or the token is another."""
        first, _, rest = self.path.removeprefix("/").partition("/")
        right = hmac.compare_digest(first.encode("utf-8", "surrogateescape"), self.token.encode())
        return rest if right and self.headers.get("Host") in self._hosts() else None

    def _head(self, kind: str, length: int | None = None) -> None:
        own = f"'nonce-{self.nonce}'"
        policy = f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; base-uri 'none'"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", f"{policy}; form-action 'none'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def _send(self, body: bytes, kind: str) -> None:
        self._head(kind, len(body))
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
