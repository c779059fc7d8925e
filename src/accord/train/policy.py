"""Reinforcement learning from a reward: PPO as in InstructGPT, its penalised form, TRPO, REINFORCE, RLOO and GRPO.

    sample K responses to each prompt from the policy, score them, make advantages of the scores, improve the policy

The score lands on the last token of a response; every token pays kl_beta times its KL to the reference, in its reward
or in the loss. How advantages are made, what the loss of a token is and how losses are averaged is the algorithm's
(`algorithms.py`); the steps are in `updates.py`, TRPO's in `trust_region.py`. Policy and value function, where there is
one, share a trunk unless `critic: separate`. Formulas and sources: `methods.py`.

    accord train ppo --model runs/sft --reward runs/reward --data prompts.jsonl --out runs/ppo
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import nn
from torch.profiler import record_function

from accord.data.batches import prompt_ids, step_batches
from accord.models.load import load_policy, new_reward_model, resolve
from accord.models.score import prepare, score_head
from accord.records import Conversation
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.train import inputs, loop, trust_region, updates
from accord.train.algorithms import ALGORITHMS, Coefficients, kl_in_reward
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, Experience, collect
from accord.train.export import save_policy
from accord.train.fisher_memory import require_memory
from accord.train.methods import method
from accord.train.progress import Bar, Display
from accord.train.ptx import ptx_of
from accord.train.rewards import Reward
from accord.train.run import Run
from accord.train.sources import load_rewards

__all__ = ["run"]


def run(
    config: PpoConfig,
    display: Display | None = None,
    reward: Reward | None = None,
    watch: loop.Watch | None = None,
) -> Path:
    """Train, or continue, or find finished; returns the run folder.

    Args:
        config: the job.
        display: where to show progress.
        reward: a reward object to use in place of the one `config.reward` names.
        watch: further figures of the live model, asked for every `eval_every` steps.
    """
    display = display or Bar()
    with loop.showing(display), Run("ppo", config, notify=display.note) as run:
        if run.finished:
            display.note(f"{run.folder} is finished")
            return run.folder
        source = resolve(config.model)
        records = inputs.read_files(config, run, data="prompts", eval_data="prompts", ptx_data="corpus")
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        original = None if config.lora_rank else copy.deepcopy(model)
        model, precision = loop.set_up(model, in_its_arithmetic(config), run, display)
        actor = make_actor(model, original, config, precision)
        reward = reward or load_rewards(config, template, precision.name)
        limit = inputs.length_limit(model, config, display)
        prompts, rows = fit_prompts(records, "data", config, run, template, limit)
        held_out = fit_prompts(records, "eval_data", config, run, template, limit)[0] if config.eval_data else []
        ptx = ptx_of(records["ptx_data"], config, run, template, limit) if config.ptx_data else None
        explain(config, display)
        run.begin(model=source.name, model_fingerprint=source.fingerprint, reward=reward.name)

        sampler = NativeSampler(model, end_ids=template.end_ids, tokenizer=tokenizer, autocast=precision.forward)
        plan = plan_rollouts(len(prompts), config)
        optimiser, state = make_optimiser(actor, config)
        coefficients = Coefficients(config)
        state |= {"optimiser": optimiser, "coefficients": coefficients}
        parts = updates.Parts(
            actor=actor,
            optimiser=optimiser,
            config=config,
            precision=precision,
            coefficients=coefficients,
            ptx=ptx,
            run=run,
            total=plan.total,
        )
        gather = Gather(actor, reward, sampler, template, config, precision)
        improve = updates.improve
        if ALGORITHMS[config.algorithm].natural:
            improve = trust_region.improve
            require_memory(model, [len(ids) for _, ids in prompts], config)
        done = loop.resume(run, **state)
        display.begin(config.algorithm, plan.total, done)
        for number in loop.steps_of(plan.finished(done), len(plan.rollouts), config, run, precision, display):
            steps, chosen = plan.steps(number), plan.rollouts[number]
            loop.seed_step(config.seed, number)
            experience = gather(
                [prompts[i] for i in chosen], seed=config.seed * 1_000_003 + number, coefficient=coefficients.kl
            )
            keep_samples(run, steps.stop, experience)
            figures = improve(parts, experience, number, steps, [rows[i] for i in chosen])
            figures = experience.figures | figures
            coefficients.adapt(figures["kl__reference"], figures.get("kl__moved"))
            figures["epoch"] = sum(map(len, plan.rollouts[: number + 1])) / len(prompts)
            if plan.due(number, config.eval_every):
                figures |= evaluate(held_out, gather, config.seed) if held_out else {}
                figures |= watch(model, template, precision) if watch else {}
            display.update(steps.stop, run.log(steps.stop, **figures))
            if plan.due(number, config.save_every):
                run.save(steps.stop, loop.states(**state))
            if config.keep_every and plan.due(number, config.keep_every) and steps.stop < plan.total:
                run.keep(steps.stop, lambda folder: save_policy(model, template, folder, live=True))
        return run.finish(lambda folder: save_policy(model, template, folder, value_head=actor.value_head))


@dataclass(frozen=True)
class Plan:
    """What the rollouts of a run are made of, and which optimiser steps follow each.

    Attributes:
        rollouts: numbers of the prompts of each.
        ends: optimiser steps behind each one, as planned: an early stop leaves some out.
    """

    rollouts: list[list[int]]
    ends: list[int]

    @property
    def total(self) -> int:
        """Optimiser steps of the run."""
        return self.ends[-1]

    def steps(self, number: int) -> range:
        """The steps of a rollout, from 0 in the run."""
        return range(self.ends[number - 1] if number else 0, self.ends[number])

    def finished(self, step: int) -> int:
        """Number of rollouts that are done after so many steps."""
        return sum(end <= step for end in self.ends)

    def due(self, number: int, every: int) -> bool:
        """Whether a rollout passes a multiple of `every` steps, or is the last."""
        steps = self.steps(number)
        return steps.stop // every > steps.start // every or steps.stop == self.total


def plan_rollouts(count: int, config: PpoConfig) -> Plan:
    """The rollouts of a run over `count` prompts; the last of an epoch may be short, and then takes fewer steps."""
    rollouts = step_batches(count, config.batch_size * (config.minibatches or 1), config.epochs, config.seed)
    steps = [-(-len(chosen) // config.batch_size) * (config.ppo_epochs or 1) for chosen in rollouts]
    ends = list(accumulate(steps))
    total = ends[-1] if config.max_steps is None else min(config.max_steps, ends[-1])
    kept = sum(end - taken < total for end, taken in zip(ends, steps, strict=True))
    return Plan(rollouts[:kept], [min(end, total) for end in ends[:kept]])


class Gather:
    """`collect` with everything bound that stays the same in a run."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __call__(self, chosen: Sequence[tuple[Conversation, tuple[int, ...]]], **now: Any) -> Experience:
        """Roll out some prompts."""
        prompts, ids = zip(*chosen, strict=True)
        return collect(prompts, ids, *self.parts, **now)


