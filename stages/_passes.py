"""The ways in which stage=evaluate asks a model beside the greedy one: by choice, each with a file for its answers.

A pass takes a model while it is loaded, and gives fields for its metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages._asking import Kept, Model
from stages._benchmarks import Table
from stages._charts import interval, percent
from stages._metrics import DENOMINATORS
from stages._renderings import NAMES, USUAL, drawn, rendered

if TYPE_CHECKING:
    from data.transcript import Request
    from stages._job import Job
    from stages._model import ModelConfig
    from stages._sampling import Completion
    from stages._scoring import Scored

Fields = Mapping[str, Any]
TEMPERATURE = 0.7
#: What is told of other ways to ask: a label, and the count it is over.
ERRORS = {
    "false_tool_call_rate": ("false calls", "n_no_call"),
    "missed_call_rate": ("missed calls", "n_call"),
    "exact_call_rate": ("exact calls", "n_call"),
}
_COUNTS = ("n", "n_call", "n_no_call")


class Pass:
    """One more way to ask: called with a model and its greedy answers, it gives fields for the model's metrics.

    `of` has what the models are made of, each once.
    """

    def __init__(self, job: Job, requests: Sequence[Request], of: Sequence[ModelConfig]) -> None:
        self.job, self.requests = job, requests

    def __call__(self, model: Model, scored: Sequence[Scored]) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        """Tell what came up, after the last model."""

    def score(self, model: Model, requests: Sequence[Request], completions: Sequence[Completion]) -> list[Scored]:
        """What they are worth for these requests."""
        from stages._scoring import score_singles

        return score_singles(requests, completions, model.dialect, self.job.settings.reward)


class Constrained(Pass):
    """Calls held to the schemas on offer: `constrained`, the contract's rates over all requests."""

    def __init__(self, job: Job, requests: Sequence[Request], of: Sequence[ModelConfig]) -> None:
        from data import dialects
        from stages._constrained import Guide
        from stages._model import load_tokenizer

        super().__init__(job, requests, of)
        self.guides = [
            (each, Guide(load_tokenizer(each), each.dialect, dialects.get(each.dialect), requests)) for each in of
        ]
        self.kept = Kept(job, "constrained")

    def __call__(self, model: Model, scored: Sequence[Scored]) -> dict[str, Any]:
        from stages._scoring import measure_together, prediction

        completions = self.kept.completions(model.name, self.requests)
        if completions is None:
            guide = next(guide for of, guide in self.guides if of == model.of)
            completions = [row[0] for row in model.answer(self.requests, "constrained", guide=guide)]
        held = self.score(model, self.requests, completions)
        rows = zip(self.requests, held, strict=True)
        self.kept.add([prediction(request, model.name, each) for request, each in rows])
        return {"constrained": measure_together(self.requests, held)}

    def close(self) -> None:
        """Which schemas could not be held, and which answers were let go."""
        guides = [guide for _, guide in self.guides]
        loosened = {reason: names for guide in guides for reason, names in guide.loosened.items()}
        released = sum((guide.released for guide in guides), Counter[str]())
        self.job.record(constrained={"loosened": loosened, "released": released})
        for note in dict.fromkeys(note for guide in guides for note in guide.notes()):
            self.job.say(f"constrained: {note}")


class Renderings(Pass):
    """The tools shown in other ways (stages/_renderings.py), to at most `rendering_requests` of the requests that offer
    some, the same ones at every seed. `renderings` has for each way the counts and both errors and exact calls,
    `format_sensitivity` for each of these rates

        the greatest rate of any way - the least one

    which no more ways can lower: compare it between models that were asked in the same ones.
    """

    def __init__(self, job: Job, requests: Sequence[Request], of: Sequence[ModelConfig]) -> None:
        super().__init__(job, requests, of)
        self.seed = job.settings.data.seed
        self.places = drawn(requests, job.config.rendering_requests, self.seed)
        self.names = NAMES[: job.config.renderings]
        self.kept = Kept(job, "renderings", "rendering")
        job.record(renderings={"names": list(self.names), "requests": len(self.places)})

    def __call__(self, model: Model, scored: Sequence[Scored]) -> dict[str, Any]:
        from stages._scoring import measure_together

        asked = [self.requests[place] for place in self.places]
        found = {
            name: [scored[place] for place in self.places] if name == USUAL else self._answers(model, asked, name)
            for name in self.names
        }
        rates = {name: measure_together(asked, each) for name, each in found.items()}
        fields = (*_COUNTS, *(part for name in ERRORS for part in (name, f"{name}_ci")))
        return {
            "renderings": {name: {field: each[field] for field in fields} for name, each in rates.items()},
            "format_sensitivity": {name: _spread([each[name] for each in rates.values()]) for name in ERRORS},
        }

    def _answers(self, model: Model, asked: Sequence[Request], name: str) -> list[Scored]:
        from stages._scoring import prediction

        completions = self.kept.completions(model.name, asked, name)
        if completions is None:
            shown = [rendered(request, name, self.seed) for request in asked]
            completions = [row[0] for row in model.answer(shown, f"tools {name}")]
        scored = self.score(model, asked, completions)
        rows = zip(asked, scored, strict=True)
        self.kept.add([prediction(request, model.name, each) | {"rendering": name} for request, each in rows])
        return scored


