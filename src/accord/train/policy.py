"""Reinforcement learning from a reward: PPO with a clipped surrogate, as in InstructGPT.

    sample K responses to each prompt from the policy, score them, and then for a few passes over them
    minimise  mean over tokens of -min(ratio A, clip(ratio) A)  +  c1 * 1/2 (V - G)^2  -  c2 * entropy

The score lands on the last token of a response; every token pays kl_beta times its log-ratio to the reference. A and G
come from generalised advantage estimation, A is whitened over the rollout. Policy and value function share a trunk
unless `critic: separate`. Sources: Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022.

    accord train ppo --model runs/sft --reward runs/reward --data prompts.jsonl --out runs/ppo
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord.data.batches import prompt_ids, step_batches
from accord.losses import kl
from accord.losses import policy as losses
from accord.models.load import load_policy, new_reward_model, resolve
from accord.models.score import prepare, response_scores, score_head, values
from accord.records import Conversation
from accord.rollouts.native import NativeSampler
from accord.text import Template
from accord.train import loop
from accord.train.configs import PpoConfig
from accord.train.experience import Actor, Experience, collect, to_pack
from accord.train.export import save_policy
from accord.train.progress import Bar, Display
from accord.train.rewards import Reward
from accord.train.run import Run
from accord.train.scoring import rows_of
from accord.train.sources import load_rewards
from accord.trees import budget_packs, pack

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
        model, tokenizer = load_policy(config.model)
        template = Template(tokenizer)
        original = None if config.lora_rank else copy.deepcopy(model)
        model, precision = loop.set_up(model, config, run, display)
        actor = make_actor(model, original, config, precision)
        reward = reward or load_rewards(config, template, precision.name)
        limit = loop.length_limit(model, config, display)
        prompts, rows = read_prompts(config, run, template, "data", limit)
        held_out = read_prompts(config, run, template, "eval_data", limit)[0] if config.eval_data else []
        run.begin(model=source.name, model_fingerprint=source.fingerprint, reward=reward.name)

        sampler = NativeSampler(model, end_ids=template.end_ids, tokenizer=tokenizer, autocast=precision.forward)
        updates = config.ppo_epochs * config.minibatches
        rollouts = step_batches(len(prompts), config.batch_size * config.minibatches, config.epochs, config.seed)
        total = len(rollouts) * updates if config.max_steps is None else min(config.max_steps, len(rollouts) * updates)
        rollouts = rollouts[: math.ceil(total / updates)]
        modules = [part for part in (actor.policy, actor.value_head, actor.critic) if part is not None]
        optimiser = loop.make_optimiser(modules, config, [1.0, *[value_scale(config)] * (len(modules) - 1)])
        coefficient = Coefficient(config)
        parts = {"policy": actor.policy, "value": modules[1], "optimiser": optimiser, "coefficient": coefficient}
        start = math.ceil(loop.resume(run, **parts) / updates)
        display.begin(config.algorithm, total, start * updates)
        for number in range(start, len(rollouts)):
            step, before = min((number + 1) * updates, total), number * updates
            loop.seed_step(config.seed, number)
            chosen = [prompts[i] for i in rollouts[number]]
            gather = Gather(actor, reward, sampler, template, config, precision)
            experience = gather(chosen, seed=config.seed * 1_000_003 + number, coefficient=coefficient.value)
            keep_samples(run, step, experience)
            rows_B = [rows[i] for i in rollouts[number]]
            figures = experience.figures | improve(
                experience, actor, optimiser, config, precision, run, number, total, rows_B
            )
            coefficient.adapt(figures["kl__reference"])
            figures["epoch"] = sum(map(len, rollouts[: number + 1])) / len(prompts)
            last = number + 1 == len(rollouts)
            due = step // config.eval_every > before // config.eval_every or last
            if held_out and due:
                figures |= evaluate(held_out, gather, config)
            if watch and due:
                figures |= watch(model, template, precision)
            display.update(step, run.log(step, **figures))
            if step // config.save_every > before // config.save_every or last:
                run.save(step, loop.states(**parts))
        return run.finish(lambda folder: save_policy(model, template, folder, value_head=actor.value_head))


class Coefficient:
    """Weight of the KL penalty: fixed, or adapted to hold the KL at a target (Ziegler et al. 2019, section 2.2)."""

    def __init__(self, config: PpoConfig) -> None:
        self.value, self._target = config.kl_beta, config.kl_target

    def adapt(self, kl_value: float) -> None:
        """After a rollout whose mean KL to the reference was `kl_value` nats per response."""
        if self._target is not None:
            self.value = losses.adapt_kl_proportional(self.value, kl_value, target=self._target)

    def state_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """From a checkpoint."""
        self.value = state["value"]


class Gather:
    """`collect` with everything bound that stays the same in a run."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __call__(self, chosen: Sequence[tuple[Conversation, tuple[int, ...]]], **now: Any) -> Experience:
        """Roll out some prompts."""
        prompts, ids = zip(*chosen, strict=True)
        return collect(prompts, ids, *self.parts, **now)


