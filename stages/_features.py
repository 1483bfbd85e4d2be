"""Hidden states of a student drawn to those of its teacher, by a learned linear projection for each pair of layers.

For a token with hidden states s of the student and t of the teacher, and a projection P from the one's width to the
other's, the loss of a pair of layers is |P s - t|^2 / |t|^2 (mse: 1 is what P s = 0 costs, whatever the scale of the
layer) or 1 - cos(P s, t) (cosine); that of the token is the mean over the pairs (FitNets: Romero et al. 2015, arXiv
1412.6550, equation 3, here with linear regressors, over several layers, relative to the teacher's own length).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from stages._errors import UserError

if TYPE_CHECKING:
    import torch

Distance = Literal["mse", "cosine"]
_PAIRS = 3  # of layers, where none are named


def layer_pairs(named: Sequence[Sequence[int]] | None, student: int, teacher: int) -> list[tuple[int, int]]:
    """The pairs of layers (student's, teacher's), 0 for the embeddings; unless named, up to three, evenly spaced.

    UserError for one that is not there.

    >>> layer_pairs(None, 6, 12), layer_pairs(None, 2, 3), layer_pairs([[4, 8]], 6, 12)
    ([(2, 4), (4, 8), (6, 12)], [(1, 2), (2, 3)], [(4, 8)])
    """
    if named is None:
        count = min(_PAIRS, student, teacher)
        return [(round(student * n / count), round(teacher * n / count)) for n in range(1, count + 1)]
    wrong = [
        f"distill.feature_layers: [{one}, {other}] names no pair of layers; the student has 0 to {student}, the teacher"
        f" 0 to {teacher}"
        for one, other in named
        if not (0 <= one <= student and 0 <= other <= teacher)
    ]
    if wrong:
        raise UserError(*wrong)
    return [(one, other) for one, other in named]


def projections(student: int, teacher: int, count: int, seed: int) -> torch.nn.ModuleList:
    """`count` linear maps from the student's width to the teacher's, without bias; the seed decides their weights."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    maps = torch.nn.ModuleList(torch.nn.Linear(student, teacher, bias=False) for _ in range(count))
    with torch.no_grad():
        for one in maps:
            # Such that P s is as long as s: torch's own draw would shrink it by the square root of three.
            one.weight.normal_(0.0, student**-0.5, generator=draw)
    return maps


def feature_loss(
    maps: Any,
    pairs: Sequence[tuple[int, int]],
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    chosen: torch.Tensor,
    distance: Distance,
) -> torch.Tensor:
    """The loss of each token in `chosen`, [rows, length]; hidden states are [rows, length, width], one a layer."""
    import torch

    total = 0.0
    for project, (one, other) in zip(maps, pairs, strict=True):
        found, wanted = project(student[one][chosen].float()), teacher[other][chosen].float()
        if distance == "cosine":
            total = total + 1 - torch.nn.functional.cosine_similarity(found, wanted, dim=-1)
        else:
            total = total + (found - wanted).square().sum(-1) / wanted.square().sum(-1)
    assert isinstance(total, torch.Tensor)
    return total / len(pairs)
