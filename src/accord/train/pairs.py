"""The pairs inside a pack of ranked trees: what reward models and direct preference optimisation both look at.

A ranking of K responses holds up to K(K-1)/2 comparisons. They stay in one tree, in one optimiser step, and weigh one
together (InstructGPT, section 3.5): spread over steps as separate examples they overfit.

Dimensions: B trees, N responses, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.data.batches import Preference
from accord.losses import likelihood, listwise, reward
from accord.trees import TreeBatch

__all__ = ["PairTotals", "Pairs", "pairs_of", "ranks_of", "require_pairs"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Comparisons of a pack. Ranks (1, 2, 2) of tree 0 make (0, 1) and (0, 2).

    Attributes:
        better_P: int64, response of the pack that was preferred; of two at probability 1/2 the one named first.
        worse_P: int64, the other one.
        tree_P: int64, 0..B-1.
        probability_P: P(better is better), 1/2 to 1; 1 where nobody said otherwise.
        margin_P: reward units, 0 where nobody said otherwise.
        trees: B.
    """

    better_P: Tensor
    worse_P: Tensor
    tree_P: Tensor
    probability_P: Tensor
    margin_P: Tensor
    trees: int

    def sum_of_tree_means(self, loss_P: Tensor) -> Tensor:
        """Scalar: the mean over each tree's pairs, summed over trees; a tree without a pair adds 0."""
        return likelihood.segment_mean(loss_P, self.tree_P, self.trees).sum()


def ranks_of(batch: TreeBatch, items: Sequence[Preference]) -> Tensor:
    """(B, K) int64 ranks of a pack made from `items`, ABSENT where a tree has fewer responses."""
    rank_N = torch.tensor([rank for item in items for rank in item.ranks], device=batch.token_T.device)
    return batch.by_tree(rank_N, listwise.ABSENT)


def pairs_of(batch: TreeBatch, items: Sequence[Preference], *, failed: listwise.Failed = "last") -> Pairs:
    """All comparisons of a pack made from `items`, in their order."""
    device = batch.token_T.device
    pair_P3 = listwise.ranking_pairs(ranks_of(batch, items), failed=failed)
    tree_P = pair_P3[:, 0]
    first_B = torch.bincount(batch.tree_N, minlength=len(items)).cumsum(0) - torch.tensor(
        [len(item.ranks) for item in items], device=device
    )
    soft_B = torch.tensor([1.0 if item.probability is None else item.probability for item in items], device=device)
    margin_B = torch.tensor([item.margin or 0.0 for item in items], device=device)
    first_P, second_P = first_B[tree_P] + pair_P3[:, 1], first_B[tree_P] + pair_P3[:, 2]
    # "chosen" at probability 0.2 was not preferred. Turned round with its margin a pair has the same loss.
    turned_P = soft_B[tree_P] < 0.5
    return Pairs(
        better_P=torch.where(turned_P, second_P, first_P),
        worse_P=torch.where(turned_P, first_P, second_P),
        tree_P=tree_P,
        probability_P=torch.where(turned_P, 1 - soft_B[tree_P], soft_B[tree_P]),
        margin_P=torch.where(turned_P, -margin_B[tree_P], margin_B[tree_P]),
        trees=len(items),
    )


def require_pairs(items: Sequence[Preference]) -> None:
    """Raise ValueError if no row prefers any response to another: there would be nothing to learn."""
    if all(len(set(item.ranks)) < 2 for item in items):
        raise ValueError("in every row of the data all responses tie or failed: there is no pair to learn from")


class PairTotals:
    """Figures over the pairs of a step or an evaluation, each pair weighing one.

    Attributes:
        decided: pairs of which one response was preferred; those at probability 1/2 have no accuracy.
    """

    def __init__(self) -> None:
        self.decided = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, pairs: Pairs, score_N: Tensor, length_N: Tensor, **extra_N: Tensor) -> None:
        """Add the pairs of a pack.

        Args:
            pairs: of the pack.
            score_N: reward, or implicit reward, of each response.
            length_N: tokens of each response, end token included.
            extra_N: further figures per response, averaged as `name/chosen` and `name/rejected`.
        """
        score_N = score_N.detach()
        better, worse = score_N[pairs.better_P], score_N[pairs.worse_P]
        longer, shorter = length_N[pairs.better_P].float(), length_N[pairs.worse_P].float()
        decided = pairs.probability_P != 0.5
        self.decided += int(decided.sum())
        self._add("accuracy_tie_half", reward.accuracy(better, worse)[decided])
        self._add("accuracy_strict", reward.accuracy(better, worse, tie=0.0)[decided])
        self._add("longer_wins_accuracy", reward.accuracy(longer, shorter)[decided])
        self._add("margin", better - worse)
        for name, value_N in {"reward": score_N, "length": length_N.float(), **extra_N}.items():
            self._add(f"{name}__chosen", value_N.detach()[pairs.better_P])
            self._add(f"{name}__rejected", value_N.detach()[pairs.worse_P])

    def add_values(self, name: str, value_P: Tensor) -> None:
        """Add values of a figure of the caller's own, averaged over all that were added."""
        self._add(name, value_P)

    def _add(self, name: str, value_P: Tensor) -> None:
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + float(value_P.sum()), count + value_P.numel()

    def means(self) -> dict[str, float]:
        """Means over all pairs added; none of what was not measured."""
        return {name: total / count for name, (total, count) in self._sums.items() if count}
