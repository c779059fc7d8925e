"""The objectives of `accord train dpo`: what each reads of a scored pack, and how it goes to one number per prompt.

An objective is a function of a `Scored` pack: the sum over its prompts of their loss. The losses themselves are in
`accord.losses`; here their arguments are picked. Pairwise losses see the pairs of a prompt, which weigh one together;
listwise losses see the whole ranking; KTO sees single responses.

Dimensions: B trees, K responses of a tree, N responses, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accord.data.batches import Preference
from accord.losses import likelihood, listwise
from accord.losses import preference as losses
from accord.train.pairs import Pairs, ranks_of
from accord.trees import TreeBatch

__all__ = ["OBJECTIVES", "Objective", "Scored", "labels_of"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A pack of ranked trees with what policy and reference say of its responses.

    Attributes:
        batch: the pack.
        preferences: one per tree.
        pairs: its comparisons.
        logprob_N: nats, summed over the tokens of each response; carries the gradient.
        reference_N: nats, the same under the reference; zeros where the objective has none.
        length_N: int64, tokens of each response, end token included.
        settings: what the objective reads, by the names of `accord.train.methods`, which are those of the loss.
        failed: "last" or "drop".
        reference_point: scalar, KTO's z0, nats; zero elsewhere.
    """

    batch: TreeBatch
    preferences: Sequence[Preference]
    pairs: Pairs
    logprob_N: Tensor
    reference_N: Tensor
    length_N: Tensor
    settings: Mapping[str, Any]
    failed: Any
    reference_point: Tensor

    @property
    def two(self) -> tuple[Tensor, Tensor]:
        """(P,) log-probability of the better and of the worse response of each pair."""
        return self.logprob_N[self.pairs.better_P], self.logprob_N[self.pairs.worse_P]

    @property
    def four(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`two`, and the same under the reference: the first arguments of every loss with a reference."""
        return *self.two, self.reference_N[self.pairs.better_P], self.reference_N[self.pairs.worse_P]

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """(P,) tokens of the better and of the worse response of each pair."""
        return self.length_N[self.pairs.better_P], self.length_N[self.pairs.worse_P]

    @property
    def mean_N(self) -> Tensor:
        """(N,) mean log-probability per token, nats."""
        return self.logprob_N / self.length_N

    @property
    def rank_BK(self) -> Tensor:
        """(B, K) ranks, ABSENT where a tree has fewer responses."""
        return ranks_of(self.batch, self.preferences)

    def table(self, value_N: Tensor) -> Tensor:
        """(B, K) one value per response, 0 where a tree has fewer; keeps the graph."""
        return self.batch.by_tree(value_N, 0.0)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective of `--loss`.

    Attributes:
        loss: the sum over a pack's trees of their losses, a scalar.
        reward: (N,) what the objective takes for the reward of a response, for the figures.
        reference: whether it needs the starting model's log-probabilities.
        soft: whether it reads `probability`.
        unpaired: whether single responses are enough, and prompts are mixed up for a reference point.
    """

    loss: Callable[[Scored], Tensor]
    reward: Callable[[Scored], Tensor]
    reference: bool = True
    soft: bool = False
    unpaired: bool = False


def _of_pairs(loss: Callable[[Scored], Tensor]) -> Callable[[Scored], Tensor]:
    """From one value per pair to the sum over trees of the mean of their pairs."""
    return lambda scored: scored.pairs.sum_of_tree_means(loss(scored))


def _ipo(scored: Scored) -> Tensor:
    lengths = scored.lengths if scored.settings["reduction"] == "mean" else (None, None)
    return losses.ipo(
        *scored.four,
        beta=scored.settings["beta"],
        chosen_length_B=lengths[0],
        rejected_length_B=lengths[1],
    )


def _slic(scored: Scored) -> Tensor:
    """The target whose likelihood keeps the language is the preferred response."""
    return losses.slic(*scored.two, target_logprob_B=scored.two[0], **scored.settings)


def _info_nce(scored: Scored) -> Tensor:
    score_BK = scored.table(_log_ratio(scored))
    return listwise.info_nce(score_BK, scored.rank_BK, failed=scored.failed).sum()


def _plackett_luce(scored: Scored) -> Tensor:
    logprob_BK, reference_BK = scored.table(scored.logprob_N), scored.table(scored.reference_N)
    return listwise.plackett_luce_dpo(
        logprob_BK, reference_BK, scored.rank_BK, failed=scored.failed, **scored.settings
    ).sum()


def _pro(scored: Scored) -> Tensor:
    reward_BK = None
    if scored.settings["temperatures"]:
        given = [score for preference in scored.preferences for score in preference.scores or ()]
        reward_BK = scored.table(torch.tensor(given).to(scored.logprob_N.device, non_blocking=True))
    mean_BK, rank_BK = scored.table(scored.mean_N), scored.rank_BK
    place_BK = torch.where(rank_BK >= 1, rank_BK, torch.iinfo(rank_BK.dtype).max)
    best_BK = (place_BK == place_BK.amin(-1, keepdim=True)) & (rank_BK >= 1)
    sft_nll_B = -torch.where(best_BK, mean_BK, 0.0).sum(-1) / best_BK.sum(-1).clamp_min(1)
    return listwise.pro(
        mean_BK,
        rank_BK,
        reward_BK=reward_BK,
        sft_nll_B=sft_nll_B,
        sft_weight=scored.settings["sft_weight"],
        failed=scored.failed,
    ).sum()


def labels_of(rank_BK: Tensor, batch: TreeBatch, failed: Any) -> Tensor:
    """(N,) int64: 1 thumbs up, -1 thumbs down, 0 neither.

    Of several responses to a prompt, one that wins more comparisons than it loses is up, the opposite down. A response
    alone is up if it has a place, down if it failed.
    """
    pair_P3 = listwise.ranking_pairs(rank_BK, failed=failed)
    wins_BK = torch.zeros_like(rank_BK)
    ones_P = torch.ones_like(pair_P3[:, 0])
    wins_BK = wins_BK.index_put((pair_P3[:, 0], pair_P3[:, 1]), ones_P, accumulate=True)
    wins_BK = wins_BK.index_put((pair_P3[:, 0], pair_P3[:, 2]), -ones_P, accumulate=True)
    alone_B1 = (rank_BK != listwise.ABSENT).sum(-1, keepdim=True) == 1
    label_BK = torch.where(alone_B1, torch.where(rank_BK >= 1, 1, -1), wins_BK.sign())
    return label_BK[batch.tree_N, batch.slot_N]


def _kto(scored: Scored) -> Tensor:
    label_N = labels_of(scored.rank_BK, scored.batch, scored.failed)
    judged_N = label_N != 0
    loss_N = losses.kto(
        scored.logprob_N[judged_N],
        scored.reference_N[judged_N],
        label_N[judged_N] > 0,
        scored.reference_point,
        **scored.settings,
    )
    return likelihood.segment_mean(loss_N, scored.batch.tree_N[judged_N], len(scored.preferences)).sum()


def _log_ratio(scored: Scored) -> Tensor:
    return losses.implicit_reward(scored.logprob_N, scored.reference_N, beta=scored.settings["beta"])


def _plain(scored: Scored) -> Tensor:
    return scored.mean_N


OBJECTIVES: dict[str, Objective] = {
    "dpo": Objective(
        loss=_of_pairs(lambda s: losses.dpo(*s.four, probability_B=s.pairs.probability_P, **s.settings)),
        reward=_log_ratio,
        soft=True,
    ),
    "cdpo": Objective(
        loss=_of_pairs(lambda s: losses.dpo(*s.four, probability_B=s.pairs.probability_P, **s.settings)),
        reward=_log_ratio,
        soft=True,
    ),
    "robust": Objective(loss=_of_pairs(lambda s: losses.robust_dpo(*s.four, **s.settings)), reward=_log_ratio),
    "ipo": Objective(loss=_of_pairs(_ipo), reward=_log_ratio),
    "hinge": Objective(loss=_of_pairs(lambda s: losses.hinge(*s.four, **s.settings)), reward=_log_ratio),
    "slic": Objective(loss=_of_pairs(_slic), reward=lambda s: s.logprob_N, reference=False),
    "dpo-length": Objective(
        loss=_of_pairs(lambda s: losses.dpo_length(*s.four, *s.lengths, **s.settings)), reward=_log_ratio
    ),
    "simpo": Objective(
        loss=_of_pairs(lambda s: losses.simpo(*s.two, *s.lengths, **s.settings)),
        reward=lambda s: s.settings["beta"] * s.mean_N,
        reference=False,
    ),
    "orpo": Objective(
        loss=_of_pairs(lambda s: losses.orpo(*s.two, *s.lengths, **s.settings)), reward=_plain, reference=False
    ),
    "kto": Objective(loss=_kto, reward=_log_ratio, unpaired=True),
    "info-nce": Objective(loss=_info_nce, reward=_log_ratio),
    "plackett-luce": Objective(loss=_plackett_luce, reward=_log_ratio),
    "pro": Objective(loss=_pro, reward=_plain, reference=False),
}
"""By the name of `--loss`."""
