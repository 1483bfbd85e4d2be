"""How far a student's next-token distributions are from its teacher's, in nats a token.

With p the teacher, q the student, both softmax(logits / T), and m = (p + q) / 2:

    forward_kl   KL(p || q) = sum p log(p / q)        the student covers all that the teacher would do
    reverse_kl   KL(q || p)                           the student does nothing that the teacher would not
    jsd          KL(p || m) / 2 + KL(q || m) / 2      between both, at most ln 2

(Hinton et al. 2015, arXiv 1503.02531; Agarwal et al. 2024, arXiv 2306.13649, equation 1, with beta 0.5.) Each is
multiplied by T^2, as Hinton's section 2 has it: gradients of soft targets shrink by 1 / T^2, and so keep their weight
beside the loss on the tokens themselves.

Of a large vocabulary the teacher's k likeliest tokens are kept; all others are one more token, whose probability is
theirs together, for teacher and student alike. Both stay distributions then: nothing is renormalised, so probability
that the student gives to what the teacher never says is still paid for. It is a lower bound of the whole divergence
(merging outcomes never adds to one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


class Targets(NamedTuple):
    """A teacher's distributions for n positions: log-probabilities at the temperature of the loss.

    Without `tokens`, `logprobs` is [n, vocabulary]. With them, [n, k], the k likeliest, it is [n, k + 1], and its last
    column is all the rest.
    """

    logprobs: torch.Tensor
    tokens: torch.Tensor | None = None


def targets(logits: torch.Tensor, temperature: float, top_k: int | None) -> Targets:
    """The teacher's distributions from its logits, [n, vocabulary]."""
    scaled = logits.float() / temperature
    if top_k is None or top_k >= scaled.shape[-1]:
        return Targets(scaled.log_softmax(-1))
    tokens = scaled.topk(top_k).indices
    return Targets(_with_rest(scaled, tokens), tokens)


def divergence(kind: Divergence, logits: torch.Tensor, teacher: Targets, temperature: float) -> torch.Tensor:
    """The divergence at each position, [n], of a student with these logits, [n, vocabulary]; see above."""
    scaled = logits.float() / temperature
    q = scaled.log_softmax(-1) if teacher.tokens is None else _with_rest(scaled, teacher.tokens)
    p = teacher.logprobs
    if kind == "forward_kl":
        value = _kl(p, q)
    elif kind == "reverse_kl":
        value = _kl(q, p)
    else:
        import torch

        m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0, device=p.device))
        value = (_kl(p, m) + _kl(q, m)) / 2
    return temperature**2 * value


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) over the last axis of two tensors of log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def _with_rest(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of these tokens and, last, of all others together."""
    import torch

    # From the other logits themselves: 1 minus the sum of probabilities has no digits left where the teacher is sure.
    rest = logits.scatter(-1, tokens, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, tokens), rest], -1) - logits.logsumexp(-1, keepdim=True)
