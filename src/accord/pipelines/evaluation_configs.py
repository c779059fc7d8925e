"""What `accord eval truthfulness`, `toxicity` and `tasks` take. No torch: the command line reads this for its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from accord.pipelines.evaluation import EvalConfig

__all__ = ["ModelEvaluation", "TasksConfig", "ToxicityConfig", "TruthfulnessConfig"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
MODEL = "run, model folder, hub id, wheel:NAME, or http(s)://host/v1#model of a server"


class ModelEvaluation(EvalConfig):
    """What every evaluation of a language model takes."""

    limit: int | None = Field(None, ge=1, description="items at most, a random choice fixed by the seed; none: all")
    batch_size: int = Field(16, ge=1, description="items asked for together and written before the next ones")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of a model in this process")


class TruthfulnessConfig(ModelEvaluation):
    """TruthfulQA: does a model think true answers likelier than false ones (MC0 to MC3), and does it say true things.

    The multiple-choice figures need log-probabilities. With --judge the model also answers in its own words, and truth,
    information and both together are what two judges say that --train-judge trained.
    """

    model: str | None = Field(None, description=MODEL)
    data: Path | None = Field(None, description="questions: JSONL with mc0_targets, mc1_targets, mc2_targets")
    primer: Path | None = Field(None, description="text of question-answer pairs in front of each question; none: ours")
    judge: Path | None = Field(None, description="folder of trained judges; given, answers are generated and judged")
    max_new_tokens: int = Field(50, ge=1, description="tokens of a generated answer at most")
    train_judge: Paths = Field(
        (), description="judge_truth.jsonl and judge_info.jsonl: train the judges of --judge first"
    )
    check_judge: Path | None = Field(
        None, description="answers with published scores (question, answer, true, info) to hold the judges against"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TruthfulnessConfig:
        if (self.model is None) != (self.data is None):
            raise ValueError("model and data go together: give both, or neither to train judges only")
        if self.train_judge and (self.judge is None or len(self.train_judge) != 2):
            raise ValueError("train_judge takes two files, of truth and of information, and needs the folder judge")
        if self.model is None and not self.train_judge:
            raise ValueError("nothing to do; give model and data, or train_judge")
        return self


class ToxicityConfig(ModelEvaluation):
    """RealToxicityPrompts: how toxic continuations get, by a local scorer.

    The published protocol samples 25 continuations of at most 20 tokens at top-p .9 and scores the continuation alone.
    With --train-scorer the scorer is trained first, and its quality is reported.
    """

    model: str | None = Field(None, description=MODEL)
    data: Path | None = Field(None, description="prompts: rows of RealToxicityPrompts, or of a prompt alone")
    scorer: str | None = Field(
        None, description="linear:FOLDER, detoxify, detoxify:MODEL, run:FOLDER of a reward model, or module:function"
    )
    samples: int = Field(25, ge=1, description="continuations per prompt (K); the published figures have 25")
    max_new_tokens: int = Field(20, ge=1, description="tokens of a continuation at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus that is sampled from")
    threshold: float = Field(0.5, ge=0, le=1, description="score from which on a continuation counts as toxic")
    instruction: Literal["none", "respectful", "biased"] = Field(
        "none", description="what stands in front of the prompt: nothing, or a request to be one or the other"
    )
    chat: bool = Field(False, description="ask in a chat message, as instruction-tuned models expect")
    train_scorer: Paths = Field(
        (), description="scored texts to train linear:FOLDER on first (RealToxicityPrompts, or rows of text, toxicity)"
    )
    check_scorer: Path | None = Field(
        None, description="samples with published scores (sample or text, toxicity) to hold the scorer against"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ToxicityConfig:
        if (self.model is None) != (self.data is None):
            raise ValueError("model and data go together: give both, or neither to train or check a scorer only")
        if self.scorer is None:
            raise ValueError("scorer is missing; for example --scorer linear:runs/toxicity-scorer")
        if self.train_scorer and not self.scorer.startswith("linear:"):
            raise ValueError(f"train_scorer trains a linear scorer, found scorer {self.scorer}; give linear:FOLDER")
        if self.model is None and not self.train_scorer and self.check_scorer is None:
            raise ValueError("nothing to do; give model and data, train_scorer, or check_scorer")
        return self


class TasksConfig(ModelEvaluation):
    """Tasks with known answers: accuracy by task and cluster, and the alignment tax between two models.

    Items are the rows that `accord data convert` writes, zero-shot or with the exemplars it was asked for. Options are
    scored by log-probability; what has no options is answered greedily and matched. With two models every item is put
    to both, and differences are paired.
    """

    models: Names = Field(description="one model, or BEFORE and AFTER: " + MODEL, min_length=1, max_length=2)
    data: Paths = Field((), description="items: files of `accord data convert`, test/ or held-out/")
    per_task: int | None = Field(100, ge=1, description="items of a task at most, a fixed random choice; none: all")
    chat: bool = Field(False, description="ask in a chat message, as instruction-tuned models expect")
    max_new_tokens: int = Field(32, ge=1, description="tokens of a written answer at most")
    lm_eval: Names = Field((), description="tasks of lm-evaluation-harness beside ours, where it is installed")
    lm_eval_path: Path | None = Field(None, description="folder of further task files of the harness")

    @model_validator(mode="after")
    def _consistent(self) -> TasksConfig:
        if not self.data and not self.lm_eval:
            raise ValueError("nothing to ask; give data, lm_eval, or both")
        if self.lm_eval_path is not None and not self.lm_eval:
            raise ValueError("lm_eval_path is read only with lm_eval; give that, or remove it")
        return self
