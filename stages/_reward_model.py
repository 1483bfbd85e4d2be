"""The reward model: a number for an answer to a request, read at the answer's last token.

It is the base with a score in place of its LM head, and an adapter that goes on from the fine-tuned one: that knows
tools and calls already. A new adapter over base and fine-tuning merged would know as much, but what lies on disk would
fit no base that anybody can load, and merging into 4-bit weights rounds them. The score starts at 0 for everything, and
is computed in float32: in bfloat16, margins would have three digits.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stages._errors import UserError

if TYPE_CHECKING:
    from data.transcript import Request
    from stages._model import ModelConfig
    from stages._sampling import Completion

_BINS = 10


class RewardModel:
    """A trained reward model, frozen."""

    def __init__(self, model: Any, tokenizer: Any, dialect: ModuleType) -> None:
        self.model, self.tokenizer, self.dialect = model, tokenizer, dialect

    @classmethod
    def load(cls, folder: Path, model_config: ModelConfig) -> RewardModel:
        """What stage=reward_model left in its folder; UserError where it does not fit the base model."""
        from data import dialects
        from stages._model import load_tokenizer, with_adapter

        tokenizer = load_tokenizer(model_config)
        model = with_adapter(scored_base(model_config, tokenizer), folder / "adapter", model_config.path)
        return cls(model, tokenizer, dialects.get(model_config.dialect))

    def score(self, requests: Sequence[Request], completions: Sequence[Completion]) -> list[float]:
        """The score of each completion of the request beside it; larger is better, and 0 is no mark of anything.

        Differences between answers to one request are what it was trained on: P(one beats the other) = sigmoid(d).
        """
        from stages._sampling import encode, prompt_of, turn_end

        end = list(turn_end(self.tokenizer).ids)
        # `text` is without its end of turn. One that was cut off never said it: scored as if it had, text without end
        # would cost a policy that is trained on these scores nothing.
        rows = [
            encode(self.tokenizer, prompt_of(self.tokenizer, self.dialect, request))
            + encode(self.tokenizer, completion.text)
            + ([] if completion.truncated else end)
            for request, completion in zip(requests, completions, strict=True)
        ]
        return self.score_ids(rows)

    def score_ids(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The score of each row of token ids: a prompt, an answer and its end of turn, if it ended. Rows of like length
        are computed together.
        """
        import torch

        from stages._decoding import PREFILL_TOKENS

        place = next(self.model.parameters()).device
        pad = self.model.config.get_text_config().pad_token_id
        scores = [0.0] * len(rows)
        waiting = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
        while waiting:
            width = len(rows[waiting[0]])
            count = max(1, PREFILL_TOKENS[place.type] // width)
            batch, waiting = waiting[:count], waiting[count:]
            ids = torch.tensor([[*rows[row], *[pad] * (width - len(rows[row]))] for row in batch], device=place)
            lengths = torch.tensor([len(rows[row]) for row in batch], device=place)
            mask = (torch.arange(width, device=place) < lengths[:, None]).long()
            with torch.inference_mode():
                found = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].tolist()
            for row, value in zip(batch, found, strict=True):
                scores[row] = value
        return scores


def scored_base(config: ModelConfig, tokenizer: Any, training: bool = False) -> Any:
    """The base model that ends in a score, which is 0 for everything; UserError where transformers has none for it."""
    from stages._model import load_base

    with _without_load_report():
        try:
            model = load_base(config, training, "AutoModelForSequenceClassification", num_labels=1)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise UserError(
                f"model.path: transformers has no {config.path} that ends in a score; choose another"
            ) from error
    model.score = _head_class()(model.config.get_text_config().hidden_size).to(next(model.parameters()).device)
    model.config.get_text_config().pad_token_id = padding(tokenizer)
    return model


def trainable(config: ModelConfig, tokenizer: Any, adapter: Path) -> Any:
    """The base that ends in a score with an adapter to be trained, which starts as the fine-tuned one at `adapter`."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    lora = PeftConfig.from_pretrained(str(adapter))
    lora.task_type, lora.inference_mode = "SEQ_CLS", False
    model = get_peft_model(scored_base(config, tokenizer, training=True), lora)
    model.peft_config["default"].base_model_name_or_path = config.path
    new, tuned = get_peft_model_state_dict(model), load_file(adapter / "adapter_model.safetensors")
    strange = {name for name in new.keys() ^ tuned.keys() if not name.endswith(".score.weight")}
    if strange:
        raise RuntimeError(f"{adapter} does not fit a base that ends in a score: {min(strange)} has no counterpart")
    set_peft_model_state_dict(model, new | tuned)
    return model


def padding(tokenizer: Any) -> int:
    """A token to pad rows with that ends none: transformers reads a row at its last token that is not padding.

    Where the tokenizer pads with the end of a turn, that would be the token before it.
    """
    from stages._sampling import turn_end

    end: int = turn_end(tokenizer).ids[-1]
    pad: int = tokenizer.pad_token_id
    return pad if pad != end else int(end == 0)


@functools.cache
def _head_class() -> Any:
    """A linear layer to one number, in float32 whatever is computed around it, that starts at zero."""
    import torch

    class Head(torch.nn.Linear):
        def __init__(self, size: int) -> None:
            super().__init__(size, 1, bias=False, dtype=torch.float32)
            torch.nn.init.zeros_(self.weight)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                return super().forward(hidden.float())

    return Head


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """Without what transformers says of the score, which is not in the checkpoint, and of the LM head, which is."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def calibration(margins: Sequence[float]) -> dict[str, float]:
    """Of the score margins of pairs, chosen minus rejected: `accuracy`, `loss`, `brier` and `ece`.

    The model says that chosen beats rejected with p = sigmoid(margin). accuracy is the share of margins above 0, loss
    the mean of -log p in nats, brier the mean of (1 - p)^2. ece is the expected calibration error (Guo et al. 2017,
    arXiv 1706.04599) of the confidence max(p, 1 - p) in ten bins from 0.5 to 1: how far, on average over pairs, the
    accuracy of a bin is from its mean confidence. ValueError without margins.
    """
    if not margins:
        raise ValueError("no margins")
    bins: dict[int, list[tuple[float, bool]]] = {}
    brier = loss = 0.0
    for margin in margins:
        fall = math.exp(-abs(margin))
        confidence = 1 / (1 + fall)
        loss += math.log1p(fall) + max(0.0, -margin)
        brier += (1 - confidence if margin > 0 else confidence) ** 2
        place = min(_BINS - 1, int((confidence - 0.5) * 2 * _BINS))
        bins.setdefault(place, []).append((confidence, margin > 0))
    gaps = (abs(sum(right for _, right in each) - sum(sure for sure, _ in each)) for each in bins.values())
    n = len(margins)
    return {
        "accuracy": sum(margin > 0 for margin in margins) / n,
        "loss": loss / n,
        "brier": brier / n,
        "ece": sum(gaps) / n,
    }


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where one of the two is constant."""
    ranks = [_ranks(values) for values in (one, other)]
    middle = (len(one) + 1) / 2
    a, b = ([rank - middle for rank in each] for each in ranks)
    spread = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / spread if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1 on."""
    below = sorted(values)
    first: dict[float, int] = {}
    count: dict[float, int] = {}
    for place, value in enumerate(below):
        first.setdefault(value, place)
        count[value] = count.get(value, 0) + 1
    return [first[value] + (count[value] + 1) / 2 for value in values]
