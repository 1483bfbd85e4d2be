"""Whether the runtime calls what it should and nothing else: routes and loops on test requests of the world.

    python -m benchmarks.runtime runs/demo/merge/model [--requests 500] [--validation 200] [--rate 0.04]
    python -m benchmarks.runtime assets/tiny --adapter runs/demo/sft/adapter

The threshold on P(call) is set on the world's validation requests, for this rate of false calls, and the test requests
are routed and worked on at 0, at the default of 0.5 and at that. Their tools are stand-ins that note each call; by
turns they return a result, raise, return what is no JSON, and hang. Printed for each threshold: expected calls that
were executed exactly once, calls executed on no-call requests beside the rate of attempts that the model alone makes
there, other calls, and how the loops ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data import jsontext
from data.transcript import Message, Request, Tool, ToolCall
from data.world import WorldConfig, generate
from rewards import judge
from rewards._match import match
from runtime import Agent, Answer, Calls, LocalModel, Policy, Router, calibrate
from stages._metrics import attempted, wilson
from stages._scoring import spread

TIMEOUT = 0.2  # seconds: the stand-ins that hang cost this much each
HANG = threading.Event()


class Remembering:
    """A policy that is asked only once for what it was asked before: all thresholds see the same answers."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.known: dict[bytes, Answer] = {}

    def stream(self, tools: Sequence[Tool], messages: Sequence[Message]) -> Iterator[str | Answer]:
        """The answer, without its pieces."""
        key = jsontext.canonical([[tool.as_function() for tool in tools], [each.as_chat() for each in messages]])
        if key not in self.known:
            answers = self.policy.stream(tools, messages)
            self.known[key] = next(each for each in answers if isinstance(each, Answer))
        yield self.known[key]


def raises() -> Any:
    """Stands for a service that is down."""
    raise ConnectionError("no connection")


BEHAVIOURS: tuple[Callable[[], Any], ...] = (lambda: {"status": "done"}, raises, object, HANG.wait)


def worked_on(policy: Policy, request: Request, threshold: float, behaviour: Callable[[], Any]) -> Counter[str]:
    """What became of one request."""
    made: list[ToolCall] = []

    def function(name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            made.append(ToolCall(name, arguments))
            return behaviour()

        return call

    router = Router(policy, request.tools, threshold=threshold)
    functions = {tool.name: function(tool.name) for tool in request.tools}
    route = router.route(request.messages)
    done = Agent(router, functions, timeout=TIMEOUT).run(request.messages)
    first = [dataclasses.replace(call, id=None) for call in route.calls] if isinstance(route, Calls) else []
    counts = Counter({"requests": 1, f"ended: {done.stop}": 1})
    if request.expected.act != "call":
        counts["no call wanted"] += 1
        counts["routed to a call, none wanted"] += bool(first)
        counts["executed a call, none wanted"] += bool(made)
        return counts
    matching = match(tuple(made), request.expected.calls)
    exact = [number for number, (_, _, score) in enumerate(matching.pairs) if score == 1.0]
    counts["calls wanted"] += len(request.expected.calls)
    counts["calls wanted and executed once"] += len(exact)
    counts["requests that want a call"] += 1
    counts["routed to a call, as wanted"] += bool(first)
    counts["other calls executed"] += len(made) - len(exact)
    return counts


def main() -> None:
    """Measure, and print a table for each threshold."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("model")
    words.add_argument("--adapter")
    words.add_argument("--requests", type=int, default=500)
    words.add_argument("--validation", type=int, default=200)
    words.add_argument("--dialect", default="native")
    words.add_argument("--rate", type=float, default=0.04)
    chosen = words.parse_args()
    world = generate(WorldConfig(), 0)
    requests = spread(world.test, chosen.requests)
    policy = Remembering(LocalModel.load(chosen.model, chosen.adapter, chosen.dialect))

    validation = spread(world.validation, chosen.validation)
    found = calibrate(policy, validation, chosen.rate)
    print(f"threshold for {chosen.rate:.1%} false calls, on {len(validation)} validation requests: {found}")
    for threshold in sorted({0.0, 0.5, found.threshold}):
        counts: Counter[str] = Counter()
        for request, behaviour in zip(requests, itertools.cycle(BEHAVIOURS), strict=False):
            counts += worked_on(policy, request, threshold, behaviour)
        print(f"threshold {threshold:.6f}")
        for name, count in sorted(counts.items()):
            print(f"  {name}: {count}")
    wanted = [request for request in requests if request.expected.act != "call"]
    answers = [next(iter(policy.stream(request.tools, request.messages))) for request in wanted]
    false = sum(
        attempted(judge(request, answer.reading, answer.truncated))
        for request, answer in zip(wanted, answers, strict=True)
        if isinstance(answer, Answer)
    )
    low, high = wilson(false, len(wanted))
    print(f"the model alone tries a call on {false} of {len(wanted)} no-call requests ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
