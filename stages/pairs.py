"""Preference pairs from the policy's own behaviour: sample answers, see what each did, pair the right with the wrong.

    python train.py stage=pairs run=mine [pairs.samples=8 reward.needless_call=-15]

Samples K answers a request from the SFT policy, reads and scores them, adds the turn of the data and constructed
mistakes, and pairs them in both directions (stages/_pairing.py says how). Writes candidates.jsonl, pairs.jsonl,
report.json and report.html, which shows a few pairs of each kind. Samples are kept in the run's cache as they come, by
policy, prompt and sampling settings: an interrupted run goes on where it was; another reward table or other pairing
rules never sample again.

    python train.py stage=pairs pairs.sampler=openai pairs.base_url=http://localhost:8000/v1 pairs.endpoint_model=…

takes the samples from any OpenAI-compatible endpoint instead (stages/_endpoint.py). The SFT stage is its parent all the
same, since DPO goes on with that adapter: `samples_of` in the manifest says who took the policy's place.

    python train.py stage=pairs pairs.rank=human                      writes to_rank.jsonl and says what to do with it
    python train.py stage=pairs pairs.rank=human pairs.ranks=FILE     goes on with a person's ranks
    python train.py stage=pairs pairs.rank=ai pairs.judge_url=… pairs.judge_model=…

let a person or a model say which candidate is better (stages/_ranking.py, stages/_judge.py). report.json and
report.html say how far they, and the rules, agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from stages import _endpoint, _judge, _ranking, _unlabelled
from stages._errors import UserError
from stages._pairing import Candidate, Pair, PairingConfig
from stages._ranking import Points, RankingConfig

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedTokenizerBase

    from data.transcript import Message, Request
    from stages._job import Job
    from stages._scoring import Scored
    from stages._settings import Settings

PARENTS = ("sft",)
BLOCKS = ("model", "data", "reward")


class Config(PairingConfig, RankingConfig, _endpoint.EndpointConfig):
    """Settings of stage=pairs."""

    FREE: ClassVar[tuple[str, ...]] = ("batch_size", *_endpoint.EndpointConfig.FREE, *RankingConfig.FREE)
    FILES: ClassVar[tuple[str, ...]] = ("unlabelled", *RankingConfig.FILES)

    samples: int = Field(2, ge=1)
    """Answers sampled for each request: more requests teach more than more answers to each."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature: 1 is what the policy would do of itself."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, by default model.max_new_tokens; one that reaches it counts as cut off."""
    batch_size: int | None = Field(64, ge=1)
    """Answers sampled at once; null takes model.sample_batch."""
    prompts: int | None = Field(None, ge=1)
    """At most so many requests, evenly spaced over those of the data."""
    max_dropped: float = Field(0.02, ge=0, le=1)
    """Share of the requests that the chat template may refuse before it is an error."""
    unlabelled: str | None = None
    """File of prompts that nobody labelled, {messages, tools} a row: those of which rules say that no call is right
    join the requests (stages/_unlabelled.py)."""
    unlabelled_confidence: float = Field(0.95, ge=0, le=1)
    """How sure these rules have to be; each says how often it was right on the built-in world."""
    probe: int | None = Field(None, ge=2)
    """Of those for which the rules name no act, those join too which the policy, asked so often without tools, always
    answers alike; null: it is not asked."""

    @model_validator(mode="after")
    def _something_to_probe(self) -> Config:
        if self.probe and self.unlabelled is None:
            raise ValueError("probe: is of prompts without labels; name a file of them in pairs.unlabelled")
        return self


def check_files(settings: Settings) -> None:
    """Prompts, a person's ranks and a rubric that cannot be read."""
    config = settings.stage("pairs")
    if config.unlabelled is not None:
        _unlabelled.read(config.unlabelled)
    if config.ranks is not None:
        _ranking.parse_ranks(Path(config.ranks))
    _judge.rubric_of(config.rubric)


def refuse(settings: Settings, _above: Mapping[str, Path]) -> None:
    """A person's ranks in the folder that is to be replaced."""
    ranks = settings.stage("pairs").ranks
    if ranks is not None and (settings.folder / "pairs").resolve() in Path(ranks).resolve().parents:
        raise UserError(f"pairs.ranks: {ranks} lies in the folder that this stage replaces; move it away")


