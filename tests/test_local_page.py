"""Pages for this machine's user alone: what they give, and what they refuse to everyone else."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from stages._errors import UserError
from stages._local_page import LocalPage
from tests.test_report import Page


class Caller:
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


@contextlib.contextmanager
def served(page: LocalPage) -> Iterator[Caller]:
    """The page is served by another thread; it is no longer when this ends."""
    thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Caller(page.url)
    finally:
        page.shutdown()
        page.server_close()
        thread.join()


@pytest.fixture
def kept() -> list[Any]:
    """What was posted."""
    return []


@pytest.fixture
def caller(kept: list[Any]) -> Iterator[Caller]:
    def show(rest: str) -> dict[str, str]:
        if rest == "bad":
            raise ValueError("there is nothing bad")
        return {"rest": rest}

    def keep(said: Any) -> dict[str, int]:
        kept.append(said)
        return {"kept": len(kept)}

    takes = {"keep": keep, "count": lambda said: iter(range(said)), "end": keep}
    with served(LocalPage("rank.port", 0, "_rank.html", {"show": show}, takes, last="end")) as one:
        yield one


def test_it_shows_takes_and_tells_what_was_wrong(caller: Caller, kept: list[Any]) -> None:
    assert caller.get("show") == {"rest": ""}
    assert caller.get("show/a/b") == {"rest": "a/b"}
    assert caller.get("show/bad") == {"error": "there is nothing bad"}
    assert caller.post("keep", {"a": "ø"}) == (200, {"kept": 1})
    assert caller.post("keep", b"{")[0] == caller.post("keep", b"\xff")[0] == 400
    assert kept == [{"a": "ø"}]
    status, headers, told = caller(f"{caller.url.path}count", 3)
    assert (status, headers["Content-Type"], told) == (200, "application/x-ndjson", "0\n1\n2\n")


def test_after_the_last_word_it_stops(kept: list[Any]) -> None:
    page = LocalPage("rank.port", 0, "_rank.html", {}, {"end": kept.append}, last="end")
    with page:
        thread = threading.Thread(target=page.serve_forever)
        thread.start()
        assert Caller(page.url).post("end", {"a": 1}, Origin="http://evil.example")[0] == 403
        assert thread.is_alive()
        assert Caller(page.url).post("end", {"a": 1}) == (200, None)
        thread.join(20)
        assert not thread.is_alive()
    assert kept == [{"a": 1}]


def test_without_the_token_there_is_nothing(caller: Caller) -> None:
    whole = caller.url.path
    for path in ("/", "/show", "/x/", "/x/show", whole[:-2] + "/show", f"/x{whole}"):
        assert caller(path)[0] == 404
    assert caller("/x/keep", {})[0] == 404
    assert caller(whole + "nothing")[0] == caller(whole + "../")[0] == caller(whole + "keep")[0] == 404
    assert caller.post("nothing", {})[0] == caller.post("show", {})[0] == 404
    assert len(whole) > 30


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", None])
def test_another_name_that_leads_here_gets_nothing(caller: Caller, kept: list[Any], host: str | None) -> None:
    origin = {"Origin": f"http://{host}"} if host else {}
    assert caller(caller.url.path + "show", Host=host)[0] == 403
    assert caller.post("keep", {}, Host=host, **origin)[0] == 403
    assert not kept


def test_localhost_is_this_machine_too(caller: Caller) -> None:
    name = f"localhost:{caller.url.port}"
    assert caller(caller.url.path + "show", Host=name)[0] == 200
    assert caller.post("keep", {}, Host=name, Origin=f"http://{name}")[0] == 200


@pytest.mark.parametrize("origin", [None, "", "null", "http://evil.example", "https://127.0.0.1", "http://localhost"])
def test_another_page_can_post_nothing(caller: Caller, kept: list[Any], origin: str | None) -> None:
    assert caller.post("keep", {}, Origin=origin)[0] == 403
    assert not kept
    if origin:
        assert caller(caller.url.path + "show", Origin=origin)[0] == 403


def test_what_is_no_json_of_this_page_is_refused(caller: Caller, kept: list[Any]) -> None:
    assert caller.post("keep", {}, Content_Type="text/plain")[0] == 415
    assert caller.post("keep", b" " * 70_000)[0] == 413
    assert caller.post("keep", b"x", Content_Length="99999999")[0] == 413
    for length in ("999999999", "-1", "1_0", None):
        assert caller.post("keep", b"", Content_Length=length)[0] == 411
    connection = http.client.HTTPConnection("127.0.0.1", caller.url.port or 0, timeout=20)
    connection.request("PUT", caller.url.path + "keep", b"{}")
    assert connection.getresponse().status == 501
    connection.close()
    assert not kept


@pytest.mark.parametrize("template", ["_rank.html", "_chat.html"])
def test_a_page_runs_its_own_script_alone_and_data_never_becomes_html(template: str) -> None:
    with served(LocalPage("rank.port", 0, template, {}, {})) as caller:
        status, headers, text = caller(caller.url.path)
    page = Page(text)
    policy = headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert status == 200
    assert nonce
    assert [(tag, value) for tag, name, value in page.attributes if name == "nonce"] == [
        ("style", nonce[1]), ("script", nonce[1]),
    ]  # fmt: skip
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|http:|https:", text)
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert caller.url.path.strip("/") not in text


def test_a_port_that_is_taken_is_told(caller: Caller) -> None:
    with pytest.raises(UserError, match=r"rank\.port: \d+ cannot be had .*; choose another, or 0 for any"):
        LocalPage("rank.port", caller.url.port or 0, "_rank.html", {}, {})