def make_actor(model: Any, original: Any, config: PpoConfig, precision: loop.Precision) -> Actor:
    """Reference and value function for a policy that is set up; `original` is a copy of it from before."""
    if original is not None:
        prepare(original)
        precision.freeze(original)
    if config.critic == "separate":
        critic, _ = new_reward_model(config.model, seed=config.seed)
        prepare(critic)
        nn.init.zeros_(next(score_head(critic).parameters()))
        return Actor(policy=model, reference=original, value_head=None, critic=critic)
    head = nn.Linear(model.config.get_text_config().hidden_size, 1).to(precision.device)
    nn.init.zeros_(head.weight)  # no opinion yet: the first advantages are the returns
    nn.init.zeros_(head.bias)
    return Actor(policy=model, reference=original, value_head=head, critic=None)


def value_scale(config: PpoConfig) -> float:
    """Learning rate of the value function over that of the policy.

    A fresh head of one row has far to go at a rate meant for a pretrained trunk; a critic starts from such a trunk.
    """
    if config.value_learning_rate is not None:
        return config.value_learning_rate / config.learning_rate
    return 50.0 if config.critic == "shared" else 1.0


def read_prompts(
    config: PpoConfig, run: Run, template: Template, name: str, limit: int
) -> tuple[list[tuple[Conversation, tuple[int, ...]]], list[int]]:
    """Prompts with their ids, with room for a response, and their row numbers.

    Too long ones are cut to `limit` tokens or left out, and counted.
    """
    records: list[Conversation] = loop.read_data(getattr(config, name), "prompts", config, run, name)
    ids, fitted = prompt_ids(records, template, limit, config.max_new_tokens)
    run.manifest[f"{name}_fit"] = fitted.as_dict()
    run.notify(f"{name}: {fitted.kept} of {fitted.rows} prompts, {fitted.cut_prompts} cut, longest {fitted.longest}")
    if not ids:
        raise ValueError(
            f"no prompt of {name} leaves room for {config.max_new_tokens} new tokens within {limit}, the smaller of "
            "--max-length and the model's positions; raise the one or lower --max-new-tokens"
        )
    rows = fitted.kept_rows
    return list(zip([records[row - 1] for row in rows], ids, strict=True)), rows