def run(job: Job) -> dict[str, Any]:
    """Sample, score, pair; returns counts of candidates and pairs, and what the policy did."""
    from data import dialects, load
    from rewards import blind, threshold
    from stages import _pairing, _samples, _scoring
    from stages._files import write_json, write_jsonl, write_text
    from stages._model import load_tokenizer
    from stages._negatives import Pool
    from stages._pairs_report import page, ways_out
    from stages._report import facts
    from stages._sampling import encode

    config, settings = job.config, job.settings
    tokenizer, dialect = load_tokenizer(settings.model), dialects.get(settings.model.dialect)
    data = load.load(settings.data)
    asked, unlabelled = _scoring.spread(data.preference, config.prompts), None
    adapter, batch = job.parent("sft") / "adapter", config.batch_size or settings.model.sample_batch
    if config.unlabelled is not None:
        prompts = _unlabelled.read(config.unlabelled)
        known = _known(job, tokenizer, dialect, prompts, adapter, batch) if config.probe else {}
        more, unlabelled = _unlabelled.labelled(prompts, asked, config.unlabelled_confidence, job.seed, known)
        asked = [*asked, *more]
        job.say(_told_of(unlabelled))
    requests, refused = _scoring.renderable(tokenizer, dialect, asked)
    _scoring.check_refused(refused, len(asked), config.max_dropped, "pairs.max_dropped")
    answers = _samples.sample(job, tokenizer, dialect, requests, adapter, batch)
    sampled = _scoring.score(requests, answers, dialect, settings.reward)

    pool, filtered = Pool.of(data.preference), Counter[str]()
    own = [[_candidate(scored, "policy", None) for scored in row] for row in sampled]
    every: list[list[Candidate]] = []
    rows: list[dict[str, Any]] = []
    for request, row, candidates in zip(requests, sampled, own, strict=True):
        others = _other_turns(job, tokenizer, dialect, request, pool, filtered)
        rows += [_row(request, scored, "policy", sample=number) for number, scored in enumerate(row)]
        rows += [_row(request, scored, source, recipe=recipe) for source, recipe, scored in others]
        every.append([*candidates, *(_candidate(scored, source, recipe) for source, recipe, scored in others)])
    write_jsonl(job.folder / "candidates.jsonl", rows)
    points, unranked, ranking = _ranked(job, requests, every) if config.elsewhere else (None, None, None)
    found: dict[str, list[Pair]] = {}
    for request, candidates in zip(requests, every, strict=True):
        if points is None:
            found[request.id] = _pairing.pairs_of(request, candidates, config, filtered)
        else:
            ranked = _ranking.ranked(candidates, points.get(request.id, {}))
            found[request.id] = _pairing.ranked_pairs_of(request, ranked, config, filtered)
    pairs = _pairing.select(found, _pairing.has_both_sides(requests), config, job.seed, filtered)

    write_jsonl(job.folder / "pairs.jsonl", [_pair_row(pair, tokenizer, dialect) for pair in pairs])
    report = {
        "prompts": len(asked),
        "prompts_refused_by_template": len(refused),
        "unlabelled": unlabelled,
        **_pairing.behaviour(requests, own),
        **_pairing.summary(pairs, lambda text: len(encode(tokenizer, text))),
        "constructed": dict(sorted(Counter(row["recipe"] for row in rows if row["recipe"]).items())),
        "requests_without_pairs": _pairing.unpaired(requests, own, found, pairs, unranked),
        "filtered": dict(sorted((+filtered).items())),
        "call_threshold": threshold(settings.reward),
        "blind_shares": blind(requests, settings.reward),
        "ranking": ranking,
    }
    write_json(job.folder / "report.json", report)
    job.record(data=data.digest, requests=len(requests), requests_refused_by_template=len(refused))
    if not pairs:
        raise UserError(
            f"pairs: none from {len(requests)} requests ({report['always_right']} answered rightly by every sample;"
            f" left out: {_counted(report['filtered']) or 'nothing'}{_without_ranks(unranked)}); {ways_out(report)}"
        )
    write_text(job.folder / "report.html", page(job.folder, report, facts(job, data.digest)))
    _tell(job, report)
    job.say(_scoring.implied(requests, settings.reward))
    job.say(f"report: {job.folder / 'report.html'}")
    kinds = {f"pairs_{kind}": count for kind, count in report["by_kind"].items()}
    names = ("prompts", "samples", "always_right", "never_right", "tied", "pairs", "call_threshold")
    return {name: report[name] for name in names} | kinds


