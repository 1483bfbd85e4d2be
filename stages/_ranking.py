"""Ranks from elsewhere: what is given to be ranked, ranks read back, points out of them, and how far sources agree.

What is ranked are the distinct completions of a request, none that was cut off, at most `pairs.rank_limit` of them: the
policy's, the most frequent first, the turn of the data in the last place if it has none yet, then constructed mistakes.
They get short keys in an order drawn by the seed, so that none tells where a completion came from.

A person ranks by to_rank.jsonl and a file of one line a request, `{"id": …, "ranks": [["b"], ["a", "c"], ["d"]]}`, best
first, ties as groups (stages/rank.py writes it); a model ranks by comparing two at a time (stages/_judge.py). Both
become Copeland points, the completions that one beats less those that beat it (A. H. Copeland, A "reasonable" social
welfare function, 1951), which ties and cycles leave in order. Margins of pairs count in these.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data import jsontext
from data.transcript import Request
from stages._control import plain
from stages._endpoint import Names, check_address
from stages._errors import UserError, nearest
from stages._files import digest
from stages._metrics import kendall, sign, wilson
from stages._pairing import Candidate

KEYS = "abcdefghi"  # as many as there are number keys
JUDGE = Names("judge_url", "judge_model", "judge_key_variable", ("judge_max_tokens",))
TO_RANK = "to_rank.jsonl"
_SHOWN = 10  # mistakes of a file that are told at once
_FIELDS = ("id", "of", "ranks", "skip")

Groups = list[list[str]]  # keys, best first; those of one group are tied
Points = dict[str, float]  # by completion as people see it


class RankingConfig(BaseModel):
    """Who says which candidate is better."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)
    FREE: ClassVar[tuple[str, ...]] = ("judge_key_variable",)
    FILES: ClassVar[tuple[str, ...]] = ("ranks", "rubric")

    rank: Literal["rules", "human", "ai"] = "rules"
    """Who decides which candidate is chosen: the points of the reward table, a person (pairs.ranks), or a model at an
    OpenAI-compatible endpoint (pairs.judge_url). What the others say is reported."""
    ranks: str | None = None
    """File of a person's ranks, {"id": …, "ranks": [["b"], ["a", "c"]]} a line; python train.py stage=rank makes it."""
    rank_limit: int = Field(4, ge=2, le=len(KEYS))
    """Most candidates of a request that are ranked. The judge is asked k (k - 1) times about k of them."""
    judge_url: str | None = None
    """Address of the judge's endpoint before /chat/completions, as in http://localhost:8000/v1; without keys."""
    judge_model: str | None = None
    """Name of the judge at its endpoint."""
    judge_key_variable: str | None = None
    """Environment variable that holds the judge's key; without it, OPENAI_API_KEY where there is one."""
    judge_max_tokens: int = Field(256, ge=1)
    """Longest reply of the judge; {"better": "A"} is all it has to say."""
    rubric: str | None = None
    """Text file that tells the judge what is better, in place of the one in stages/_judge.py."""

    @model_validator(mode="after")
    def _judge_is_whole(self) -> RankingConfig:
        """The messages leave out the values: they may hold keys."""
        named = {"judge_url": self.judge_url, "judge_model": self.judge_model}
        if lacking := [name for name, value in named.items() if not value]:
            if self.rank == "ai" or len(lacking) < len(named):
                raise ValueError(
                    f"the judge lacks {' and '.join(lacking)}: pairs.judge_url=http://localhost:8000/v1"
                    " pairs.judge_model=NAME"
                )
            if self.rubric is not None or self.judge_key_variable is not None:
                raise ValueError("rubric and judge_key_variable: only a judge needs them; add pairs.judge_url")
            return self
        check_address(str(self.judge_url), self.judge_key_variable, JUDGE, "pairs")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether anybody ranks beside the rules."""
        return self.rank != "rules" or self.ranks is not None or self.judge_url is not None


@dataclass(frozen=True, slots=True)
class Ballot:
    """What is to be ranked of one request: completions by key, as people see them, and which ballot that is."""

    request: Request
    candidates: dict[str, str]

    @property
    def of(self) -> str:
        """Names these completions under these keys: ranks of others do not count for them."""
        return digest([self.request.id, self.candidates])[:16]

    def row(self) -> dict[str, Any]:
        """The row of to_rank.jsonl."""
        return {
            "id": self.request.id,
            "of": self.of,
            "tools": [tool.as_function() for tool in self.request.tools],
            "messages": [message.as_chat() for message in self.request.messages],
            "candidates": self.candidates,
        }


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file of ranks; `groups` is None where it was skipped."""

    number: int
    id: str
    groups: Groups | None
    of: str | None = None


