"""The pairs inside a pack of ranked trees: what reward models and direct preference optimisation both look at.

A ranking of K responses holds up to K(K-1)/2 comparisons. They stay in one tree, in one optimiser step, and weigh one
together (InstructGPT, section 3.5): spread over steps as separate examples they overfit.

Dimensions: B trees, N responses, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from accord.data.batches import Preference
from accord.losses import likelihood, listwise, reward
from accord.trees import TreeBatch

__all__ = ["PairTotals", "PairWeight", "Pairs", "pairs_of", "ranks_of", "require_pairs"]

PairWeight = Literal["pairs", "choose", "sum"]
"""What the pairs of a tree are divided by."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Comparisons of a pack. Ranks (1, 2, 2) of tree 0 make (0, 1) and (0, 2), and with ties (1, 2) as well.

    Attributes:
        better_P: int64, response of the pack that was preferred; of two that tie or stand at probability 1/2 the one
            named first.
        worse_P: int64, the other one.
        tree_P: int64, 0..B-1.
        outcome_P: int64, 1 where one is better, 0 where both tie.
        probability_P: P(better is better), 1/2 to 1; 1 where nobody said otherwise, 1/2 for a tie.
        margin_P: reward units, 0 where nobody said otherwise.
        present_B: int64, responses of each tree that were judged: all, or those that did not fail if these are dropped.
        trees: B.
    """

    better_P: Tensor
    worse_P: Tensor
    tree_P: Tensor
    outcome_P: Tensor
    probability_P: Tensor
    margin_P: Tensor
    present_B: Tensor
    trees: int

    def to(self, device: torch.device) -> Pairs:
        """The same pairs on another device; nothing waits for a GPU."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trees"}
        wait = device.type == "cpu"
        return replace(self, **{name: part.to(device, non_blocking=not wait) for name, part in parts.items()})

    @property
    def decided_P(self) -> Tensor:
        """Bool: True where somebody preferred one of the two."""
        return self.probability_P != 0.5

    def sum_of_tree_means(self, loss_P: Tensor, *, weight: PairWeight = "pairs") -> Tensor:
        """Scalar: `tree_means`, summed over trees."""
        return self.tree_means(loss_P, weight=weight).sum()

    def tree_means(self, loss_P: Tensor, *, weight: PairWeight = "pairs") -> Tensor:
        """(B,) the sum over each tree's pairs divided by W; a tree without a pair has 0.

        W is the number of pairs made ("pairs": their mean), C(responses present, 2) ("choose"), or 1 ("sum"), as in
        `accord.losses.reward.pairwise_ranking`.
        """
        if weight == "pairs":
            return likelihood.segment_mean(loss_P, self.tree_P, self.trees)
        sum_B = likelihood.segment_sum(loss_P, self.tree_P, self.trees)
        if weight == "sum":
            return sum_B
        choose_B = self.present_B * (self.present_B - 1) // 2
        return sum_B / choose_B.clamp(min=1).to(sum_B.dtype)


def pairs_of(
    batch: TreeBatch, items: Sequence[Preference], *, failed: listwise.Failed = "last", ties: bool = False
) -> Pairs:
    """All comparisons of a pack made from `items`, in their order.

    Args:
        batch: the pack.
        items: what it was made of.
        failed: "last" puts failed responses below every ranked one, "drop" leaves them out.
        ties: also the pairs of equal rank, behind the others. Two failed responses are no tie: nobody compared them.
    """
    rank_BK = _rank_table(batch, items)  # laid out on the CPU, where no number of pairs is waited for
    pair_P3 = listwise.ranking_pairs(rank_BK, failed=failed)
    outcome_P = torch.ones_like(pair_P3[:, 0])
    if ties:
        tie_P3 = _tied_pairs(rank_BK)
        pair_P3 = torch.cat([pair_P3, tie_P3])
        outcome_P = torch.cat([outcome_P, torch.zeros_like(tie_P3[:, 0])])
    tree_P = pair_P3[:, 0]
    count_B = torch.tensor([len(item.ranks) for item in items])
    first_B = count_B.cumsum(0) - count_B
    soft_B = torch.tensor([1.0 if item.probability is None else item.probability for item in items])
    margin_B = torch.tensor([item.margin or 0.0 for item in items])
    first_P, second_P = first_B[tree_P] + pair_P3[:, 1], first_B[tree_P] + pair_P3[:, 2]
    # "chosen" at probability 0.2 was not preferred. Turned round with its margin a pair has the same loss.
    turned_P = soft_B[tree_P] < 0.5
    probability_P = torch.where(turned_P, 1 - soft_B[tree_P], soft_B[tree_P])
    pairs = Pairs(
        better_P=torch.where(turned_P, second_P, first_P),
        worse_P=torch.where(turned_P, first_P, second_P),
        tree_P=tree_P,
        outcome_P=outcome_P,
        probability_P=probability_P.masked_fill(outcome_P == 0, 0.5),
        margin_P=torch.where(turned_P, -margin_B[tree_P], margin_B[tree_P]),
        present_B=(rank_BK >= (listwise.FAILED if failed == "last" else 1)).sum(-1),
        trees=len(items),
    )
    return pairs.to(batch.token_T.device)