def _known(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    prompts: Sequence[Request],
    adapter: Path,
    batch: int,
) -> dict[str, str]:
    """What the policy answers of itself, without tools, to prompts for which the rules name no act, by their ids."""
    from stages import _samples, _scoring

    asked, _ = _scoring.renderable(tokenizer, dialect, _unlabelled.unsure(prompts))
    answers = _samples.sample(job, tokenizer, dialect, asked, adapter, batch, samples=job.config.probe)
    said = {request.id: _unlabelled.agreed(request, row, dialect) for request, row in zip(asked, answers, strict=True)}
    known = {id_: text for id_, text in said.items() if text is not None}
    job.say(f"asked without tools, the policy agrees with itself on {len(known)} of {len(asked)} unlabelled prompts")
    return known


def _ranked(
    job: Job, requests: Sequence[Request], every: Sequence[Sequence[Candidate]]
) -> tuple[dict[str, Points] | None, dict[str, str] | None, dict[str, Any]]:
    """Points by request of who decides, with the reason of each request that has none (both None where the rules
    decide), and what report.json says of all who rank. UserError where a person has yet to rank.
    """
    from stages._files import write_jsonl
    from stages._pairs_report import said_of

    config = job.config
    ballots = _ranking.ballots_of(requests, every, config.rank_limit, job.seed)
    place = job.folder / _ranking.TO_RANK
    write_jsonl(place, [ballot.row() for ballot in ballots.values()])
    if config.rank != "rules" and not ballots:
        raise UserError(
            f"pairs.rank: none of {len(requests)} requests has two distinct completions to rank; raise pairs.samples or"
            " pairs.temperature"
        )
    if config.rank == "human" and config.ranks is None:
        raise UserError(
            f"pairs.ranks: {len(ballots)} requests in {place} wait for a person: rank them with"
            f" python train.py stage=rank run={job.settings.run}, or write a file of"
            ' {"id": …, "ranks": [["b"], ["a", "c"]]} a line, best first; then add pairs.ranks=FILE to this command'
        )
    given = {request.id: row for request, row in zip(requests, every, strict=True)}
    sources = {"rules": {id_: _ranking.table_points(given[id_], ballot) for id_, ballot in ballots.items()}}
    without: dict[str, dict[str, str]] = {}
    report: dict[str, Any] = {
        "by": config.rank,
        "requests": len(ballots),
        "candidates": sum(len(ballot.candidates) for ballot in ballots.values()),
        "lines_of_other_requests": 0,
        "judge": None,
    }
    if config.ranks is not None:
        path = Path(config.ranks)
        sources["human"], without["human"], others = _ranking.matched(path, _ranking.parse_ranks(path), ballots)
        report["lines_of_other_requests"] = others
    if config.judge_url is not None:
        sources["ai"], without["ai"], report["judge"] = _judge.rank(job, ballots)
    report["ranked"] = {source: len(points) for source, points in sources.items()}
    report["unranked"] = {source: dict(sorted(Counter(why.values()).items())) for source, why in without.items()}
    report["agreement"] = {
        f"{one} and {other}": _ranking.agreement(sources[one], sources[other])
        for one, other in combinations(sources, 2)
    }
    for line in said_of(report):
        job.say(line)
    if config.rank == "rules":
        return None, None, report
    decisive = sources[config.rank]
    reasons = without[config.rank] | {request.id: "one_candidate" for request in requests if request.id not in ballots}
    reasons |= {id_: "tied" for id_, points in decisive.items() if len(set(points.values())) == 1}
    return decisive, reasons, report