def in_its_arithmetic(config: PpoConfig) -> PpoConfig:
    """Natural-gradient steps need float32 where the choice is free: products of the Fisher matrix are lost in bf16."""
    natural = ALGORITHMS[config.algorithm].natural
    return config.model_copy(update={"precision": "fp32"}) if natural and config.precision == "auto" else config


def explain(config: PpoConfig, display: Display) -> None:
    """Say where readings of the method differ, and what is known to be biased."""
    if note := method("ppo", config.algorithm).note:
        display.note(f"{config.algorithm}: {note}")
    if ALGORITHMS[config.algorithm].natural and config.precision == "auto":
        display.note(f"{config.algorithm}: fp32, because products of the Fisher matrix are lost in bf16")
    if config.kl_beta and kl_in_reward(config) in ("k2", "k3"):
        display.note(f"kl_estimator {config.kl_estimator} in the reward is a biased gradient of the KL; k1 is not")
    if config.kl_beta and config.kl_place != "reward" and (config.whiten_advantages or config.scale_advantages):
        name = "whiten_advantages" if config.whiten_advantages else "scale_advantages"
        also = ", so the two halves of kl_place both have different weights" if config.kl_place == "both" else ""
        display.note(f"{name}: advantages are divided by their deviation, the KL in the loss is not{also}")


