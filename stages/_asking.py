"""One model of a run that is asked, the file that its answers are kept in, and the greedy pass over all requests."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from stages._lineage import STAGE_OF, fitted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from data.transcript import Request
    from stages._job import Job
    from stages._likelihood import Likelihoods
    from stages._model import ModelConfig
    from stages._sampling import Completion

Fields = Mapping[str, Any]


class Model:
    """A model of a run: loaded when it is first asked, let go of with this object."""

    def __init__(self, job: Job, name: str) -> None:
        self.job, self.name = job, name
        self.folder = job.parent(STAGE_OF[name]) if name in STAGE_OF else None

    @functools.cached_property
    def of(self) -> ModelConfig:
        """What it was before it had an adapter: the run's model, or a student."""
        return fitted(self.folder, self.job.settings) if self.folder else self.job.settings.model

    @functools.cached_property
    def config(self) -> ModelConfig:
        """How it is loaded; the merged model lies in a folder of its own."""
        from stages._model import plain_config

        return plain_config(self.folder / "model", self.of) if self.folder and self.name == "merged" else self.of

    @property
    def dialect(self) -> ModuleType:
        """How it is shown tools, and how its calls are read."""
        from data import dialects

        return dialects.get(self.of.dialect)

    @functools.cached_property
    def shares_tokens(self) -> bool:
        """Whether it has the tokens of the run's model, so that likelihoods a token can be held against each other."""
        from stages._model import load_tokenizer

        run = self.job.settings.model
        return self.of == run or load_tokenizer(self.of).get_vocab() == load_tokenizer(run).get_vocab()

    @functools.cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy, with its adapter if it is one, and its tokenizer."""
        from stages._model import load_base, load_policy, load_tokenizer

        adapter = self.folder / "adapter" if self.folder and self.name != "merged" else None
        policy = load_policy(self.config, adapter) if adapter else load_base(self.config)
        return policy, load_tokenizer(self.config)

    def answer(self, requests: Sequence[Request], way: str = "", **how: Any) -> list[list[Completion]]:
        """Completions of each request, one greedy one unless `how`, the arguments of `generate`, says otherwise."""
        from stages._sampling import generate

        policy, tokenizer = self.loaded
        return generate(
            policy,
            tokenizer,
            self.dialect,
            requests,
            max_new_tokens=self.job.config.max_new_tokens or self.config.max_new_tokens,
            batch_size=self.job.config.batch_size or self.config.sample_batch,
            seed=self.job.seed,
            label=f"{self.name}, {way}" if way else self.name,
            job=self.job,
            **how,
        )

    def weigh(self, requests: Sequence[Request]) -> list[Likelihoods]:
        """How likely it holds the turns of the data."""
        from stages._likelihood import likelihoods, turns_of

        policy, tokenizer = self.loaded
        turns = turns_of(requests, self.job.config.ability_requests)
        size, label = self.config.micro_batch, f"{self.name}, given turns"
        return likelihoods(policy, tokenizer, self.dialect, requests, turns, size, label, self.job)


def bases(job: Job, names: Sequence[str]) -> list[ModelConfig]:
    """What these models were before they had adapters, each once."""
    found: list[ModelConfig] = []
    for model in (Model(job, name).of for name in names):
        found += [model] if model not in found else []
    return found


class Kept:
    """Answers in a file of the stage's folder, a row each. Passes that an interrupted attempt was through with are
    taken over; `column` tells those of one model apart, where there are several.
    """

    def __init__(self, job: Job, name: str, column: str | None = None) -> None:
        from stages._files import read_jsonl

        self._job, self._name, self._column = job, name, column
        self._path = job.folder / f"{name}.jsonl"
        self._found: dict[tuple[str, Any], dict[str, Fields]] = {}
        for row in read_jsonl(self._path) if job.resuming and self._path.exists() else ():
            self._found.setdefault(self._key(row), {})[row["id"]] = row
        self._left = dict(self._found)
        self._rows: list[Fields] = []

    def rows(self, model: str, requests: Sequence[Request], way: object = None) -> list[Fields] | None:
        """The rows of these requests, if all are there."""
        found = self._found.get((model, way), {})
        if not requests or any(request.id not in found for request in requests):
            return None
        self._job.say(f"{self._name} of {model}{f', {way},' * (way is not None)} are there already")
        return [found[request.id] for request in requests]

    def completions(self, model: str, requests: Sequence[Request], way: object = None) -> list[Completion] | None:
        """The same, as completions: of what they were sampled with only the text is left."""
        rows = self.rows(model, requests, way)
        return None if rows is None else [completion_of(row) for row in rows]

    def add(self, rows: Sequence[Fields]) -> None:
        """Put the rows of a pass behind those that were put before, and all of them into the file.

        What is there of passes that are still to come stays in it: a second interruption must not lose them.
        """
        from stages._files import write_jsonl

        self._rows += rows
        for row in rows:
            self._left.pop(self._key(row), None)
        write_jsonl(self._path, [*self._rows, *(row for found in self._left.values() for row in found.values())])

    def _key(self, row: Fields) -> tuple[str, Any]:
        return row["model"], row[self._column] if self._column else None


class Greedy(NamedTuple):
    """A greedy completion of each request, how likely the turns of the data are, and the seconds a request that the
    completions took, loading left out; None where an interrupted attempt did not come to logging them.
    """

    completions: list[Completion]
    likelihoods: list[Likelihoods]
    seconds: float | None


def greedy(model: Model, requests: Sequence[Request], kept: Kept, took: Mapping[str, float]) -> Greedy:
    """The model's greedy answers as they are kept, or new ones; `took` has the seconds of those that are kept."""
    from stages._likelihood import Likelihood

    if (rows := kept.rows(model.name, requests)) is not None:
        weighed = [{act: Likelihood(*each) for act, each in row.get("likelihoods", {}).items()} for row in rows]
        return Greedy([completion_of(row) for row in rows], weighed, took.get(model.name))
    _ = model.loaded
    began = time.perf_counter()
    completions = [row[0] for row in model.answer(requests, p_call=True)]
    seconds = (time.perf_counter() - began) / max(1, len(requests))
    return Greedy(completions, model.weigh(requests), seconds)


def took(job: Job) -> dict[str, float]:
    """The seconds a request of each model whose greedy answers an interrupted attempt has logged."""
    from stages._files import read_jsonl

    log = job.folder / "log.jsonl"
    rows = read_jsonl(log) if job.resuming and log.exists() else ()
    return {row["model"]: row["seconds_per_request"] for row in rows if row.get("seconds_per_request") is not None}


def completion_of(row: Fields) -> Completion:
    """The completion of a row of predictions."""
    from stages._sampling import Completion

    return Completion(row["completion"], 0.0, row["tokens"], row["truncated"], p_call=row.get("p_call"))