def shown(candidate: Candidate) -> str:
    """A completion as it is ranked: two that differ only in white space around them are one."""
    return plain(candidate.text).strip()


def ballots_of(
    requests: Sequence[Request], candidates: Sequence[Sequence[Candidate]], limit: int, seed: int
) -> dict[str, Ballot]:
    """What is to be ranked, by request id; requests with fewer than two distinct completions are left out."""
    ballots = {}
    for request, row in zip(requests, candidates, strict=True):
        texts = _distinct(row, limit)
        random.Random(f"rank {seed} {request.id}").shuffle(texts)
        if len(texts) > 1:
            ballots[request.id] = Ballot(request, dict(zip(KEYS, texts, strict=False)))
    return ballots


def _distinct(candidates: Sequence[Candidate], limit: int) -> list[str]:
    """Which completions are ranked, as the docstring of this module says."""
    whole = [each for each in candidates if not each.truncated]
    own = [text for text, _ in Counter(shown(each) for each in whole if each.source == "policy").most_common()]
    gold = [shown(each) for each in whole if each.source == "gold"]
    made = [shown(each) for each in whole if each.source == "constructed"]
    first = own[: limit - 1] if set(gold) - set(own[:limit]) else own
    return list(dict.fromkeys((*first, *gold, *own, *made)))[:limit]


