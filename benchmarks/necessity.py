"""How often the rules of rewards/_necessity.py are right about whether a tool is needed, where that is known.

    python -m benchmarks.necessity [metatool_task1.json]
    python -m benchmarks.necessity --probe runs/mine/sft/adapter [--limit 300]

On requests of the built-in world (seed 1): those for preference pairs, in whose wordings the rules were made, and apart
from them those of the test set. Covered are the requests on which the rules do not abstain. `call` is the share of the
covered where they are right that a call is or is not needed; `act`, where they name an act, how often it is the right
one. `joining` is what pairs.unlabelled would make of them: how many they say answer, ask or refuse to, at its own
confidence, and how often a call is not needed there, and that act the right one.

With a file of MetaTool's first task, [{query, label: positive | negative, tool}], the same for each label: all tools
that the file names are on offer for each query, by their names alone, since it says no more of them.

With an adapter of the embedded model, what pairs.probe=2 and 4 add: the requests for which the rules name no act, in
both sets evenly spaced, are put to the policy without tools. Of those that it always answers alike, how often no call
is needed, and how often that answer is right.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data import jsontext
from data.transcript import AcceptedCall, Expected, Message, Request, Tool
from data.world import WorldConfig, generate
from rewards._necessity import Necessity, necessity
from stages._unlabelled import joins
from stages.pairs import Config

Judged = tuple[Request, Necessity]


def share(part: int, whole: int) -> str:
    """A share in per cent with its count, or a dash where there is nothing to be shared."""
    return f"{part / whole:6.1%} of {whole:<4}" if whole else "     - of 0   "


def line(name: str, judged: Sequence[Judged]) -> str:
    """Coverage and accuracy of one group of requests."""
    covered = [(request, found) for request, found in judged if found.needs_tool is not None]
    named = [(request, found) for request, found in covered if found.act is not None]
    call = sum(found.needs_tool == (request.expected.act == "call") for request, found in covered)
    act = sum(found.act == request.expected.act for request, found in named)
    covering = share(len(covered), len(judged))
    return f"{name:18}covered {covering}   call {share(call, len(covered))}   act {share(act, len(named))}"


def errors(judged: Sequence[Judged]) -> str:
    """Both ways to be wrong, over the requests that can be wrong so: covered or not."""
    calls = [found for request, found in judged if request.expected.act == "call"]
    others = [found for request, found in judged if request.expected.act != "call"]
    missed, needless = (
        sum(found.needs_tool is False for found in calls),
        sum(found.needs_tool is True for found in others),
    )
    return f"  no tool, they say, but one is needed: {share(missed, len(calls))}\n" + (
        f"  a tool, they say, but none is needed: {share(needless, len(others))}"
    )


def joining(judged: Sequence[Judged]) -> str:
    """What pairs.unlabelled would make requests of, and how well."""
    least = Config.model_fields["unlabelled_confidence"].default
    sure = [each for each in judged if joins(each[1], least)]
    call = sum(request.expected.act != "call" for request, _ in sure)
    act = sum(found.act == request.expected.act for request, found in sure)
    covering = share(len(sure), len(judged))
    return f"{'joining':18}        {covering}   call {share(call, len(sure))}   act {share(act, len(sure))}"


def tell(title: str, requests: Sequence[Request], grouped: Callable[[Request], str]) -> None:
    """All figures of one set of requests, by group and by the reason that the rules gave."""
    judged = [(request, necessity(request)) for request in requests]
    print(f"\n{title}\n{line('all', judged)}\n{joining(judged)}\n{errors(judged)}")
    for group in sorted({grouped(request) for request in requests}):
        print(line(f"  {group}", [each for each in judged if grouped(each[0]) == group]))
    print("by reason given")
    for reason in sorted({found.reason for _, found in judged} - {"unknown"}):
        print(line(f"  {reason}", [each for each in judged if each[1].reason == reason]))


def metatool(file: Path) -> list[Request]:
    """The queries of MetaTool's first task, with every tool that the file names on offer."""
    rows = jsontext.loads(file.read_text(encoding="utf-8"), None)
    names = Counter(row["tool"] for row in rows if row.get("tool"))
    tools = tuple(Tool(name, "", {"type": "object", "properties": {}}) for name in sorted(names))
    needed = Expected("call", (AcceptedCall("any", {}),))
    return [
        Request(
            f"{file.name}:{number}",
            row["label"],
            tools,
            (Message("user", row["query"]),),
            needed if row["label"] == "positive" else Expected("answer"),
        )
        for number, row in enumerate(rows, 1)
    ]


def probe(sets: Mapping[str, Sequence[Request]], adapter: Path, limit: int) -> None:
    """What the policy, asked without tools, makes of the requests for which the rules name no act."""
    from data.dialects import native
    from rewards import judge
    from stages import _scoring, _unlabelled
    from stages._model import ModelConfig, load_policy, load_tokenizer
    from stages._sampling import generate as sampled

    config = ModelConfig()
    policy, tokenizer = load_policy(config, adapter), load_tokenizer(config)
    for title, requests in sets.items():
        seen, alone = {request.id: request for request in requests}, _unlabelled.unsure(requests)
        asked = _scoring.spread(alone, limit)
        print(f"\n{title}: the rules name no act for {share(len(alone), len(requests))}; {len(asked)} are asked")
        answers = sampled(policy, tokenizer, native, asked, 4, temperature=1.0, max_new_tokens=config.max_new_tokens)
        for count in (2, 4):
            said = [
                (seen[request.id], text)
                for request, row in zip(asked, answers, strict=True)
                if (text := _unlabelled.agreed(request, row[:count], native)) is not None
            ]
            no_call = sum(request.expected.act != "call" for request, _ in said)
            outcomes = [judge(request, native.read(text, request.tools)).outcome for request, text in said]
            print(
                f"  {count} answers agree {share(len(said), len(asked))}   no call {share(no_call, len(said))}"
                f"   right answer {share(outcomes.count('right_answer'), len(said))}"
            )


def main(file: Path | None, adapter: Path | None, limit: int) -> None:
    """Print the figures."""
    world = generate(
        WorldConfig(sft_rows=1, preference_rows=3000, validation_rows=1, test_rows=2000, unseen_rows=800), 1
    )
    sets = {"preference requests of the world": world.preference, "test requests of the world": world.test}
    if adapter:
        probe(sets, adapter, limit)
        return
    for title, requests in sets.items():
        tell(title, requests, lambda request: request.kind)
    if file:
        tell("MetaTool, first task", metatool(file), lambda request: request.kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="MetaTool's first task")
    parser.add_argument("--probe", type=Path, metavar="ADAPTER", help="of a fine-tuned embedded model")
    parser.add_argument("--limit", type=int, default=300, help="requests that it is asked of each set")
    asked_for = parser.parse_args()
    main(asked_for.file, asked_for.probe, asked_for.limit)
