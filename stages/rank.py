"""A page on this machine to rank candidates by hand, with the keyboard: what stage=pairs pairs.rank=human asks for.

    python train.py stage=rank run=mine [rank.ranks=FILE rank.port=8123]

Serves the requests of pairs/to_rank.jsonl one after the other, and adds each answer to the file of ranks at once: stop
when you like, the same command goes on with what is left. `pairs.ranks=FILE` then reads the file. The page is for this
machine's user alone (stages/_local_page.py), and what models and data say is shown as text. Left out: several people at
once, whose last answer to a request is the one that counts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from data import jsontext
from stages import _report
from stages._errors import UserError
from stages._examples import visible
from stages._files import append_jsonl, read_jsonl
from stages._lineage import command
from stages._local_page import LocalPage
from stages._ranking import TO_RANK, Groups, check_keys, groups_of, latest, parse_ranks

if TYPE_CHECKING:
    from stages._job import Job
    from stages._settings import Settings


class Config(BaseModel):
    """Settings of stage=rank."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("port",)

    ranks: str | None = None
    """File that the ranks are added to, by default ranks.jsonl in the run's folder."""
    port: int = Field(0, ge=0, le=65535)
    """Port on 127.0.0.1; 0 takes a free one."""


def files(settings: Settings) -> dict[str, Path]:
    """What there is to rank, and the ranks there are: while these change, the page is opened again."""
    ranks = settings.stage("rank").ranks
    place = Path(ranks) if ranks else settings.run_folder / "ranks.jsonl"
    return {"to_rank": settings.folder / "pairs" / TO_RANK, "ranks": place}


def refuse(settings: Settings, _above: Mapping[str, Path]) -> None:
    """Nothing to rank, or ranks in a folder that is replaced."""
    place = files(settings)
    if not place["to_rank"].exists():
        raise UserError(f"run first: {command('pairs', settings)} pairs.rank=human")
    for stage in ("pairs", "rank"):
        if (settings.folder / stage).resolve() in place["ranks"].resolve().parents:
            raise UserError(f"rank.ranks: {place['ranks']} lies in a folder that stages replace; name another file")


def run(job: Job) -> dict[str, Any]:
    """Serve the page until it is finished; returns how many requests are ranked, skipped and left."""
    place = files(job.settings)
    desk = Desk(list(read_jsonl(place["to_rank"])), place["ranks"])
    try:
        with page(desk, job.config.port) as opened:
            job.say(f"{desk.counts()['left']} of {len(desk.rows)} requests to rank; open {opened.url}")
            job.say("Ctrl-C stops, and the same command goes on; the page has a button to finish")
            opened.serve_forever(poll_interval=0.1)
    finally:
        counts = desk.counts()
        job.say(f"{counts['ranked']} ranked, {counts['skipped']} skipped, {counts['left']} left -> {desk.path}")
    job.say(f"next: {command('pairs', job.settings)} pairs.rank=human pairs.ranks={desk.path}")
    return {"requests": len(desk.rows), **counts}


class Desk:
    """What there is to rank and what was said of it; each answer goes to the file before anything else happens."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
        self.rows, self.path = rows, path
        _mend(path)
        lines = parse_ranks(path, "rank.ranks") if path.exists() else []
        known = latest(lines, {row["id"]: row["of"] for row in rows})
        self.answers: dict[str, Groups | None] = {id_: line.groups for id_, line in known.items()}
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Requests that are ranked, skipped and left."""
        skipped = sum(groups is None for groups in self.answers.values())
        ranked = len(self.answers) - skipped
        return {"ranked": ranked, "skipped": skipped, "left": len(self.rows) - len(self.answers)}

    def next(self, behind: int = -1) -> int | None:
        """The place of the first request without an answer behind this one, or else before it."""
        order = [*range(behind + 1, len(self.rows)), *range(behind + 1)]
        return next((place for place in order if self.rows[place]["id"] not in self.answers), None)

    def show(self, place: int | None) -> dict[str, Any]:
        """What the page needs of one request, its hidden characters as codes; nothing but counts without a place."""
        shown = {"total": len(self.rows), "place": place, **self.counts()}
        if place is None:
            return shown | {"row": None}
        row = self.rows[place]
        turns = [
            {"role": visible(turn["role"]), "text": visible(turn["text"])} for turn in _report.turns(row["messages"])
        ]
        tools = _report.offered([tool["function"] for tool in row["tools"]])
        return shown | {
            "row": {
                "id": visible(row["id"]),
                "of": row["of"],
                "turns": turns,
                "tools": [{name: visible(str(text)) for name, text in tool.items()} for tool in tools],
                "candidates": {key: visible(text) for key, text in row["candidates"].items()},
                "ranks": self.answers.get(row["id"]),
            }
        }

    def answer(self, said: Any) -> int | None:
        """Keep an answer, {"place", "of", "ranks"} or {"place", "of", "skip": true}; returns the place that comes next.
        ValueError says what is wrong with it.
        """
        if not isinstance(said, dict) or set(said) not in ({"place", "of", "ranks"}, {"place", "of", "skip"}):
            raise ValueError("an answer has place, of, and ranks or skip")
        row = self.rows[self.place(said["place"])]
        if said["of"] != row["of"]:
            raise ValueError("this answer is of other candidates; load the page again")
        groups = None
        line: dict[str, Any] = {"id": row["id"], "of": row["of"]}
        if "ranks" in said:
            groups = groups_of(said["ranks"])
            check_keys(groups, row["candidates"])
        elif said["skip"] is not True:
            raise ValueError("skip must be true")
        with self._lock:
            append_jsonl(self.path, line | ({"skip": True} if groups is None else {"ranks": groups}))
            self.answers[row["id"]] = groups
        return self.next(said["place"])

    def place(self, value: Any) -> int:
        """The place, if there is such a request; ValueError otherwise."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(self.rows):
            raise ValueError("there is no such request")
        return value


def _mend(path: Path) -> None:
    """End the last line of a file of ranks, or take it away where an interruption left half of it."""
    if not path.exists() or not (content := path.read_bytes()) or content.endswith(b"\n"):
        return
    whole, _, last = content.rpartition(b"\n")
    try:
        jsontext.loads(last.decode("utf-8"))
        mended = content + b"\n"
    except ValueError:
        mended = whole + b"\n" if whole else b""
    path.write_bytes(mended)


def page(desk: Desk, port: int = 0) -> LocalPage:
    """The page of a desk; UserError for a port that is taken."""

    def row(rest: str) -> dict[str, Any]:
        if not rest:
            return desk.show(desk.next())
        return desk.show(desk.place(int(rest) if rest.isdecimal() else None))

    takes = {"answer": lambda said: desk.show(desk.answer(said)), "finish": lambda _: desk.counts()}
    return LocalPage("rank.port", port, "_rank.html", {"row": row}, takes, last="finish")
