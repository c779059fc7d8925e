"""What a reward model minimises: the likelihood of the comparisons under one of four models of choice.

    bradley-terry   P(better) = sigma(gap)                                  soft targets, margins, flipped labels
    rao-kupper      P(better) = sigma(gap - eta), the rest is for ties      rankings with ties
    davidson        (better, tie, worse) = softmax(gap/2, log nu, -gap/2)   rankings with ties
    plackett-luce   the best drawn first, then the next of the rest         rankings as a whole

Dimensions: B trees, K responses of a tree, N responses, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.data.batches import Preference
from accord.losses import reward
from accord.train.configs import RewardConfig
from accord.train.pairs import Pairs, pairs_of, ranks_of, require_pairs
from accord.trees import TreeBatch

__all__ = ["Objective", "PackLoss", "check_items", "check_targets"]

TIES = {"rao-kupper": "threshold", "davidson": "log_nu"}
"""Losses that learn from ties, and the parameter that says how likely a tie is."""


@dataclass(frozen=True, kw_only=True)
class PackLoss:
    """The objective on a pack of prompts.

    Attributes:
        loss: 0-dim, nats, summed over the prompts; carries the gradient.
        centering_B: the part of each prompt that pulls rewards towards 0, without gradient.
        pairs: the comparisons it was made of, with ties where the loss reads them.
    """

    loss: Tensor
    centering_B: Tensor
    pairs: Pairs


class Objective(nn.Module):
    """The loss of a configuration, and its tie parameter: a weight like others if `learn_ties`, else a constant.

    Learned, the threshold of Rao-Kupper is softplus(raw): no step can make it negative. log nu may have any sign.
    """

    def __init__(self, config: RewardConfig) -> None:
        super().__init__()
        self.name, self.failed, self.coefficient = config.loss, config.failed, config.centering
        # None where the loss does not read it.
        self.weight, self.smoothing = config.pair_weight or "pairs", config.label_smoothing or 0.0
        self.tie_name, self.learns_ties = TIES.get(config.loss), bool(config.learn_ties)
        self.given = float(getattr(config, self.tie_name)) if self.tie_name else 0.0
        if self.learns_ties:
            inverse = math.log(-math.expm1(-self.given)) if config.loss == "rao-kupper" else 0.0
            self.raw = nn.Parameter(torch.tensor(self.given + inverse))

    @property
    def tie(self) -> float | Tensor:
        """The threshold or log nu: a 0-dim tensor with its graph if it is learned, else the number given."""
        if not self.learns_ties:
            return self.given
        return F.softplus(self.raw) if self.name == "rao-kupper" else self.raw

    @property
    def tie_value(self) -> float:
        """The same as a number."""
        return float(self.tie.detach() if isinstance(self.tie, Tensor) else self.tie)

    def facts(self) -> dict[str, str | float]:
        """What has to be known to read a probability from two scores: the loss and its tie parameter."""
        facts: dict[str, str | float] = {"loss": self.name}
        return facts | ({self.tie_name: self.tie_value} if self.tie_name else {})

    def forward(self, reward_N: Tensor, batch: TreeBatch, items: Sequence[Preference]) -> PackLoss:
        """The objective on a pack made from `items`.

        Args:
            reward_N: (N,) reward of each response, carries the gradient.
            batch: the pack.
            items: its trees with their ranks.
        """
        pairs = pairs_of(batch, items, failed=self.failed, ties=self.tie_name is not None)
        two_P = reward_N[pairs.better_P], reward_N[pairs.worse_P]
        if self.name == "plackett-luce":
            reward_BK, rank_BK = batch.by_tree(reward_N, 0.0), ranks_of(batch, items)
            loss = reward.plackett_luce(reward_BK, rank_BK, failed=self.failed).sum()
        else:
            loss = pairs.sum_of_tree_means(self._pair_loss(*two_P, pairs), weight=self.weight)
        centering_B = loss.new_zeros(pairs.trees)
        if self.coefficient:
            # Plackett-Luce weighs no pairs: the mean over those its ranking implies.
            pull_P = reward.centering(*two_P, coefficient=self.coefficient)
            centering_B = pairs.tree_means(pull_P, weight=self.weight)
            loss = loss + centering_B.sum()
        return PackLoss(loss=loss, centering_B=centering_B.detach(), pairs=pairs)

    def _pair_loss(self, better_P: Tensor, worse_P: Tensor, pairs: Pairs) -> Tensor:
        if self.name == "rao-kupper":
            return reward.rao_kupper(better_P, worse_P, pairs.outcome_P, threshold=self.tie)
        if self.name == "davidson":
            return reward.davidson(better_P, worse_P, pairs.outcome_P, log_nu=self.tie)
        return reward.bradley_terry(
            better_P,
            worse_P,
            probability_B=pairs.probability_P,
            margin_B=pairs.margin_P,
            label_smoothing=self.smoothing,
        )


def check_items(items: Sequence[Preference], config: RewardConfig) -> None:
    """Refuse data that say less than the objective needs, or more than it reads.

    Raises: ValueError: no pair to learn from; rows have `probability` or `margin` and the loss is not bradley-terry; or
        the tie parameter is to be learned and nothing ties.
    """
    require_pairs(items, failed=config.failed)
    check_targets(items, config)
    if config.learn_ties and not any(_has_tie(item.ranks) for item in items):
        raise ValueError(
            "no two responses of a row tie, so --learn-ties would only make ties ever less likely; remove it, or use "
            "rankings in which annotators may tie"
        )


def check_targets(items: Sequence[Preference], config: RewardConfig) -> None:
    """Refuse data that say more than the objective reads."""
    for name in ("probability", "margin"):
        if config.loss != "bradley-terry" and any(getattr(item, name) is not None for item in items):
            raise ValueError(
                f"the data has `{name}`, which --loss {config.loss} does not read; use --loss bradley-terry, or remove "
                "the field"
            )


def _has_tie(ranks: Sequence[int]) -> bool:
    places = [rank for rank in ranks if rank >= 1]
    return len(set(places)) < len(places)
