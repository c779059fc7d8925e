"""What a training job will do and need, told before it: rows, steps, tokens, and memory part by part.

    accord train dpo ... --dry-run

Data are read and fitted by the functions of the real run, its steps and packs are those that it will take; of the model
only the configuration and the tokenizer are read, so a model that is too large for the machine can be asked about.
Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from accord.data.batches import demonstration_trees, preferences, prompt_ids
from accord.data.readers import read
from accord.models import kernels
from accord.models.allocation import memory_available
from accord.models.load import load_tokenizer, resolve
from accord.models.quiet import quiet
from accord.rollouts.places import ROWS, rows_that_fit
from accord.text import Template
from accord.train import loop, memory
from accord.train.algorithms import ALGORITHMS
from accord.train.configs import DpoConfig, PpoConfig, TrainConfig
from accord.train.fisher_memory import memory_needed
from accord.train.memory import Part, Shape
from accord.train.objectives import OBJECTIVES
from accord.train.policy import in_its_arithmetic, plan_rollouts
from accord.trees import Branch, PromptTree, budget_packs

__all__ = ["Case", "Estimate", "Option", "estimate", "parts_of"]


@dataclass(frozen=True)
class Option:
    """A setting that can be changed, and the peak with it, bytes."""

    setting: str
    peak: int
    cost: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is known before the first step.

    Attributes:
        precision: of forward passes.
        device: where.
        notes: what became of the rows, one sentence a file kind.
        steps: optimiser steps.
        rollouts: of prompts, where the job samples; else 0.
        tokens: of all packs of the run, prompts counted once; responses of rollouts as long as they may be.
        largest_pack: tokens of the largest pack.
        parts: of the memory at its peak.
        available: bytes that are free now, for this process in addition to what it has.
        used: bytes the process has now; the first of the parts.
        options: what would lower the peak.
    """

    precision: str
    device: str
    notes: tuple[str, ...]
    steps: int
    rollouts: int
    tokens: int
    largest_pack: int
    parts: tuple[Part, ...]
    available: int
    used: int
    options: tuple[Option, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes of the process at its peak."""
        return sum(part.bytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the peak can be had now."""
        return self.peak - self.used <= self.available


@dataclass(frozen=True, kw_only=True)
class Case:
    """What decides the memory of a job.

    Attributes:
        config: of the job.
        model: without weights, on the meta device.
        shape: of it.
        rewards: names and shapes of the reward models it loads.
        half: whether forward passes run in bfloat16.
        steps: trees of each optimiser step.
        rollout: trees of the largest rollout, where the job samples.
        used: bytes the process has now.
        available: bytes that are free now.
        fused: whether attention is torch's kernel: on an accelerator.
        reads: whether products read float32 matrices as they are: on a CPU with matrix units.
    """

    config: Any
    model: Any
    shape: Shape
    rewards: tuple[tuple[str, Shape], ...]
    half: bool
    steps: list[list[PromptTree]]
    rollout: list[PromptTree]
    used: int
    available: int
    fused: bool
    reads: bool

    def whole(self, config: Any) -> bool:
        """Whether layers are one function under these settings."""
        if config.lora_rank or config.gradient_checkpointing:
            return False
        if isinstance(config, PpoConfig) and ALGORITHMS[config.algorithm].natural:  # second derivatives
            return False
        return self.fused and self.half and self.shape.whole


def estimate(config: TrainConfig) -> Estimate:
    """Read what the job would read, and say what it would take.

    Raises: ValueError: what the real run would refuse before its first step: a model or data that cannot be used.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = in_its_arithmetic(config) if isinstance(config, PpoConfig) else config
    precision = loop.Precision(wanted.precision, device)
    model = _empty(config.model)
    template = Template(load_tokenizer(config.model))
    limit = min(config.max_length, getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9)
    rows, notes = _rows(config, template, limit)
    rollouts, steps = _steps(config, rows)
    job = Case(
        config=config,
        model=model,
        shape=memory.shape_of(model),
        rewards=tuple(_rewards(config)),
        half=precision.name == "bf16",
        steps=steps,
        rollout=max(rollouts, key=lambda trees: sum(tree.length for tree in trees), default=[]),
        used=0 if device.type == "cuda" else psutil.Process().memory_info().rss,
        available=memory_available(device),
        fused=device.type != "cpu",
        reads=precision.name == "bf16" and device.type == "cpu" and kernels.has_tiles(),
    )
    found = Estimate(
        precision=precision.name,
        device=device.type,
        notes=tuple(notes),
        steps=len(steps),
        rollouts=len(rollouts),
        tokens=sum(tree.length for trees in steps for tree in trees),
        largest_pack=memory.largest(_packs(job, config)).tokens,
        parts=tuple(parts_of(job, config)),
        available=job.available,
        used=job.used,
    )
    return replace(found, options=tuple(_options(job, config, found)))


# -- what the run would read -------------------------------------------------------------------------------------------


def _samples(config: TrainConfig) -> bool:
    return isinstance(config, PpoConfig)


def _empty(name: str) -> Any:
    """The model without weights, on the meta device."""
    source = resolve(name)
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(str((source.base or source).path))
        return AutoModelForCausalLM.from_config(config)


def _rewards(config: TrainConfig) -> Iterator[tuple[str, Shape]]:
    """Reward models among the sources; a function of conversations takes what it takes."""
    names = [member.strip() for name in getattr(config, "reward", ()) for member in name.split(",")]
    for name in names:
        if Path(name).exists():
            yield name, memory.shape_of(_empty(name))


def _rows(config: Any, template: Template, limit: int) -> tuple[list[PromptTree], list[str]]:
    """Trees of the training data, and a sentence on each kind of data."""
    notes: list[str] = []
    trees: list[PromptTree] = []
    for name in ("data", "eval_data"):
        if not getattr(config, name):
            continue
        result = read(list(getattr(config, name)), _kind(config), skip_bad_rows=config.skip_bad_rows)
        if result.bad_rows:
            notes.append(f"{name}: {len(result.bad_rows)} bad rows would be set aside")
        if _samples(config):
            prompts, fitted = prompt_ids(result.records, template, limit, config.max_new_tokens)
            response = Branch.response((0,) * config.max_new_tokens)
            found = [PromptTree(prompt, (response,) * config.samples) for prompt in prompts]
            cut = f"{fitted.cut_prompts} cut" if fitted.cut_prompts else "none cut"
            notes.append(f"{name}: {fitted.kept} of {fitted.rows} prompts, {cut}, longest {fitted.longest}")
        elif config.job == "sft":
            found, fitted = demonstration_trees(result.records, template, limit)
            notes.append(f"{name}: {fitted.sentence()}")
        else:
            items, fitted = preferences(result.records, template, limit)
            found = [item.tree for item in items]
            notes.append(f"{name}: {fitted.sentence()}")
        if not found:
            raise ValueError(f"no row of {name} fits into --max-length {config.max_length}; raise it")
        trees = trees or found
    return trees, notes


def _kind(config: TrainConfig) -> Any:
    if isinstance(config, DpoConfig) and OBJECTIVES[config.loss].unpaired:
        return "feedback"
    return {"sft": "demonstration", "ppo": "prompts"}.get(config.job, "preference")


def _steps(config: Any, trees: Sequence[PromptTree]) -> tuple[list[list[PromptTree]], list[list[PromptTree]]]:
    """Rollouts, where the job samples, and the trees of each optimiser step."""
    if not _samples(config):
        return [], [[trees[i] for i in chosen] for chosen in loop.plan(len(trees), config)]
    plan = plan_rollouts(len(trees), config)
    rollouts = [[trees[i] for i in chosen] for chosen in plan.rollouts]
    steps = []
    for number, rollout in enumerate(rollouts):
        size = config.batch_size
        batches = [rollout[at : at + size] for at in range(0, len(rollout), size)] * (config.ppo_epochs or 1)
        steps += batches[: len(plan.steps(number))]
    return rollouts, steps


# -- what it would take ------------------------------------------------------------------------------------------------


def _packs(job: Case, config: Any) -> list[list[PromptTree]]:
    """Every pack of the run, as the settings cut its steps."""
    packs = []
    for trees in job.steps:
        groups = budget_packs([tree.length for tree in trees], config.micro_tokens)
        packs += [[trees[i] for i in group] for group in groups]
    return packs


def parts_of(job: Case, config: Any) -> Iterator[Part]:
    """Parts of the memory of a case under settings that may differ from its own in what changes memory alone."""
    parts = list(_parts(job, config))
    yield from parts
    tensors = sum(part.bytes for part in parts if part.name != "process")
    yield Part("allocator", int(memory.SCATTERED * tensors), "free pieces between those in use")


def _parts(job: Case, config: Any) -> Iterator[Part]:
    shape, half, pack = job.shape, job.half, memory.largest(_packs(job, config))
    head = config.job != "reward"
    if not head:
        shape = _without_head(job.shape)
    if job.used:
        yield Part("process", job.used, "Python and its libraries, measured now")
    whole = job.whole(config)
    yield from memory.state_parts(shape, config.lora_rank, half, head=head, reads=job.reads, whole=whole)
    if _samples(config):
        yield from _frozen(job, config)
    kept = memory.activation_bytes(shape, pack, half, config.gradient_checkpointing, fused=job.fused, whole=whole)
    kept += memory.laid_bytes(shape, pack, half) if job.fused else memory.score_bytes(shape, pack)
    update = [Part("activations", kept, f"of a pack of {pack.tokens:,} tokens, longest tree {pack.longest:,}")]
    if head:
        needed = memory.head_bytes(shape, pack, half, trained=not config.lora_rank, fused=job.fused)
        update.append(Part("vocabulary head", needed, f"{shape.vocabulary:,} entries, {pack.scored:,} scored tokens"))
    if not _samples(config):
        yield from update
        return
    if ALGORITHMS[config.algorithm].natural:
        lengths = [len(tree.prompt) for tree in job.rollout]
        update = [Part("Fisher products", memory_needed(job.model, lengths, config), "graph of a second derivative")]
    columns = max(tree.longest for tree in job.rollout)
    places = rows_that_fit(job.model.config, columns, job.available) if job.fused else ROWS
    rows = min(places, len(job.rollout) * config.samples)
    needed = memory.sampling_bytes(shape, rows, columns, half, adapters=bool(config.lora_rank), fused=job.fused)
    sampling = Part("sampler", needed, f"{rows} rows of {columns} tokens")
    # A rollout is sampled before its updates: only the larger of both is needed at once.
    yield from update if sum(part.bytes for part in update) >= sampling.bytes else [sampling]


def _frozen(job: Case, config: PpoConfig) -> Iterator[Part]:
    """Models beside the policy."""
    if not config.lora_rank:
        size = memory.frozen_bytes(job.shape, job.half)
        yield Part("reference", size, "a frozen copy" + (", matrices in bf16" if job.half else ""))
    for name, shape in job.rewards:
        yield Part("reward model", memory.frozen_bytes(_without_head(shape), job.half), f"{name}, frozen")
    if config.critic == "separate" and ALGORITHMS[config.algorithm].fits_values(config):
        how = {"reads": job.reads, "whole": job.whole(config)}
        critic = memory.state_parts(_without_head(job.shape), 0, job.half, head=False, **how)
        size = sum(part.bytes for part in critic)
        yield Part("critic", size, "a value model with gradients and moments")


def _without_head(shape: Shape) -> Shape:
    """Of a classifier on the same trunk: an untied output matrix is gone."""
    return shape if shape.tied else Shape(**{**vars(shape), "parameters": shape.parameters - shape.head})


def _options(job: Case, config: Any, found: Estimate) -> Iterator[Option]:
    """Settings that lower the peak by a twentieth at least, one at a time; those that keep the result come first."""
    changes: list[tuple[dict[str, Any], str]] = []
    if config.micro_tokens > 256 and found.largest_pack > 256:
        for size in (found.largest_pack // 2, found.largest_pack // 4):
            if size >= 128:
                changes.append(({"micro_tokens": 2 ** (size.bit_length() - 1)}, "same result, smaller products"))
    if not config.gradient_checkpointing:
        changes.append(({"gradient_checkpointing": True}, "same result, a third slower"))
    if not config.lora_rank:
        changes.append(({"lora_rank": 16}, "another method: adapters are trained, the model stays"))
    if getattr(config, "critic", None) == "separate":
        changes.append(({"critic": "shared"}, "another method: value function on the policy's trunk"))
    lowest: dict[str, int] = {}
    for change, cost in changes:
        (name,) = change
        peak = sum(part.bytes for part in parts_of(job, config.model_copy(update=change)))
        if peak - job.used < 0.95 * (lowest.get(name, found.peak) - job.used):
            lowest[name] = peak
            yield Option(" ".join(map(_flag, change.items())), peak, cost)


def _flag(change: tuple[str, Any]) -> str:
    name = "--" + change[0].replace("_", "-")
    return name if change[1] is True else f"{name} {change[1]}"