class Sampled(Pass):
    """Answers at temperature 0.7, each with random numbers of its own, drawn from the run's seed. `sampled` has of each
    of the contract's rates the mean over as many sets of answers, and in `<rate>_range` the least and the greatest.
    """

    def __init__(self, job: Job, requests: Sequence[Request], of: Sequence[ModelConfig]) -> None:
        super().__init__(job, requests, of)
        self.kept = Kept(job, "sampled", "answer")

    def __call__(self, model: Model, scored: Sequence[Scored]) -> dict[str, Any]:
        from stages._scoring import measure_together, prediction

        n = self.job.config.sampled
        sets = [self.kept.completions(model.name, self.requests, number) for number in range(1, n + 1)]
        if None in sets:
            rows = model.answer(self.requests, f"{n} samples", n=n, temperature=TEMPERATURE)
            sets = [list(each) for each in zip(*rows, strict=True)]
        found = [self.score(model, self.requests, each) for each in sets if each]
        self.kept.add(
            [
                prediction(request, model.name, each) | {"answer": number}
                for number, one in enumerate(found, 1)
                for request, each in zip(self.requests, one, strict=True)
            ]
        )
        rates = [measure_together(self.requests, one) for one in found]
        fields: dict[str, Any] = {"answers": n, "temperature": TEMPERATURE}
        for name in (*DENOMINATORS, "balanced_accuracy"):
            values = [each[name] for each in rates if each[name] is not None]
            fields[name] = sum(values) / len(values) if values else None
            fields[f"{name}_range"] = [min(values), max(values)] if values else None
        return {"sampled": fields}


def _spread(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return max(known) - min(known) if known else None


def chosen(job: Job, requests: Sequence[Request], of: Sequence[ModelConfig]) -> list[Pass]:
    """The passes that the settings ask for, over models that are made of these."""
    config = job.config
    wanted = {Constrained: config.constrained, Renderings: config.renderings > 1, Sampled: config.sampled > 0}
    return [each(job, requests, of) for each, there in wanted.items() if there]


def tables(metrics: Mapping[str, Fields]) -> list[Table]:
    """What renderings and samples showed, the models one below the other; empty without any of it."""
    first = next(iter(metrics.values()))
    made = {"renderings": _renderings_table, "sampled": _sampled_table}
    return [make(metrics) for name, make in made.items() if name in first]


def _renderings_table(metrics: Mapping[str, Fields]) -> Table:
    ways = next(iter(metrics.values()))["renderings"]
    rows = []
    for model, fields in metrics.items():
        for name, (label, over) in ERRORS.items():
            cells = (percent(each[name]) for each in fields["renderings"].values())
            n = f"{fields['renderings'][USUAL][over]:,}"
            rows.append((f"{model}: {label}", n, *cells, percent(fields["format_sensitivity"][name])))
    heads = ("", "n", *(name.replace("_", " ") for name in ways), "largest difference")
    return Table("Tools shown in other ways", "The same requests, with what is right unchanged.", heads, rows)


def _sampled_table(metrics: Mapping[str, Fields]) -> Table:
    first = next(iter(metrics.values()))["sampled"]
    note = f"Mean and range of {first['answers']} answers a request at T = {first['temperature']:g}."
    names = {name: label for name, (label, _) in ERRORS.items()} | {"answer_accuracy": "right answers"}
    rows = [
        (model, *(f"{percent(of[name])} {interval(of[f'{name}_range'])}".rstrip() for name in names))
        for model, of in ((model, fields["sampled"]) for model, fields in metrics.items())
    ]
    return Table("Sampled answers", note, ("", *names.values()), rows)
