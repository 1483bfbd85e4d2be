"""TRL's DPOTrainer for pairs that are token ids already, with one loss more: reward_aware.

The other losses look at which answer is better, this one at how much. With d = beta (log-ratio of chosen - log-ratio of
rejected), the implicit reward margin, and g = scale (points of chosen - points of rejected), the target, it is

    KL(sigma(g) || sigma(d)) = sigma(g) log(sigma(g) / sigma(d)) + sigma(-g) log(sigma(-g) / sigma(-d))

(reward-aware preference optimisation, here with the backward KL as distance: Nemotron-4 340B, arXiv 2406.11704; Sun et
al. 2025, arXiv 2502.00203). It is 0 where d = g: a pair of little difference is parted a little and no further.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

REWARD_AWARE = "reward_aware"


def reward_aware(implicit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of each pair: KL between the Bernoulli distributions of two margins, both [pairs], in nats."""
    from torch.nn.functional import logsigmoid

    return target.sigmoid() * (logsigmoid(target) - logsigmoid(implicit)) + (-target).sigmoid() * (
        logsigmoid(-target) - logsigmoid(-implicit)
    )


def trl_losses(names: Sequence[str], weights: Sequence[float]) -> tuple[list[str], list[float]]:
    """The losses that TRL computes itself; where there is none, one that counts nothing, for it wants one."""
    own = [(name, weight) for name, weight in zip(names, weights, strict=True) if name != REWARD_AWARE]
    return ([name for name, _ in own], [weight for _, weight in own]) if own else (["sigmoid"], [0.0])


def pair_trainer(weight: float = 0.0, scale: float = 1.0) -> type[Any]:
    """The trainer class; `weight` is that of reward_aware, `scale` turns points into nats of implicit reward."""
    import torch
    from trl import DPOTrainer

    class PairTrainer(DPOTrainer):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            if weight:
                collate = self.data_collator
                self.data_collator: Any = lambda rows: (
                    collate(rows) | {"margin": torch.tensor([row["margin"] for row in rows])}
                )

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # in ids already: as text it would get another end of turn, and be cut where tokens merge

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if weight and "margin" not in self._signature_columns:
                self._signature_columns.append("margin")

        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
            if not weight:
                return super()._compute_loss(model, inputs, return_outputs)
            target = scale * inputs.pop("margin")
            seen: list[torch.Tensor] = []  # sums of log-probs over each completion: of the policy, of the reference
            hook = self.model.register_forward_hook(lambda *call: seen.append(call[-1].log_probs.sum(1)))
            try:
                loss = super()._compute_loss(model, inputs, return_outputs=False)
            finally:
                hook.remove()
            known = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]) if self.precompute_ref_logps else None
            policy, reference = seen[0].chunk(2), known or seen[1].chunk(2)
            implicit = self.beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
            return loss + weight * reward_aware(implicit, target).mean()

    return PairTrainer