def parse_ranks(path: Path, setting: str = "pairs.ranks") -> list[Line]:
    """The lines of a file of ranks, which the setting names; UserError lists what is wrong with which of them."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{setting}: {path} cannot be read ({error.strerror}); {_WAY_OUT}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{setting}: {path} is no UTF-8 text (byte {error.start}); {_WAY_OUT}") from None
    lines, wrong = [], []
    for number, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                lines.append(_line(number, content))
            except ValueError as error:
                wrong.append(f"{setting}: {path}:{number}: {error}")
    _refuse(wrong)
    return lines


_WAY_OUT = 'a line is {"id": "…", "ranks": [["b"], ["a", "c"]]}, best first; python train.py stage=rank writes such'


def _line(number: int, content: str) -> Line:
    """ValueError says what is wrong with it."""
    row = jsontext.loads(content)
    if not isinstance(row, dict):
        raise ValueError(f"must be an object, not {type(row).__name__}; {_WAY_OUT}")
    for name in row:
        if name not in _FIELDS:
            raise ValueError(f"no such field {name!r}{nearest(name, _FIELDS)}; {_WAY_OUT}")
    if not isinstance(row.get("id"), str):
        raise ValueError(f"id must be the text that {TO_RANK} has; {_WAY_OUT}")
    if not isinstance(row.get("of"), str | None):
        raise ValueError(f"of must be the text that {TO_RANK} has, or be left out")
    if row.get("skip") is True and "ranks" not in row:
        return Line(number, row["id"], None, row.get("of"))
    if "skip" in row:
        raise ValueError("skip must be true, and stand where no ranks are given")
    return Line(number, row["id"], groups_of(row.get("ranks")), row.get("of"))


def groups_of(value: Any) -> Groups:
    """Ranks as they are given, best first: a key by itself is a group of one. ValueError says what is wrong."""
    if not isinstance(value, list) or not value:
        raise ValueError(f'ranks must be a list of keys or of groups of keys, such as [["b"], ["a", "c"]]; {_WAY_OUT}')
    groups = [group if isinstance(group, list) else [group] for group in value]
    keys = [key for group in groups for key in group]
    if not all(isinstance(key, str) for key in keys) or not all(groups):
        raise ValueError(f'ranks must hold keys such as "a", in groups that are not empty; {_WAY_OUT}')
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"ranks: {', '.join(map(repr, twice))} stands there more than once; a key has one place")
    return groups


def check_keys(groups: Groups, candidates: Collection[str]) -> None:
    """ValueError names the keys that are no candidates."""
    if unknown := [key for group in groups for key in group if key not in candidates]:
        raise ValueError(f"ranks: no candidate {', '.join(map(repr, unknown))}; there are {', '.join(candidates)}")


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} lines more"] if len(wrong) > _SHOWN else []
        raise UserError(*wrong[:_SHOWN], *more)


def matched(
    path: Path, lines: Sequence[Line], ballots: Mapping[str, Ballot]
) -> tuple[dict[str, Points], dict[str, str], int]:
    """Points by request, the reason of each request that has none, and how many lines are of no request asked here.

    Reasons: not_ranked, skipped, and stale where all its lines are of other completions. UserError lists the keys that
    are no candidates. What a line leaves out is not ranked.
    """
    points, reasons = dict[str, Points](), dict.fromkeys(ballots, "not_ranked")
    last = latest(lines, {id_: ballot.of for id_, ballot in ballots.items()})
    reasons |= {line.id: "stale" for line in lines if line.id in ballots and line.id not in last}
    wrong = []
    for id_, line in last.items():
        ballot = ballots[id_]
        if line.groups is None:
            reasons[id_] = "skipped"
        else:
            try:
                check_keys(line.groups, ballot.candidates)
            except ValueError as error:
                wrong.append(f"pairs.ranks: {path}:{line.number}: {error}")
                continue
            del reasons[id_]
            points[id_] = {ballot.candidates[key]: worth for key, worth in copeland(line.groups).items()}
    _refuse(wrong)
    return points, reasons, len({line.id for line in lines} - ballots.keys())


def latest(lines: Sequence[Line], of: Mapping[str, str]) -> dict[str, Line]:
    """The last line of each request of these; one that says it is of other completions is none of its lines."""
    return {line.id: line for line in lines if line.id in of and line.of in (None, of[line.id])}


def copeland(groups: Groups) -> dict[str, float]:
    """Copeland points of ranks: the keys behind each one less those before it.

    >>> copeland([["b"], ["a", "c"], ["d"]])
    {'b': 3.0, 'a': 0.0, 'c': 0.0, 'd': -3.0}
    """
    place = {key: number for number, group in enumerate(groups) for key in group}
    return {key: float(sum(sign(at - mine) for at in place.values())) for key, mine in place.items()}


def ranked(candidates: Sequence[Candidate], points: Points) -> list[Candidate]:
    """The candidates that were ranked, those of one text alike, with the points of their places."""
    return [
        replace(each, points=points[shown(each)]) for each in candidates if shown(each) in points and not each.truncated
    ]


def table_points(candidates: Sequence[Candidate], ballot: Ballot) -> Points:
    """What the reward table gives for the completions of a ballot."""
    worth = {shown(each): each.points for each in candidates if not each.truncated}
    return {text: worth[text] for text in ballot.candidates.values()}


def agreement(first: Mapping[str, Points], second: Mapping[str, Points]) -> dict[str, Any]:
    """How far two sources order the pairs of candidates alike, over the requests that both ranked.

    `alike` is the share of pairs in the same order among those that neither ties, with its Wilson interval, which is
    somewhat too narrow: pairs of one request depend on each other. `tau_b` is Kendall's over the pairs within requests.
    """
    requests, signs = 0, list[tuple[int, int]]()
    for id_ in first.keys() & second.keys():
        mine, theirs = first[id_], second[id_]
        both = sorted(mine.keys() & theirs.keys())
        requests += len(both) > 1
        signs += [(sign(mine[a] - mine[b]), sign(theirs[a] - theirs[b])) for a, b in itertools.combinations(both, 2)]
    products = Counter(a * b for a, b in signs if a and b)
    decided = products[1] + products[-1]
    interval = wilson(products[1], decided)
    return {
        "requests": requests,
        "pairs": len(signs),
        "same": products[1],
        "opposite": products[-1],
        "tied_by_first": sum(a == 0 != b for a, b in signs),
        "tied_by_second": sum(b == 0 != a for a, b in signs),
        "tied_by_both": sum(a == b == 0 for a, b in signs),
        "alike": products[1] / decided if decided else None,
        "alike_ci": list(interval) if interval else None,
        "tau_b": kendall(signs),
    }
