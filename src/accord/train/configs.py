"""One frozen configuration per job: what the command line, a YAML recipe and Python all build.

Every field has a meaning and a unit; the help of `accord train` and `accord sample` is generated from here. This module
imports no torch, so that the command line can check a configuration and answer `--help` at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from accord.train.methods import METHODS, Method

__all__ = [
    "FREE_TO_CHANGE",
    "DpoConfig",
    "JobConfig",
    "PolicyConfig",
    "PpoConfig",
    "RewardConfig",
    "RewardSources",
    "SampleConfig",
    "SftConfig",
    "TrainConfig",
]


VALUE_SETTINGS = ("critic", "value_coefficient", "value_learning_rate")
"""Read where there is a value function."""
FREE_TO_CHANGE = frozenset(
    {
        "out",
        "save_every",
        "profile",
        "keep_every",
        "concurrency",
        "timeout",
        "api_key_env",
        "cache",
        "cache_dir",
        "price",
        "accept_weak_judge",
    }
)
"""Settings that say where and how often to save, what to measure, or how a server is reached, not what is computed: a
run stays valid when they change."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class JobConfig(BaseModel):
    """What every job takes, training or not: a model, data, and the folder of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    job: ClassVar[str] = ""
    shared_by: ClassVar[str] = "job"  # in a help fields stand under "settings of every job" if their own class says so

    model: str = Field(description="starting model: hub id, folder, GGUF file, wheel:NAME, or the folder of a run")
    data: Paths = Field(description="training data: JSONL (.gz too) or Parquet files", min_length=1)
    out: Path = Field(description="run folder; an unfinished run in it is continued")
    micro_tokens: int = Field(4096, ge=16, description="token budget of one forward pass; memory, never the result")
    max_length: int = Field(1024, ge=8, description="tokens of a prompt with its longest response")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the forward pass; auto: bf16 where the device is fast at it"
    )
    seed: int = Field(0, ge=0, description="every random choice of the run is a function of it")
    skip_bad_rows: bool = Field(False, description="set bad rows aside instead of stopping at the first")


class TrainConfig(JobConfig):
    """What every training job takes.

    A job with several methods names the setting that chooses one in `choice`. Settings that only some methods read have
    the default None here and their true default in `accord.train.methods`: it is filled in for a method that reads the
    setting, and a method that does not read it refuses it.
    """

    choice: ClassVar[str | None] = None
    shared_by: ClassVar[str] = "job"

    eval_data: Paths = Field((), description="held-out data of the same kind; none: no evaluation during training")
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
    lora_rank: int = Field(
        0, ge=0, description="rank of LoRA adapters on every linear layer, alpha twice that; 0: full"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory")
    save_every: int = Field(100, ge=1, description="optimiser steps between checkpoints")
    eval_every: int = Field(50, ge=1, description="optimiser steps between evaluations on the held-out data")
    profile: bool = Field(
        False, description="measure where the time of three steps (ppo: of a rollout) goes: a table at the end"
    )

    @classmethod
    def methods(cls) -> dict[str, Method]:
        """The methods of the job by name; empty where it has only one."""
        return {method.name: method for method in METHODS if cls.choice and method.job == cls.job}

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_method(cls, given: Any) -> Any:
        """Fill in what the chosen method reads, refuse what it does not."""
        methods = cls.methods()
        if not methods or not isinstance(given, dict):
            return given
        assert cls.choice is not None
        chosen = given.get(cls.choice, cls.model_fields[cls.choice].default)
        if not isinstance(chosen, str) or chosen not in methods:
            return given  # the field's own check names the choices
        reads = methods[chosen].reads
        for name in {name for method in methods.values() for name in method.reads} - reads.keys():
            if given.get(name) is not None:
                readers = ", ".join(other.name for other in methods.values() if name in other.reads)
                raise ValueError(f'"{name}" is not read with {cls.choice} {chosen}; remove it, or choose: {readers}')
        filled = {name: value for name, value in reads.items() if given.get(name) is None}
        if given.get("baseline") not in (
            None,
            "value",
        ):  # REINFORCE without a value function reads none of its settings
            for name in VALUE_SETTINGS:
                if given.get(name) is not None:
                    raise ValueError(f'"{name}" is read only with baseline value; remove it, or set baseline to value')
                filled[name] = None
        return {**given, **filled}

    @property
    def reads(self) -> dict[str, Any]:
        """The settings that the chosen method reads and others may not, with their values."""
        assert self.choice is not None
        return {name: getattr(self, name) for name in self.methods()[getattr(self, self.choice)].reads}


class PolicyConfig(TrainConfig):
    """What every job takes that trains a policy."""

    shared_by: ClassVar[str] = "job"

    keep_every: int = Field(
        0,
        ge=0,
        description="optimiser steps between models kept in kept/, for `accord eval frontier`; 0: the last only",
    )


class SftConfig(PolicyConfig):
    """Supervised fine-tuning on Demonstrations: token-level maximum likelihood of the responses."""

    job = "sft"

    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate of AdamW")


class RewardConfig(TrainConfig):
    """A reward model on Comparisons and Rankings: one forward pass per prompt, whatever its number of responses."""

    choice, job = "loss", "reward"

    batch_size: int = Field(32, ge=1, description="prompts per optimiser step")
    loss: Literal["bradley-terry", "rao-kupper", "davidson", "plackett-luce"] = Field(
        "bradley-terry", description="objective; rao-kupper and davidson learn from ties as well (docs/methods.md)"
    )
    label_smoothing: float | None = Field(None, ge=0, le=0.5, description="probability that a preference is flipped")
    pair_weight: Literal["pairs", "choose", "sum"] | None = Field(
        None, description="what the pairs of a prompt are divided by: comparisons made, C(K, 2), or nothing"
    )
    threshold: float | None = Field(None, gt=0, description="score gap around which a tie is likely, reward units")
    log_nu: float | None = Field(None, description="log-weight of a tie against a win between equals")
    learn_ties: bool | None = Field(None, description="train the tie parameter as well, from the value given")
    centering: float = Field(0.0, ge=0, description="weight of (sum of both scores)^2 per pair: scores stay around 0")
    failed: Literal["last", "drop"] = Field("last", description="failed responses lose to all others, or do not count")
    bootstrap: bool = Field(
        False, description="draw the rows with replacement: members of an ensemble then differ in their data"
    )


class DpoConfig(PolicyConfig):
    """Learning directly from preferences: Comparisons, Rankings, or unpaired thumbs up and down."""

    choice, job = "loss", "dpo"

    learning_rate: float = Field(5e-6, gt=0, description="peak learning rate of AdamW")
    loss: Literal[
        "dpo", "cdpo", "robust", "ipo", "hinge", "slic", "dpo-length", "simpo", "orpo", "kto",
        "info-nce", "plackett-luce", "pro",
    ] = Field("dpo", description="objective (docs/methods.md)")  # fmt: skip
    beta: float | None = Field(
        None, gt=0, description="pull towards the reference, 1/nat per response (simpo: of mean)"
    )
    label_smoothing: float | None = Field(None, ge=0, lt=0.5, description="probability that a preference is flipped")
    reduction: Literal["sum", "mean"] | None = Field(
        None, description="log-ratios summed over tokens (the paper), or their mean (beta is then per token)"
    )
    alpha: float | None = Field(None, description="penalty on the longer response, nats of margin per token")
    form: Literal["derived", "printed"] | None = Field(
        None, description="sign of the length term: of the paper, or its published misprint, which rewards length"
    )
    delta: float | None = Field(None, gt=0, description="margin wanted between log-probabilities, nats per response")
    regularisation: float | None = Field(None, ge=0, description="weight of the likelihood of the preferred response")
    gamma: float | None = Field(None, ge=0, description="margin wanted between rewards, no multiple of beta")
    coefficient: float | None = Field(None, ge=0, description="weight of the odds ratio beside the likelihood")
    desirable_weight: float | None = Field(None, ge=0, description="weight of responses with thumbs up")
    undesirable_weight: float | None = Field(None, ge=0, description="weight of responses with thumbs down")
    sft_weight: float | None = Field(None, ge=0, description="weight of the best response's likelihood")
    temperatures: bool | None = Field(
        None, description="sharpen each step of a ranking by the gaps between the `scores` in the data"
    )
    failed: Literal["last", "drop"] = Field("last", description="failed responses lose to all others, or do not count")


class RewardSources(JobConfig):
    """What every job takes that has responses judged."""

    reward: Names = Field(
        (),
        description="sources, summed: reward-model folders, module:function from conversations to numbers, or "
        "folders joined by commas, which are one source, an ensemble",
    )
    reward_weights: tuple[float, ...] = Field((), description="one factor per source; none: 1 each")
    ensemble: Literal["mean", "min", "mean-std"] | None = Field(
        None, description="how the members of an ensemble make one score; none: mean"
    )
    length_penalty: float = Field(
        0.0, description="taken from the score per token of the response, a source of its own"
    )

    def reward_complaints(self) -> Iterator[str]:
        """What is wrong with the sources, one sentence each."""
        if self.reward_weights and len(self.reward_weights) != len(self.reward):
            yield f"reward_weights has {len(self.reward_weights)} numbers for {len(self.reward)} rewards; one for each"
        for name in self.reward:
            if not all(member.strip() for member in name.split(",")):
                yield f"reward {name!r} has a place without a name; give folders joined by commas, or one source"
        if self.ensemble is not None and not any("," in name for name in self.reward):
            yield "ensemble needs a reward of several folders joined by commas; give those, or remove ensemble"


class SampleConfig(RewardSources):
    """Sampling K responses to each prompt and, with a reward, ranking them: best-of-n and rejection sampling."""

    job = "sample"

    data: Paths = Field(description="prompts: JSONL (.gz too) or Parquet files", min_length=1)
    samples: int = Field(8, ge=1, description="responses sampled per prompt (K)")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a sampled response at most")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 takes the most probable token")
    batch_size: int = Field(16, ge=1, description="prompts sampled together and written before the next ones begin")
    finished_only: bool = Field(
        False, description="only responses that ended on their own may be the best of their prompt"
    )

    @model_validator(mode="after")
    def _consistent(self) -> SampleConfig:
        """Settings that need another one to have a meaning."""
        for complaint in self._complaints():
            raise ValueError(complaint)
        return self

    def _complaints(self) -> Iterator[str]:
        if not self.reward:
            for name in ("reward_weights", "ensemble", "length_penalty", "finished_only"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield f'"{name}" is read only with a reward; give that, or remove it'
        yield from self.reward_complaints()
        if self.temperature == 0 and self.samples > 1:
            yield f"temperature 0 gives the same response {self.samples} times; raise it, or set samples to 1"


class PpoConfig(RewardSources, PolicyConfig):
    """Reinforcement learning from a reward: sample, score, estimate advantages, improve the policy."""

    choice, job = "algorithm", "ppo"

    learning_rate: float = Field(
        5e-6, gt=0, description="peak learning rate of AdamW (trpo: of the value function, see value_learning_rate)"
    )
    reward: Names = Field(
        min_length=1,
        description="sources, summed: reward-model folders, module:function from conversations to numbers, or "
        "folders joined by commas, which are one source, an ensemble",
    )
    algorithm: Literal["ppo-clip", "ppo-penalty", "trpo", "reinforce", "rloo", "grpo"] = Field(
        "ppo-clip", description="policy objective (docs/methods.md)"
    )
    samples: int = Field(4, ge=1, description="responses sampled per prompt (K)")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a sampled response at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature; ratios and KL are taken under it")
    minibatches: int | None = Field(None, ge=1, description="optimiser steps per pass over a rollout")
    ppo_epochs: int | None = Field(None, ge=1, description="passes over each rollout")
    kl_beta: float | None = Field(
        None, ge=0, description="penalty per nat of KL to the reference, in units of the (normalised) reward"
    )
    kl_target: float | None = Field(
        None, gt=0, description="nats per response; given, kl_beta adapts to hold the KL there (Ziegler et al.)"
    )
    kl_place: Literal["reward", "loss", "both"] | None = Field(
        None,
        description="where the penalty stands; both: with the exact KL only, unbiased without whitening and scaling",
    )
    kl_estimator: Literal["k1", "k2", "k3", "exact"] | None = Field(
        None, description="KL per token; in the reward k1 is unbiased, in the loss k2 and exact are"
    )
    clip: float | None = Field(None, gt=0, description="half-width of the interval the importance ratio is clipped to")
    clip_high: float | None = Field(None, gt=0, description="its upper half where it differs (DAPO); none: clip")
    dual_clip: float | None = Field(None, gt=1, description="bound on the loss at negative advantages; none: off")
    penalty: float | None = Field(None, ge=0, description="weight of KL(old || new) per nat in the loss")
    penalty_target: float | None = Field(
        None, gt=0, description="nats per token; given, penalty is halved or doubled to hold KL(old || new) there"
    )
    max_kl: float | None = Field(None, gt=0, description="bound on KL(old || new) of a step, nats per token")
    cg_iterations: int | None = Field(None, ge=1, description="conjugate-gradient iterations per step")
    damping: float | None = Field(None, ge=0, description="added to the diagonal of the Fisher matrix")
    backtracks: int | None = Field(None, ge=1, description="step sizes tried by the line search, each half the last")
    fisher_share: float | None = Field(
        None, gt=0, le=1, description="share of a rollout's prompts the Fisher matrix is estimated on"
    )
    value_updates: int | None = Field(None, ge=0, description="optimiser steps of the value function per rollout")
    baseline: Literal["value", "mean", "none"] | None = Field(
        None, description="subtracted from the return: a value function, the rollout's mean, nothing"
    )
    whiten_advantages: bool | None = Field(None, description="advantages of a rollout to mean 0 and deviation 1")
    scale_advantages: bool | None = Field(None, description="divide by the deviation of the prompt's scores")
    average: Literal["token", "sequence", "constant"] | None = Field(
        None, description="over all tokens of a step, over responses of their token means, or over max_new_tokens each"
    )
    value_clip: float | None = Field(None, gt=0, description="bound on a value's change, in reward units; none: off")
    value_coefficient: float | None = Field(None, ge=0, description="weight of the value loss beside the policy loss")
    value_learning_rate: float | None = Field(
        None, gt=0, description="of the value head or critic; none: 50 x learning_rate for a head, 1 x for a critic"
    )
    critic: Literal["shared", "separate"] | None = Field(
        None, description="value head on the policy's trunk, or a value model of its own, all of it trained"
    )
    gamma: float | None = Field(None, ge=0, le=1, description="discount per token")
    lam: float | None = Field(None, ge=0, le=1, description="lambda of generalised advantage estimation")
    entropy_coefficient: float | None = Field(None, ge=0, description="weight of the entropy bonus, per nat")
    stop_kl: float | None = Field(
        None, gt=0, description="nats per token; a rollout's epochs end when KL(old || new) passes 1.5 times this"
    )
    score_clip: float | None = Field(None, gt=0, description="bound on a score in units of its deviation; none: off")
    missing_eos_penalty: float = Field(0.0, ge=0, description="taken from the score of a response cut off by length")
    ptx_data: Paths | None = Field(
        None, description="text or demonstrations whose likelihood is trained beside the policy (PPO-ptx); none: off"
    )
    ptx_coefficient: float | None = Field(None, gt=0, description="weight of its loss per token; none: 27.8")
    ptx_batch_size: int | None = Field(None, ge=1, description="its rows per optimiser step; none: batch_size")

    @model_validator(mode="after")
    def _consistent(self) -> PpoConfig:
        """Settings that need another one to have a meaning."""
        for complaint in self._complaints():
            raise ValueError(complaint)
        return self

    def _complaints(self) -> Iterator[str]:
        yield from self.reward_complaints()
        yield from self._kl_complaints()
        if self.samples < 2 and self.algorithm in ("rloo", "grpo"):
            yield f"samples is {self.samples}; {self.algorithm} compares the responses to a prompt and needs 2 at least"
        if self.ptx_data is None:
            for name in ("ptx_coefficient", "ptx_batch_size"):
                if getattr(self, name) is not None:
                    yield f'"{name}" is read only with ptx_data; give that, or remove it'
        if self.algorithm == "trpo" and self.precision == "bf16":
            yield "trpo solves for its step with products of the Fisher matrix, which bf16 loses; use precision fp32"

    def _kl_complaints(self) -> Iterator[str]:
        if self.kl_target is not None and self.kl_beta == 0:
            yield "kl_target adapts kl_beta by factors, so kl_beta must start above 0"
        if self.penalty_target is not None and self.penalty == 0:
            yield "penalty_target adapts penalty by factors, so penalty must start above 0"
        if self.algorithm == "trpo" and self.kl_place != "reward":
            yield f"kl_place is {self.kl_place}; trpo takes its natural gradient of the surrogate alone: reward"
        place, estimator = self.kl_place, self.kl_estimator
        if place == "loss" and estimator == "k1":
            yield "kl_estimator k1 in the loss has a gradient of mean zero: it does nothing; use k2, k3 or exact"
        if place == "reward" and estimator == "exact":
            yield "kl_estimator exact in the reward alone loses each token's own term; use k1, or kl_place both"
        if place == "both" and estimator != "exact":
            yield f"kl_place both is right with kl_estimator exact only, found {estimator}"
