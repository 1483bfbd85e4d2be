"""A page for this machine's user alone, and what it asks for while it is open.

The standard library serves it: no package to install, nothing fetched from elsewhere. It listens on 127.0.0.1 under a
random path. Requests under another name, which may have been made to point here (DNS rebinding), and requests of other
pages are refused; the page itself may load nothing but what is in it.
"""

from __future__ import annotations

import hmac
import secrets
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data import jsontext
from stages import _report
from stages._errors import UserError

_HOST = "127.0.0.1"
_LONGEST_BODY = 64 * 1024  # bytes

Show = Callable[[str], Any]
Take = Callable[[Any], Any]


class LocalPage(ThreadingHTTPServer):
    """A page of stages/ at `url`, for `serve_forever`; UserError, which names `setting`, for a port that is taken.

    The page may GET what is in `shows`, whose functions are told the path behind the name, and POST JSON to what is in
    `takes`; after `last` the server stops. What they return is sent as JSON, an iterator as one line a value, as they
    come. ValueError is the asker's mistake: status 400 with its words.
    """

    daemon_threads = True  # an answer under way does not keep the process from ending

    def __init__(
        self,
        setting: str,
        port: int,
        template: str,
        shows: Mapping[str, Show],
        takes: Mapping[str, Take],
        last: str | None = None,
    ) -> None:
        self.shows, self.takes, self.last = shows, takes, last
        self.token, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(16)
        self.page = _report.page(template, nonce=nonce)
        own = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'"
        self.about = {
            "Content-Security-Policy": f"default-src 'none'; {own}; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "X-Content-Type-Options": "nosniff",
        }
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"{setting}: {port} cannot be had ({error.strerror}); choose another, or 0 for any"
            ) from None
        self.url = f"http://{_HOST}:{self.server_port}/{self.token}/"
        self.names = {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the resolver for a name, which may take long
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


class _Handler(BaseHTTPRequestHandler):
    server: LocalPage
    server_version, sys_version = "Callwise", ""
    timeout = 30  # seconds for a request to arrive

    def do_GET(self) -> None:
        if (path := self._path()) is None:
            return
        name, _, rest = path.partition("/")
        if path == "":
            self._head("text/html; charset=utf-8", self.server.page.encode())
        elif name in self.server.shows:
            self._answer(lambda: self.server.shows[name](rest))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if (path := self._path()) is None:
            return
        length = self.headers.get("Content-Length", "")
        if path not in self.server.takes:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get_content_type() != "application/json":  # a form of another page cannot send this
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif not (length.isascii() and length.isdigit() and len(length) < 9):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > _LONGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            self._answer(lambda: self.server.takes[path](jsontext.loads(body.decode("utf-8"))))
            if path == self.server.last:
                threading.Thread(target=self.server.shutdown).start()  # it waits for the loop that called us

    def _path(self) -> str | None:
        """What is asked for behind the token; None where it was refused."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        first, _, path = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode("utf-8", "surrogateescape"), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
        elif host not in self.server.names or origin != (f"http://{host}" if self.command == "POST" else None):
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            return path
        return None

    def _answer(self, made: Callable[[], Any]) -> None:
        try:
            value = made()
        except ValueError as error:
            self._head("application/json", _json({"error": str(error)}), HTTPStatus.BAD_REQUEST)
            return
        if not isinstance(value, Iterator):
            self._head("application/json", _json(value))
            return
        self._head("application/x-ndjson")
        try:
            for row in value:
                self.wfile.write(_json(row) + b"\n")
                self.wfile.flush()
        except OSError:  # the page was closed: so is the work
            pass
        finally:
            value.close()  # type: ignore[attr-defined]

    def _head(self, kind: str, body: bytes | None = None, status: HTTPStatus = HTTPStatus.OK) -> None:
        """The head of an answer, and its body if it is known."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **self.server.about}.items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None:
            self.wfile.write(body)

    def _refuse(self, status: HTTPStatus) -> None:
        self._head("text/plain; charset=utf-8", status.phrase.encode(), status)

    def log_message(self, *_: Any) -> None:
        """Not a word: it would stand between what the stage says, with the token."""


def _json(value: Any) -> bytes:
    return jsontext.dumps(value).encode("utf-8")
