"""Settings of the jobs that let a model give feedback. No torch, so that the command line answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from accord.train.configs import JobConfig, Names, Paths

__all__ = ["CompareConfig", "CritiqueConfig", "FeedbackConfig", "LabelConfig"]

MODEL = "hub id, folder, run, GGUF file, wheel:NAME, or the URL of an OpenAI-compatible server, http://HOST/v1#MODEL"


class FeedbackConfig(JobConfig):
    """What the jobs have in common: how a model or its server is asked."""

    max_length: int = Field(2048, ge=8, description="tokens of a prompt with what follows it, in this process")
    batch_size: int = Field(16, ge=1, description="prompts or pairs asked about together; each batch is then on disk")
    constitution: str = Field(
        "default", description="default, a YAML file, or anthropic:FOLDER for the published principles"
    )
    form: Literal["chat", "transcript"] = Field(
        "chat", description="chat: messages for a chat model; transcript: a text for a base model to continue"
    )
    concurrency: int = Field(8, ge=1, description="requests to a server under way at once")
    timeout: float = Field(120.0, gt=0, description="seconds until a request to a server counts as failed")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds a server's key")
    cache: bool = Field(True, description="keep answers, and use those kept, in one file for all runs")
    cache_dir: Path | None = Field(None, description="folder of that file; none: the user's cache folder")
    price: Path | None = Field(
        None, description="YAML file with `prompt` and `reply`, money per million tokens, and `currency`"
    )


class LabelConfig(FeedbackConfig):
    """Let a model say which of two responses is better, by the principles of a constitution: soft Comparisons.

    Every pair is asked about in both orders and for several principles. With --check the judge is measured first on
    pairs that people decided, and one that is near chance is refused.
    """

    job = "label"

    model: str = Field(description=f"the judge: {MODEL}")
    data: Paths = Field(
        description="response sets (of `accord sample`) or comparisons, judged anew: JSONL or Parquet", min_length=1
    )
    principles: int = Field(4, ge=1, description="principles each pair is asked about, drawn without replacement")
    preamble: Literal["none", "rlaif"] = Field("none", description="rlaif: the prompt form of Lee et al. 2023")
    cot: bool = Field(False, description="let the model reason first; probabilities are then clamped to 0.40-0.60")
    reasoning_tokens: int = Field(256, ge=1, description="tokens of the reasoning at most")
    pairs_per_prompt: int = Field(1, ge=1, description="pairs drawn from a response set of more than two, at most")
    check: Paths = Field((), description="comparisons that people decided: what the judge is worth is measured on them")
    check_rows: int = Field(200, ge=1, description="of these at most, drawn by hash")
    injection_rows: int = Field(20, ge=0, description="of these, how many measure whether a text talks the judge round")
    accept_weak_judge: bool = Field(False, description="label although the judge is near chance; recorded")
    direct: Literal["none", "1-10"] = Field("none", description="1-10: rate each response alone instead of comparing")
    rubric: Path | None = Field(None, description="rate by the criteria of a YAML file instead of comparing")

    joint: bool = Field(False, description="with --rubric: rate all responses to a prompt in one call, order drawn")

    @property
    def rates(self) -> bool:
        """Whether responses are rated one by one instead of compared."""
        return self.direct != "none" or self.rubric is not None

    @model_validator(mode="after")
    def _check(self) -> LabelConfig:
        if self.direct != "none" and self.rubric is not None:
            raise ValueError('"direct" and "rubric" are two ways to rate; remove one')
        if self.joint and self.rubric is None:
            raise ValueError('"joint" is read with rubric alone; remove it, or give a rubric')
        if self.rates and (self.check or self.preamble != "none"):
            found = "check" if self.check else "preamble"
            raise ValueError(f'"{found}" is read where pairs are compared, not with direct or rubric; remove it')
        return self


class CritiqueConfig(FeedbackConfig):
    """Let a model draft, criticise and revise replies by the principles of a constitution: Demonstrations.

    The supervised stage of Constitutional AI. Every round draws a principle of its own for every prompt; helpful
    answers of the same model are mixed in, so that harmlessness does not eat helpfulness.
    """

    job = "critique"

    model: str = Field(description=f"drafts, and revises unless --critic does: {MODEL}")
    data: Paths = Field(description="red-team prompts: JSONL or Parquet", min_length=1)
    helpful: Paths = Field((), description="ordinary prompts, as many as of data, answered by the same model")
    critic: str | None = Field(None, description="model that criticises and revises; none: the one that drafts")
    rounds: int = Field(4, ge=1, description="rounds of critique and revision")
    rounds_kept: Literal["all", "last"] = Field("all", description="revisions of which rounds become Demonstrations")
    direct: bool = Field(False, description="revise without a critique; nearly as good for large models")
    max_new_tokens: int = Field(256, ge=1, description="tokens of a draft, a critique or a revision at most")
    temperature: float = Field(1.0, ge=0, description="of drafts, critiques and revisions")
    reward: Names = Field((), description="reward models (run folders) that report on every round; none: no report")


class CompareConfig(JobConfig):
    """Compare two models' replies to the same prompts: held-out rewards, refusals, over-refusal, length."""

    job = "compare"

    model: str = Field(description=f"the model in question: {MODEL}")
    baseline: str = Field(description="the model it is compared with: any name of the same kind")
    data: Paths = Field(description="prompts both answer: JSONL or Parquet", min_length=1)
    harmless: Paths = Field((), description="harmless prompts that sound otherwise: what is refused there is too much")
    reward: Names = Field((), description="reward models (run folders) that neither was trained on")
    max_new_tokens: int = Field(128, ge=1, description="tokens of a reply at most")
    temperature: float = Field(0.0, ge=0, description="of the replies; 0 takes the likeliest token")