def improve(
    experience: Experience,
    actor: Actor,
    optimiser: torch.optim.Optimizer,
    config: PpoConfig,
    precision: loop.Precision,
    run: Run,
    number: int,
    total: int,
    rows_B: Sequence[int],
) -> dict[str, float]:
    """The optimiser steps on rollout `number`, made from these rows, of a run of `total` steps; their mean figures."""
    began = time.perf_counter()
    sums: dict[str, float] = {}
    plan = step_batches(len(experience.responses.trees), config.batch_size, config.ppo_epochs, config.seed + number)
    first = number * config.ppo_epochs * config.minibatches
    done, rate, old_kl = 0, 0.0, 0.0
    loop.steady(actor.policy)
    for chosen in plan[: total - first]:
        with precision.forward():
            figures = accumulate(experience, chosen, actor, config)
        old_kl = figures["kl__old"]
        if config.stop_kl is not None and losses.stop_early(old_kl, target=config.stop_kl):
            optimiser.zero_grad(set_to_none=True)
            break
        rate = loop.learning_rate(min(first + done, total - 1), total, config)
        where = loop.place(run, first + done, [rows_B[b] for b in chosen])
        figures["grad_norm"] = loop.optimise(optimiser, rate, config.max_grad_norm, figures["loss"], where)
        sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        done += 1
    means = {name: value / done for name, value in sums.items()} if done else {}
    tokens = sum(tree.length for tree in experience.responses.trees) * done / max(1, config.minibatches)
    seconds = time.perf_counter() - began
    return means | {
        "kl__old": old_kl,
        "learning_rate": rate,
        "updates": float(done),
        "seconds__update": seconds,
        "tokens_per_second": tokens / seconds,
    }


def accumulate(experience: Experience, chosen: Sequence[int], actor: Actor, config: PpoConfig) -> dict[str, float]:
    """Gradient of one optimiser step over some prompts of a rollout; returns its figures, means over tokens."""
    trees = experience.responses.trees
    token_count = int(experience.mask_NT[rows_of(chosen, trees, experience.first_B)].sum())
    sums: dict[str, Tensor] = {}
    for group in budget_packs([trees[b].length for b in chosen], config.micro_tokens):
        loss, parts_T = loss_of(experience, [chosen[i] for i in group], actor, config)
        torch.autograd.backward(loss / token_count)
        for name, value_T in parts_T.items():
            sums[name] = sums.get(name, torch.zeros(())) + value_T.detach().float().cpu()
    return {name: float(value) / token_count for name, value in sums.items()}


def loss_of(
    experience: Experience, trees_of_pack: Sequence[int], actor: Actor, config: PpoConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over a pack's tokens of the PPO objective, and of its parts."""
    device = loop.device_of(actor.policy)
    trees = experience.responses.trees
    rows = rows_of(trees_of_pack, trees, experience.first_B)
    batch = pack([trees[b] for b in trees_of_pack]).to(device)
    old_T, old_value_T, advantage_T, return_T = (
        to_pack(table_NT, experience.mask_NT, rows).to(device)
        for table_NT in (experience.logprob_NT, experience.value_NT, experience.advantage_NT, experience.return_NT)
    )
    wants_entropy = config.entropy_coefficient > 0
    scores = response_scores(
        actor.policy, batch, temperature=config.temperature, entropy=wants_entropy, value_head=actor.value_head
    )
    value_T = scores.value_T if actor.critic is None else values(actor.critic, batch)
    assert value_T is not None
    policy = losses.ppo_clip(scores.logprob_T, old_T, advantage_T, clip=config.clip).sum()
    if config.value_clip is None:
        value = losses.value_loss(value_T, return_T).sum()
    else:
        value = losses.clipped_value_loss(value_T, old_value_T, return_T, clip=config.value_clip).sum()
    entropy = scores.entropy_T.sum() if scores.entropy_T is not None else policy.new_zeros(())
    loss = losses.ppo_total(
        policy, value, entropy, c1=config.value_coefficient, c2=config.entropy_coefficient, form="paper"
    )
    mask_T = torch.ones_like(old_T, dtype=torch.bool)
    clipped = losses.clip_fraction(scores.logprob_T, old_T, advantage_T, mask_T, clip=config.clip) * mask_T.numel()
    moved = kl.k3(old_T, scores.logprob_T).sum()
    parts = {"loss": loss, "loss__policy": policy, "loss__value": value, "clip_fraction": clipped, "kl__old": moved}
    return loss, parts | ({"entropy": entropy} if wants_entropy else {})


def evaluate(held_out: Sequence[Any], gather: Gather, config: PpoConfig) -> dict[str, float]:
    """Reward, KL and length on held-out prompts; the same random numbers each time, so curves are comparable."""
    figures = gather(held_out, seed=config.seed, coefficient=0.0).figures
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
