"""What tells the policy algorithms apart: how rewards become advantages, the loss of a token, how losses are averaged.

    PPO, TRPO     A by generalised advantage estimation, whitened;  clipped, penalised or bare surrogate
    REINFORCE     A = G_t - V(s_t), G_t - mean G, or G_t;           -A log pi
    RLOO          A = R - mean R of the siblings;                   -A log pi, summed over a response
    GRPO          A = (R - mean R) / deviation, of the prompt's K;  clipped surrogate, mean of the responses' means

R is the sum of a response's token rewards: its score, less the KL penalty where that stands in the reward. Everything
else of an iteration (sampling, scoring, the KL to the reference, entropy, values, ptx) is common to all.

Dimensions: N responses of a rollout, B prompts with K each, T tokens: a table's columns, or the tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.losses import advantages, kl
from accord.losses import policy as losses
from accord.train.configs import PpoConfig

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Coefficients",
    "kl_in_loss",
    "kl_in_reward",
    "scores_with_its_step",
    "weighted_sum",
]


class Coefficients:
    """Weights of the two KL penalties: fixed, or adapted after each rollout to hold the KL at a target.

    Attributes:
        kl: of KL(policy || reference), adapted in proportion to the error (Ziegler et al. 2019, section 2.2).
        penalty: of KL(old || new), halved or doubled (Schulman et al. 2017, section 4).
    """

    def __init__(self, config: PpoConfig) -> None:
        self.kl, self._kl_target = config.kl_beta or 0.0, config.kl_target
        self.penalty, self._penalty_target = config.penalty or 0.0, config.penalty_target

    def adapt(self, kl_reference: float, kl_moved: float | None) -> None:
        """After a rollout: KL to the reference, nats per response; KL(old || new) of its updates, nats per token."""
        if self._kl_target is not None:
            self.kl = losses.adapt_kl_proportional(self.kl, kl_reference, target=self._kl_target)
        if self._penalty_target is not None:
            assert kl_moved is not None
            self.penalty = losses.adapt_kl_doubling(self.penalty, kl_moved, target=self._penalty_target)

    def state_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"kl": self.kl, "penalty": self.penalty}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """From a checkpoint."""
        self.kl, self.penalty = state["kl"], state["penalty"]


# -- from token rewards to advantages: (token rewards, values or None, mask, config) -> (N, T), 0 outside the mask -----


def gae(reward_NT: Tensor, value_NT: Tensor | None, mask_NT: Tensor, config: PpoConfig) -> Tensor:
    """Generalised advantage estimation."""
    assert value_NT is not None
    gamma, lam = _number(config.gamma), _number(config.lam)
    return advantages.gae(reward_NT, value_NT, mask_NT, gamma=gamma, lam=lam).advantage_NT


def return_less_baseline(reward_NT: Tensor, value_NT: Tensor | None, mask_NT: Tensor, config: PpoConfig) -> Tensor:
    """G_t less a value, less the mean of G over the rollout's tokens, or as it is."""
    return_NT = advantages.returns(reward_NT, mask_NT, gamma=_number(config.gamma))
    if value_NT is not None:
        return advantages.advantage(return_NT, value_NT, mask_NT)
    baseline = return_NT[mask_NT].mean() if config.baseline == "mean" else 0.0
    return (return_NT - baseline).masked_fill(~mask_NT, 0)


def leave_one_out(reward_NT: Tensor, value_NT: Tensor | None, mask_NT: Tensor, config: PpoConfig) -> Tensor:
    """The response's whole reward less the mean of its siblings', the same on every token."""
    return _on_every_token(advantages.leave_one_out(_by_prompt(reward_NT, config)), mask_NT)


def group_relative(reward_NT: Tensor, value_NT: Tensor | None, mask_NT: Tensor, config: PpoConfig) -> Tensor:
    """The response's whole reward against the prompt's others, the same on every token."""
    reward_BK = _by_prompt(reward_NT, config)
    return _on_every_token(advantages.group_relative(reward_BK, scale=bool(config.scale_advantages)), mask_NT)


def _by_prompt(reward_NT: Tensor, config: PpoConfig) -> Tensor:
    return reward_NT.sum(-1).view(-1, config.samples)


def _on_every_token(advantage_BK: Tensor, mask_NT: Tensor) -> Tensor:
    return advantage_BK.flatten().unsqueeze(-1).expand(mask_NT.shape).masked_fill(~mask_NT, 0)


# -- the loss of a token: (log-probability, old log-probability, advantage, config, coefficients) -> (T,) --------------


def clipped(logprob_T: Tensor, old_T: Tensor, advantage_T: Tensor, config: PpoConfig, _: Coefficients) -> Tensor:
    """PPO's and GRPO's surrogate."""
    return losses.ppo_clip(
        logprob_T,
        old_T,
        advantage_T,
        clip=_number(config.clip),
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )


def penalised(logprob_T: Tensor, old_T: Tensor, advantage_T: Tensor, _: PpoConfig, weights: Coefficients) -> Tensor:
    """The surrogate with a penalty on KL(old || new), estimated by k3 on the sampled tokens."""
    moved_T = kl.k3(old_T, logprob_T)
    return losses.ppo_penalty(logprob_T, old_T, advantage_T, moved_T, coefficient=weights.penalty)


def bare(logprob_T: Tensor, old_T: Tensor, advantage_T: Tensor, _: PpoConfig, __: Coefficients) -> Tensor:
    """The surrogate; what bounds the step is not in the loss."""
    return losses.surrogate(logprob_T, old_T, advantage_T)


def score_function(logprob_T: Tensor, old_T: Tensor, advantage_T: Tensor, _: PpoConfig, __: Coefficients) -> Tensor:
    """-A log pi: one step per rollout, so there is no ratio."""
    return losses.reinforce(logprob_T, advantage_T)


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A policy algorithm.

    Attributes:
        advantages: of each token, not whitened; see above.
        loss: of each token; see above.
        fits_values: whether there is a value function, at these settings.
        clips: whether ratios are clipped.
        natural: the policy moves by natural-gradient steps instead of the optimiser's.
    """

    advantages: Callable[[Tensor, Tensor | None, Tensor, PpoConfig], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor, PpoConfig, Coefficients], Tensor]
    fits_values: Callable[[PpoConfig], bool]
    clips: bool = False
    natural: bool = False


def _always(config: PpoConfig) -> bool:
    return True


def _never(config: PpoConfig) -> bool:
    return False


def _as_baseline(config: PpoConfig) -> bool:
    return config.baseline == "value"


ALGORITHMS = {
    "ppo-clip": Algorithm(advantages=gae, loss=clipped, fits_values=_always, clips=True),
    "ppo-penalty": Algorithm(advantages=gae, loss=penalised, fits_values=_always),
    "trpo": Algorithm(advantages=gae, loss=bare, fits_values=_always, natural=True),
    "reinforce": Algorithm(advantages=return_less_baseline, loss=score_function, fits_values=_as_baseline),
    "rloo": Algorithm(advantages=leave_one_out, loss=score_function, fits_values=_never),
    "grpo": Algorithm(advantages=group_relative, loss=clipped, fits_values=_never, clips=True),
}


# -- the KL to the reference, and the mean over a step -----------------------------------------------------------------


def kl_in_reward(config: PpoConfig) -> str | None:
    """Estimator of the KL penalty in the token rewards, or None where it does not stand there."""
    return config.kl_estimator if config.kl_place in ("reward", "both") else None


def kl_in_loss(config: PpoConfig) -> str | None:
    """Estimator of the KL penalty in the loss, or None where it does not stand there."""
    return config.kl_estimator if config.kl_place in ("loss", "both") else None


def scores_with_its_step(config: PpoConfig) -> bool:
    """Whether nothing needs the policy's log-probabilities of a rollout before the one step it makes.

    The pass of that step then gives them: it finds the weights that sampled, so old and new are the same numbers.
    """
    algorithm = ALGORITHMS[config.algorithm]
    one = (config.ppo_epochs or 1) * (config.minibatches or 1) == 1 and not algorithm.natural
    on_the_trunk = algorithm.fits_values(config) and config.critic != "separate"  # values come of the policy's own pass
    in_reward = kl_in_reward(config) is not None and bool(config.kl_beta)
    return one and not on_the_trunk and not in_reward and config.penalty_target is None


def weighted_sum(loss_T: Tensor, response_T: Tensor, config: PpoConfig, *, tokens: int, responses: int) -> Tensor:
    """A pack's share of the average of token losses over an optimiser step, times the step's number of tokens.

    Summed over any split of the step into packs and divided by `tokens` it is
        token: the mean over all tokens    sequence: the mean over responses of their means
        constant: sum / (responses * max_new_tokens)    rloo: the mean over responses of their sums

    Args:
        loss_T: (T,) of the pack's tokens.
        response_T: (T,) int64, the response of the pack each belongs to.
        config: says how to average.
        tokens: sampled tokens of the whole optimiser step.
        responses: of the whole optimiser step.
    """
    if config.average == "token":
        return loss_T.sum()
    if config.average == "sequence":
        length_N = torch.bincount(response_T)
        return (loss_T / length_N[response_T]).sum() * (tokens / responses)
    longest = config.max_new_tokens if config.average == "constant" else 1
    return loss_T.sum() * (tokens / (responses * longest))


def _number(value: float | None) -> float:
    assert value is not None, "a setting that the algorithm reads has a default"
    return value