def make_actor(model: Any, original: Any, config: PpoConfig, precision: loop.Precision) -> Actor:
    """Reference and value function for a policy that is set up; `original` is a copy of it from before."""
    if original is not None:
        prepare(original)
        precision.freeze(original)
    if not ALGORITHMS[config.algorithm].fits_values(config):
        return Actor(policy=model, reference=original, value_head=None, critic=None)
    if config.critic == "separate":
        critic, _ = new_reward_model(config.model, seed=config.seed)
        prepare(critic)
        nn.init.zeros_(next(score_head(critic).parameters()))
        return Actor(policy=model, reference=original, value_head=None, critic=critic)
    head = nn.Linear(model.config.get_text_config().hidden_size, 1).to(precision.device)
    nn.init.zeros_(head.weight)  # no opinion yet: the first advantages are the returns
    nn.init.zeros_(head.bias)
    return Actor(policy=model, reference=original, value_head=head, critic=None)


def make_optimiser(actor: Actor, config: PpoConfig) -> tuple[Any, dict[str, Any]]:
    """AdamW over what moves by plain gradients, and the modules whose state a checkpoint needs, by name."""
    natural, modules = ALGORITHMS[config.algorithm].natural, {"policy": actor.policy}
    if actor.value_function is not None:
        modules["value"] = actor.value_function
    moved = {name: part for name, part in modules.items() if name == "value" or not natural}
    scales = [value_scale(config) if name == "value" else 1.0 for name in moved]
    return loop.make_optimiser(list(moved.values()), config, scales), modules


def value_scale(config: PpoConfig) -> float:
    """Learning rate of the value function over that of the policy.

    A fresh head of one row has far to go at a rate meant for a pretrained trunk; a critic starts from such a trunk.
    """
    if config.value_learning_rate is not None:
        return config.value_learning_rate / config.learning_rate
    return 50.0 if config.critic == "shared" else 1.0


def fit_prompts(
    records: Mapping[str, list[Conversation]], name: str, config: PpoConfig, run: Run, template: Template, limit: int
) -> tuple[list[tuple[Conversation, tuple[int, ...]]], list[int]]:
    """Prompts with their ids, with room for a response, and their row numbers.

    Too long ones are cut to `limit` tokens or left out, and counted.
    """
    ids, fitted = prompt_ids(records[name], template, limit, config.max_new_tokens)
    run.manifest[f"{name}_fit"] = fitted.as_dict()
    run.notify(f"{name}: {fitted.kept} of {fitted.rows} prompts, {fitted.cut_prompts} cut, longest {fitted.longest}")
    if not ids:
        raise ValueError(
            f"no prompt of {name} leaves room for {config.max_new_tokens} new tokens within {limit}, the smaller of "
            "--max-length and the model's positions; raise the one or lower --max-new-tokens"
        )
    rows = fitted.kept_rows
    return list(zip([records[name][row - 1] for row in rows], ids, strict=True)), rows


@record_function("accord.evaluation")
def evaluate(held_out: Sequence[Any], gather: Gather, seed: int) -> dict[str, float]:
    """Reward, KL and length on held-out prompts; the same random numbers each time, so curves are comparable."""
    figures = gather(held_out, seed=seed, coefficient=0.0, step_follows=False).figures
    return {f"eval__{name}": figures[name] for name in ("reward__mean", "kl__reference", "length__mean")}


def keep_samples(run: Run, step: int, experience: Experience) -> None:
    """The first response of the first two prompts of a rollout."""
    for b in range(min(2, len(experience.responses.trees))):
        run.sample(
            step,
            prompt=experience.responses.prompts[b][-1].content,
            response=experience.responses.texts_BK[b][0],
            reward=float(experience.score_N[experience.first_B[b]]),
        )
