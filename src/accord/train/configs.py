"""One frozen configuration per training job: what the command line, a YAML recipe and Python all build.

Every field has a meaning and a unit; the help of `accord train` is generated from here. This module imports no torch,
so that the command line can check a configuration and answer `--help` at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["FREE_TO_CHANGE", "DpoConfig", "PpoConfig", "RewardConfig", "SftConfig", "TrainConfig"]


FREE_TO_CHANGE = frozenset({"out", "save_every"})
"""Settings that say where and how often to save, not what is computed: a run stays valid when they change."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]


class TrainConfig(BaseModel):
    """What every training job takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(description="starting model: hub id, folder, GGUF file, wheel:NAME, or the folder of a run")
    data: Paths = Field(description="training data: JSONL (.gz too) or Parquet files", min_length=1)
    eval_data: Paths = Field((), description="held-out data of the same kind; none: no evaluation during training")
    out: Path = Field(description="run folder; an unfinished run in it is continued")
    epochs: int = Field(1, ge=1, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps at most; none: as many as the epochs hold")
    learning_rate: float = Field(1e-5, gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises from 0")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "linear", description="learning rate after the warm-up; cosine and linear fall to a tenth of the peak"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay, on matrices only")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients with a larger L2 norm are scaled down to it")
    batch_size: int = Field(16, ge=1, description="prompts per optimiser step")
    micro_tokens: int = Field(4096, ge=16, description="token budget of one forward pass; memory, never the result")
    max_length: int = Field(1024, ge=8, description="tokens of a prompt with its longest response")
    lora_rank: int = Field(
        0, ge=0, description="rank of LoRA adapters on every linear layer, alpha twice that; 0: full"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the forward pass; auto: bf16 where the device is fast at it"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory")
    seed: int = Field(0, ge=0, description="every random choice of the run is a function of it")
    save_every: int = Field(100, ge=1, description="optimiser steps between checkpoints")
    eval_every: int = Field(50, ge=1, description="optimiser steps between evaluations on the held-out data")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class SftConfig(TrainConfig):
    """Supervised fine-tuning on Demonstrations: token-level maximum likelihood of the responses."""

    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")


class RewardConfig(TrainConfig):
    """A reward model on Comparisons and Rankings (Bradley-Terry, K-wise: one forward per prompt)."""

    batch_size: int = Field(32, ge=1, description="prompts per optimiser step")


class DpoConfig(TrainConfig):
    """Direct preference optimisation on Comparisons, or on the pairs of Rankings."""

    learning_rate: float = Field(5e-6, gt=0, description="peak learning rate of AdamW")
    loss: Literal["dpo", "ipo", "hinge"] = Field("dpo", description="objective; ipo sums log-ratios over tokens")
    beta: float = Field(0.1, gt=0, description="pull towards the reference model, 1/nat per response")


class PpoConfig(TrainConfig):
    """Reinforcement learning from a reward: sample, score, estimate advantages, clipped policy steps."""

    learning_rate: float = Field(5e-6, gt=0, description="peak learning rate of AdamW")
    reward: str = Field(description="reward-model folder, or module:function from conversations to numbers")
    algorithm: Literal["ppo-clip"] = Field("ppo-clip", description="policy objective")
    samples: int = Field(4, ge=1, description="responses sampled per prompt (K)")
    minibatches: int = Field(2, ge=1, description="optimiser steps per pass over a rollout")
    ppo_epochs: int = Field(2, ge=1, description="passes over each rollout")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a sampled response at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature; ratios and KL are taken under it")
    kl_beta: float = Field(
        0.02, ge=0, description="penalty per nat of KL to the reference, in units of the (normalised) reward"
    )
    kl_target: float | None = Field(
        None, gt=0, description="nats per response; given, kl_beta adapts to hold the KL there (Ziegler et al.)"
    )
    clip: float = Field(0.2, gt=0, description="half-width of the interval the importance ratio is clipped to")
    value_clip: float | None = Field(None, gt=0, description="bound on a value's change, in reward units; none: off")
    value_coefficient: float = Field(0.1, ge=0, description="weight of the value loss beside the policy loss")
    value_learning_rate: float | None = Field(
        None, gt=0, description="of the value head or critic; none: 50 x learning_rate for a head, 1 x for a critic"
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus, per nat")
    gamma: float = Field(1.0, ge=0, le=1, description="discount per token")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    critic: Literal["shared", "separate"] = Field(
        "shared", description="value head on the policy's trunk, or a value model of its own, all of it trained"
    )
    stop_kl: float | None = Field(
        None, gt=0, description="nats per token; a rollout's epochs end when KL(old || new) passes 1.5 times this"
    )
    score_clip: float | None = Field(None, gt=0, description="bound on a score in units of its deviation; none: off")
    missing_eos_penalty: float = Field(0.0, ge=0, description="taken from the score of a response cut off by length")

    @model_validator(mode="after")
    def _adaptive_needs_a_start(self) -> PpoConfig:
        if self.kl_target is not None and self.kl_beta == 0:
            raise ValueError("kl_target adapts kl_beta by factors, so kl_beta must start above 0")
        return self