def _other_turns(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    dialect: ModuleType,
    request: Request,
    pool: Any,
    filtered: Counter[str],
) -> list[tuple[str, str | None, Scored]]:
    """The turn of the data and constructed mistakes, as the template renders them: (source, recipe, scored)."""
    from stages import _scoring
    from stages._negatives import PROMISED, construct
    from stages._sampling import Completion, TemplateError, completion_of

    turns: list[tuple[str, str | None, Message]] = [("gold", None, request.gold)] if request.gold else []
    mistakes = construct(request, pool, job.config.constructed, job.seed)
    turns += [("constructed", recipe, turn) for recipe, turn in mistakes.items()]
    scored = []
    for source, recipe, turn in turns:
        try:
            text = completion_of(tokenizer, dialect, request, turn)
        except TemplateError:
            filtered["turn_refused_by_template"] += 1
            continue
        one = _scoring.score_one(request, Completion(text, 0.0, 0, False), dialect, job.settings.reward)
        if recipe and one.judgement.outcome != PROMISED[recipe]:
            filtered["not_as_constructed"] += 1
            continue
        scored.append((source, recipe, one))
    return scored


def _candidate(scored: Scored, source: Any, recipe: str | None) -> Candidate:
    completion = scored.completion
    return Candidate(
        completion.text,
        scored.judgement.outcome,
        scored.score.points,
        source,
        recipe,
        completion.logprob if source == "policy" else None,
        completion.truncated,
    )


def _row(
    request: Request, scored: Scored, source: str, sample: int | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """A row of candidates.jsonl. It holds what was done and no points: another reward table is no other candidate."""
    completion, own = scored.completion, source == "policy"
    return {
        "id": request.id,
        "source": source,
        "recipe": recipe,
        "sample": sample,
        "completion": completion.text,
        "logprob": completion.logprob if own else None,
        "tokens": completion.tokens if own else None,
        "truncated": completion.truncated,
        "outcome": scored.judgement.outcome,
        "components": scored.judgement.components,
    }


def _pair_row(pair: Pair, tokenizer: PreTrainedTokenizerBase, dialect: ModuleType) -> dict[str, Any]:
    """A row of pairs.jsonl: prompt and tools as the chat template takes them, completions as it would write them.

    Control tokens that were only said stay broken in it (stages/_control.py): nothing else tells them from real ones.
    """
    from stages._sampling import shown

    tools, prompt = shown(tokenizer, dialect, pair.request.tools, pair.request.messages)
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    return {
        "id": pair.request.id,
        "prompt": prompt,
        "tools": tools,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "kind": pair.kind,
        "margin": pair.margin,
        "outcomes": {side: each.outcome for side, each in sides.items()},
        "provenance": {
            side: {"source": each.source, "recipe": each.recipe, "logprob": each.logprob}
            for side, each in sides.items()
        },
    }


def _tell(job: Job, report: dict[str, Any]) -> None:
    """The report in a few lines."""
    for act, outcomes in report["outcomes"].items():
        shares = (f"{name} {count / sum(outcomes.values()):.1%}" for name, count in outcomes.items())
        job.say(f"samples where to {act} is right: {', '.join(shares)}")
    job.say(f"{report['pairs']} pairs: {_counted(report['by_kind'])}")
    if report["filtered"]:
        job.say(f"left out: {_counted(report['filtered'])}")
    job.say(f"requests without a pair: {_counted(report['requests_without_pairs'])}")


def _told_of(unlabelled: Mapping[str, Any]) -> str:
    """What became of prompts that nobody labelled."""
    joined, left = (unlabelled[side] for side in ("joined", "left_out"))
    return (
        f"of {unlabelled['prompts']} unlabelled prompts {sum(joined.values())} need no call"
        f" ({_counted(joined) or 'none'}); left out: {_counted(left) or 'none'}"
    )


def _without_ranks(unranked: Mapping[str, str] | None) -> str:
    """What of the requests has no ranks to make pairs of, behind what else was left out."""
    return f"; of the requests {_counted(Counter(unranked.values()))}" if unranked else ""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
