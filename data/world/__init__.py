"""The built-in world: a seeded generator of transcripts and requests over a made-up catalogue. Same seed, same bytes.

Test requests share no template and no value with training and preference requests, and a fifth of the tools is offered
in test requests alone. The tempting kinds, on which fine-tuned models call needlessly, occur among preference and test
requests only: that fine-tuning over-calls on them is the disease of the field, and the preference stage is the cure.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ..transcript import Request, Transcript, requests_of

if TYPE_CHECKING:
    from .kinds import Side

__all__ = ["World", "WorldConfig", "generate"]

# Shares of the kinds in each part. 15 % of the fine-tuning rows hold no call, all of them plain ones.
SFT = {"single": 0.50, "parallel": 0.12, "multi_turn": 0.15, "hard_sum": 0.08} | {"small_talk": 0.06, "direct": 0.09}
PREFERENCE = (
    {"single": 0.20, "parallel": 0.05, "multi_turn": 0.06, "hard_sum": 0.05}
    | {"small_talk": 0.03, "direct": 0.03, "after_result": 0.03}
    | {"trivial_sum": 0.07, "known_fact": 0.07, "answered": 0.07}
    | {"no_tool": 0.16, "missing_argument": 0.12, "declined": 0.06}
)
TEST = (
    {"single": 0.34, "parallel": 0.08, "multi_turn": 0.08, "hard_sum": 0.06}
    | {"small_talk": 0.04, "direct": 0.04, "after_result": 0.04}
    | {"trivial_sum": 0.05, "known_fact": 0.05, "answered": 0.05}
    | {"no_tool": 0.08, "missing_argument": 0.05, "declined": 0.04}
)
UNSEEN = (
    {"single": 0.42, "parallel": 0.08, "multi_turn": 0.08}
    | {"after_result": 0.05, "answered": 0.08}
    | {"no_tool": 0.12, "missing_argument": 0.09, "declined": 0.08}
)


class WorldConfig(BaseModel):
    """How much of the built-in world is made."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    sft_rows: int = Field(2500, ge=1)
    """Transcripts to fine-tune on."""
    preference_rows: int = Field(2400, ge=1)
    """Requests that the tuned model answers for preference pairs."""
    validation_rows: int = Field(200, ge=1)
    """Requests of all kinds to watch training by, in the wordings of training."""
    test_rows: int = Field(600, ge=1)
    """Test requests over tools that training offers."""
    unseen_rows: int = Field(240, ge=0)
    """Test requests over tools that training never offers, on top of test_rows."""


@dataclass(frozen=True, slots=True)
class World:
    """One draw of the world."""

    sft: list[Transcript]
    preference: list[Request]
    validation: list[Request]
    test: list[Request]


def generate(config: WorldConfig, seed: int) -> World:
    """Draw the world. Each part has its own random generator: changing the size of one leaves the others alone."""
    from .kinds import Side  # with the catalogue and the corpus behind it: not for --help and errors to wait for

    train, held_out, unseen = Side(), Side(test=True), Side(test=True, unseen=True)
    return World(
        sft=_draw("sft", SFT, train, config.sft_rows, seed),
        preference=_requests(_draw("preference", PREFERENCE, train, config.preference_rows, seed)),
        validation=_requests(_draw("validation", PREFERENCE, train, config.validation_rows, seed)),
        test=_requests(
            _draw("test", TEST, held_out, config.test_rows, seed)
            + _draw("unseen", UNSEEN, unseen, config.unseen_rows, seed)
        ),
    )


def _draw(name: str, shares: dict[str, float], side: Side, count: int, seed: int) -> list[Transcript]:
    """`count` transcripts in the given shares, in random order; the shares are met to the row."""
    from .kinds import KINDS, TEMPTING

    if name == "sft" and (tempting := TEMPTING & shares.keys()):
        raise ValueError(f"fine-tuning rows must not hold tempting kinds: {sorted(tempting)}")
    rng = random.Random(f"world {name} {seed}")
    total, kinds = sum(shares.values()), []
    for kind, share in shares.items():
        kinds += [kind] * round(count * share / total)
    kinds += ["single"] * (count - len(kinds))
    kinds = kinds[:count]
    rng.shuffle(kinds)
    return [KINDS[kind](rng, side, f"{name}-{number:05d}") for number, kind in enumerate(kinds)]


def _requests(transcripts: list[Transcript]) -> list[Request]:
    """One request a transcript: its decisive turn, which a kind puts last."""
    return [requests_of(transcript)[-1] for transcript in transcripts]