def ranks_of(batch: TreeBatch, items: Sequence[Preference]) -> Tensor:
    """(B, K) int64 ranks of a pack made from `items`, ABSENT where a tree has fewer responses."""
    return _rank_table(batch, items).to(batch.token_T.device, non_blocking=True)


def _rank_table(batch: TreeBatch, items: Sequence[Preference]) -> Tensor:
    return torch.tensor([[*item.ranks, *(batch.width - len(item.ranks)) * [listwise.ABSENT]] for item in items])


def _tied_pairs(rank_BK: Tensor) -> Tensor:
    """(P, 3) int64 rows (tree, first, second) of equal rank."""
    tied_BKK = (rank_BK[:, :, None] == rank_BK[:, None, :]) & (rank_BK >= 1)[:, :, None]
    return tied_BKK.triu(1).nonzero()


def require_pairs(items: Sequence[Preference], *, failed: listwise.Failed = "last") -> None:
    """Raise ValueError if no row prefers any response to another: there would be nothing to learn."""
    if all(len({rank for rank in item.ranks if rank or failed == "last"}) < 2 for item in items):
        raise ValueError("in every row of the data all responses tie or failed: there is no pair to learn from")


class PairTotals:
    """Figures over the pairs of a step or an evaluation, each pair weighing one; computed when they are asked for."""

    def __init__(self) -> None:
        self._decided = 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._waiting: list[tuple[Pairs, Tensor, Tensor, dict[str, Tensor]]] = []
        self._figures: list[tuple[str, Tensor]] = []

    @property
    def decided(self) -> int:
        """Pairs of which one response was preferred; those at probability 1/2 have no accuracy."""
        self._settle()
        return self._decided

    def add(self, pairs: Pairs, score_N: Tensor, length_N: Tensor, **extra_N: Tensor) -> None:
        """Add the pairs of a pack. Of those that tie only their share and how far apart they score is kept.

        Args:
            pairs: of the pack.
            score_N: reward, or implicit reward, of each response.
            length_N: tokens of each response, end token included.
            extra_N: further figures per response, averaged as `name/chosen` and `name/rejected`.
        """
        extra_N = {name: value_N.detach() for name, value_N in extra_N.items()}
        self._waiting.append((pairs, score_N.detach(), length_N, extra_N))

    def _settle(self) -> None:
        """Read what was added: a GPU is waited for here, and not between the passes of a step."""
        waiting, self._waiting = self._waiting, []
        for pairs, score_N, length_N, extra_N in waiting:
            self._read(pairs, score_N, length_N, extra_N)
        figures, self._figures = self._figures, []
        for name, value_P in figures:
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(value_P.sum()), count + value_P.numel()

    def _read(self, pairs: Pairs, score_N: Tensor, length_N: Tensor, extra_N: dict[str, Tensor]) -> None:
        tied_P = pairs.outcome_P == 0
        better_P, worse_P, decided_P = (x_P[~tied_P] for x_P in (pairs.better_P, pairs.worse_P, pairs.decided_P))
        if bool(tied_P.any()):
            self.add_figure("ties__gap", (score_N[pairs.better_P] - score_N[pairs.worse_P])[tied_P].abs())
        better, worse = score_N[better_P], score_N[worse_P]
        longer, shorter = length_N[better_P].float(), length_N[worse_P].float()
        self._decided += int(decided_P.sum())
        self.add_figure("accuracy_tie_half", reward.accuracy(better, worse)[decided_P])
        self.add_figure("accuracy_strict", reward.accuracy(better, worse, tie=0.0)[decided_P])
        self.add_figure("longer_wins_accuracy", reward.accuracy(longer, shorter)[decided_P])
        self.add_figure("margin", better - worse)
        for name, value_N in {"reward": score_N, "length": length_N.float(), **extra_N}.items():
            self.add_figure(f"{name}__chosen", value_N[better_P])
            self.add_figure(f"{name}__rejected", value_N[worse_P])

    def add_figure(self, name: str, value_P: Tensor) -> None:
        """Add values, one per pair or prompt, to the mean of that name."""
        self._figures.append((name, value_P.detach()))

    def means(self) -> dict[str, float]:
        """Means over all pairs added; none of what was not measured."""
        self._settle()
        return {name: total / count for name, (total, count) in self._sums.items() if count}
