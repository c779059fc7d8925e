"""What the checkpoints of runs say to the same held-out prompts, and how far they are from the model they started from.

A run's checkpoints are the models in its kept/ (see --keep-every) and its finished model/. All answer the same prompts
with the same random numbers, at temperature 1, nothing cut off. The KL of a response is the sum over its tokens of
log pi - log pi_ref, whose mean over samples of pi is the KL to the reference, in nats per response.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from accord.pipelines.evaluation import EvalConfig, Items, key_of, measured, model_facts
from accord.pipelines.judged import Judged
from accord.pipelines.settings import SettingsError
from accord.records import Conversation
from accord.train.configs import FREE_TO_CHANGE, Paths
from accord.train.progress import Display

__all__ = ["REFERENCE", "Checkpoint", "Sampled", "SampledConfig", "checkpoints_of", "sample_all", "scored_sets"]

REFERENCE = "reference"


class SampledConfig(EvalConfig):
    """What every evaluation takes that samples from the checkpoints of runs."""

    runs: Paths = Field(min_length=1, description="run folders: all their checkpoints are evaluated")
    data: Paths = Field(min_length=1, description="held-out prompts: JSONL (.gz too) or Parquet")
    gold: str | None = Field(
        None, description="what counts: a reward nobody trained on; reward-model folder(s) or module:function"
    )
    proxy: str | None = Field(None, description="what was optimised: likewise; with gold, both are compared")
    reference: str | None = Field(None, description="model that KL is measured to; none: the one the runs started from")
    samples: int = Field(1, ge=1, description="responses per prompt and checkpoint")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a response at most")
    max_prompts: int | None = Field(None, ge=2, description="the first so many prompts only; none: all")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of all models")
    micro_tokens: int = Field(4096, ge=16, description="token budget of one forward pass; memory, never the result")
    max_length: int = Field(1024, ge=8, description="tokens of a prompt with its response")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on the way of a run: `Checkpoint(run="ppo-0.1", method="ppo-clip", step=40, folder=...)`.

    The reference itself is the checkpoint of step 0 of a run called "reference". Runs of one `family` differ in nothing
    but their seed.
    """

    run: str
    method: str
    step: int
    folder: str
    family: str = ""

    @property
    def label(self) -> str:
        """How it is called in results."""
        return self.run if self.run == REFERENCE else f"{self.run} step {self.step}"


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The responses of a checkpoint: K to each of P prompts.

    Attributes:
        checkpoint: which.
        sets: P prompts with responses; which of them ended on their own is in `finished`.
        kl_PK: nats, of each response.
        length_PK: tokens, of each response.
    """

    checkpoint: Checkpoint
    sets: list[Judged]
    kl_PK: list[list[float]]
    length_PK: list[list[int]]


def checkpoints_of(runs: Sequence[Path]) -> list[Checkpoint]:
    """All checkpoints of some finished runs, by run and step.

    Raises: SettingsError: a folder that is no finished policy run, or two of one name.
    """
    found: list[Checkpoint] = []
    names = [run.resolve().name for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            raise SettingsError(f"{run}: two runs are called {name}; results name runs by their folder, so rename one")
        if not run.is_dir():
            raise SettingsError(f"{run}: no such folder; expected a run of `accord train sft`, `dpo` or `ppo`")
        manifest = _json(run / "manifest.json")
        if not (run / "model").is_dir() or manifest.get("job") not in ("sft", "dpo", "ppo"):
            raise SettingsError(f"{run}: expected a finished run of `accord train sft`, `dpo` or `ppo`")
        method, family = _method(run, str(manifest["job"])), _family(run)
        for kept in sorted((run / "kept").glob("step-*")):
            found.append(Checkpoint(run=name, method=method, step=int(kept.name[5:]), folder=str(kept), family=family))
        found.append(Checkpoint(run=name, method=method, step=_last_step(run), folder=str(run), family=family))
    return found


def reference_of(config: SampledConfig) -> str:
    """The model all runs started from, unless the settings name one.

    Raises: SettingsError: they started from different models.
    """
    if config.reference is not None:
        return config.reference
    starts = {str(_json(run / "manifest.json").get("model_fingerprint")): run for run in config.runs}
    if len(starts) > 1:
        raise SettingsError(
            f"{' and '.join(map(str, starts.values()))} started from different models, so their KL is not to one "
            "reference; give --reference"
        )
    return str(_settings(config.runs[0])["model"])


def sample_all(
    config: SampledConfig, prompts: Sequence[Conversation], items: Items, display: Display
) -> tuple[list[str], list[Sampled], list[dict[str, Any]]]:
    """Responses and KL of the reference and of every checkpoint: keys of the rows, what was said, facts of the models.

    The reference is the first. A checkpoint whose rows are on disk is not loaded.
    """
    from accord.models.load import resolve

    checkpoints = checkpoints_of(config.runs)  # first: it tells what is no run
    name = reference_of(config)
    reference = resolve(name)
    all_of_them = [Checkpoint(run=REFERENCE, method=REFERENCE, step=0, folder=name), *checkpoints]
    keys: list[str] = []
    sampled, facts = [], []
    for number, checkpoint in enumerate(all_of_them, 1):
        source = resolve(checkpoint.folder)
        settings = [config.samples, config.max_new_tokens, config.max_length, config.precision, config.seed]
        own = [
            key_of(source.fingerprint, reference.fingerprint, [message.model_dump() for message in prompt], settings)
            for prompt in prompts
        ]
        sampler = _Sampler(checkpoint.folder, name, config)
        title = f"{checkpoint.label} ({number} of {len(all_of_them)})"
        rows = measured(items, own, lambda chosen, ask=sampler: ask([prompts[at] for at in chosen]), display, title)  # type: ignore[misc]
        keys += own
        facts.append(model_facts(checkpoint.label, source.name, source.fingerprint))
        sampled.append(_sampled(checkpoint, prompts, rows))
    return keys, sampled, facts


def scored_sets(sampled: Sequence[Sampled]) -> list[Judged]:
    """The sets of all checkpoints in a row, to be scored at once."""
    return [one for part in sampled for one in part.sets]


class _Sampler:
    """Samples from a checkpoint and asks both models for log-probabilities; loads them when first asked."""

    def __init__(self, folder: str, reference: str, config: SampledConfig) -> None:
        self.folder, self.reference, self.config = folder, reference, config
        self.parts: tuple[Any, ...] | None = None

    def __call__(self, prompts: Sequence[Conversation]) -> list[dict[str, Any]]:
        """A row per prompt."""
        from accord.data.batches import prompt_ids
        from accord.rollouts import Sampling
        from accord.train.experience import as_responses
        from accord.train.scoring import all_sequence_logprobs

        policy, reference, template, precision, sampler = self.parts or self._load()
        config, rows = self.config, []
        kept, fitted = prompt_ids(prompts, template, config.max_length, config.max_new_tokens)
        places = [number - 1 for number in fitted.kept_rows]
        sampling = Sampling(samples=config.samples, max_new_tokens=config.max_new_tokens, seed=config.seed)
        rollouts = sampler.sample(kept, sampling, [_stream(ids) for ids in kept])
        responses = as_responses([prompts[at] for at in places], kept, rollouts, template)
        own_N, reference_N = (
            all_sequence_logprobs(which, responses.trees, precision, config.micro_tokens).tolist() if kept else []
            for which in (policy, reference)
        )
        K = config.samples
        for at, ids in enumerate(kept):
            part = slice(at * K, at * K + K)
            rows.append(
                {
                    "prompt_tokens": len(ids),
                    "responses": responses.texts_BK[at],
                    "finished": responses.finished_BK[at],
                    "lengths": [len(rollout.tokens) for rollout in rollouts[at]],
                    "kl": [own - other for own, other in zip(own_N[part], reference_N[part], strict=True)],
                }
            )
        by_place = dict(zip(places, rows, strict=True))
        lost = {"responses": [], "finished": [], "lengths": [], "kl": [], "error": "the prompt leaves no room"}
        return [by_place.get(at, lost) for at in range(len(prompts))]

    def _load(self) -> tuple[Any, ...]:
        from accord.models.load import load_policy
        from accord.models.score import prepare
        from accord.rollouts.native import NativeSampler
        from accord.text import Template
        from accord.train.loop import Precision, device_of

        policy, tokenizer = load_policy(self.folder)
        template, precision = Template(tokenizer), Precision(self.config.precision, device_of(policy))
        models = [policy]
        if self.reference != self.folder:
            models.append(load_policy(self.reference)[0])
        for model in models:
            prepare(model)
            precision.freeze(model)
        sampler = NativeSampler(policy, end_ids=template.end_ids, autocast=precision.forward, max_rows=64)
        self.parts = (policy, models[-1], template, precision, sampler)
        return self.parts


def _sampled(checkpoint: Checkpoint, prompts: Sequence[Conversation], rows: Sequence[dict[str, Any]]) -> Sampled:
    kept = [(prompt, row) for prompt, row in zip(prompts, rows, strict=True) if row["responses"]]
    return Sampled(
        checkpoint=checkpoint,
        sets=[
            Judged(
                prompt=prompt,
                responses=tuple(row["responses"]),
                ranks=(1,) * len(row["responses"]),
                finished=tuple(row["finished"]),
            )
            for prompt, row in kept
        ],
        kl_PK=[row["kl"] for _, row in kept],
        length_PK=[row["lengths"] for _, row in kept],
    )


def _stream(ids: Sequence[int]) -> int:
    """Random numbers that belong to a prompt, wherever it stands among others."""
    return int.from_bytes(hashlib.sha256(repr(tuple(ids)).encode()).digest()[:7], "big")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _settings(run: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((run / "config.yaml").read_text(encoding="utf8")))


def _method(run: Path, job: str) -> str:
    """The objective a run was trained with, such as `ppo-clip`; runs of one method are one family of the frontier."""
    settings = _settings(run)
    return str(settings.get({"dpo": "loss", "ppo": "algorithm"}.get(job, ""), job))


def _family(run: Path) -> str:
    """Hash of the settings but the seed and what decides no number."""
    free = FREE_TO_CHANGE | {"seed"}
    return key_of({name: value for name, value in _settings(run).items() if name not in free})


def _last_step(run: Path) -> int:
    """Optimiser steps of a finished run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0
