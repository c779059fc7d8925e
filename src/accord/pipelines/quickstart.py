"""The whole loop on a small real model: the controlled-sentiment experiment of the RLHF and DPO papers.

    sample K responses to film-review prompts -> a gold reward nobody trains on ranks them
    -> SFT on the best -> reward model on the rankings -> PPO against that reward model, DPO on the rankings
    -> evaluation of base, SFT, PPO and DPO on held-out prompts -> report.html

Every stage leaves its result in the run folder and is skipped when it is there: a killed run goes on where it was.

    accord quickstart --out runs/quickstart
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from accord.pipelines.held_out import Responder, gold_rewards
from accord.pipelines.quickstart_config import FAST, FULL, QuickstartConfig, Recipe
from accord.pipelines.quickstart_results import evaluate, summarise
from accord.pipelines.stages_display import StagesDisplay
from accord.records import Conversation, Message
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig
from accord.train.progress import Display

__all__ = ["STAGES", "read_prompts", "run"]

STAGES = {
    "rollouts": "sample responses to film-review prompts; sentiment (VADER) ranks them",
    "sft": "fine-tune on the best response to each prompt",
    "reward": "train a reward model on the rankings",
    "ppo": "reinforcement learning from SFT against the reward model",
    "dpo": "direct preference optimisation from SFT on the same rankings",
    "evaluation": "base, SFT, PPO and DPO answer held-out prompts",
}


def run(config: QuickstartConfig, display: StagesDisplay) -> dict[str, Any]:
    """Run, or continue, or find finished; returns what is in summary.json."""
    from accord.models.load import resolve
    from accord.train.run import take

    recipe = FAST if config.fast else FULL
    out = config.out
    source = resolve(config.model)  # a wrong name must not bind the folder
    out.mkdir(parents=True, exist_ok=True)
    with take(out):
        return _run(config, recipe, display, source.fingerprint)


def _run(config: QuickstartConfig, recipe: Recipe, display: StagesDisplay, fingerprint: str) -> dict[str, Any]:
    """The stages, in a folder that nobody else is using."""
    from accord.evaluate.report import write_report
    from accord.train.run import settle_config, write_text

    out = config.out
    settle_config(out, {"job": "quickstart", **config.model_dump(mode="json")})
    settle_manifest(out, config, {"model_fingerprint": fingerprint, "recipe": vars(recipe)})

    clock = Clock(out, display)
    clock.time("rollouts", lambda: sample_and_rank(config, recipe, display))
    clock.time("sft", lambda: train_sft(config, recipe, display))
    clock.time("reward", lambda: train_reward(config, recipe, display))
    clock.time("ppo", lambda: train_ppo(config, recipe, display))
    clock.time("dpo", lambda: train_dpo(config, recipe, display))
    held_out = read_prompts("held-out", recipe)
    clock.time("evaluation", lambda: evaluate(config, recipe, held_out, display), makes=out / "evaluation.jsonl")
    summary = summarise(config, clock.seconds, clock.peak_memory_gb)
    write_text(out / "summary.json", json.dumps(summary, indent=2))
    write_report(out)
    return summary


def settle_manifest(out: Path, config: QuickstartConfig, facts: dict[str, Any]) -> None:
    """Write manifest.json once; later calls must start from the same model with the same recipe.

    Raises: ValueError: stages that are done were made by another recipe or from another model.
    """
    import torch

    from accord.train.loop import Precision
    from accord.train.run import environment, write_text

    path = out / "manifest.json"
    if path.exists() and (out / "clock.json").exists():
        found = json.loads(path.read_text(encoding="utf8"))
        for key, value in facts.items():
            if found.get(key) != json.loads(json.dumps(value)):
                raise ValueError(
                    f"{out} holds stages made with another {key.replace('_', ' ')} (by accord "
                    f"{found['versions']['accord-align']}); give another --out, or delete the folder to start over"
                )
        return
    # Measured once: models of one experiment are compared, so they share their arithmetic.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts |= {"precision": Precision("auto", device).name, "model": config.model, "seed": config.seed}
    facts |= {"job": "quickstart", "command": " ".join(sys.argv), **environment()}
    write_text(path, json.dumps(facts, indent=2))


def precision_of(out: Path) -> Literal["fp32", "bf16"]:
    """The arithmetic of all stages, as the manifest has it."""
    name: Literal["fp32", "bf16"] = json.loads((out / "manifest.json").read_text(encoding="utf8"))["precision"]
    return name


class Clock:
    """Seconds by stage and peak memory, over all parts of a run that was stopped and continued.

    Attributes:
        seconds: by stage, in the order they ran.
        peak_memory_gb: of the process, the largest of all parts, in 1e9 bytes.
    """

    def __init__(self, out: Path, display: StagesDisplay) -> None:
        self._display = display
        self._path = out / "clock.json"
        known = json.loads(self._path.read_text(encoding="utf8")) if self._path.exists() else {}
        self.seconds: dict[str, float] = known.get("seconds", {})
        self.peak_memory_gb: float = known.get("peak_memory_gb", 0.0)

    def time(self, stage: str, work: Callable[[], Any], makes: Path | None = None) -> None:
        """Run a stage unless its time is on record; a stage that was cut off is timed from its own resumed start.

        Args:
            stage: its name.
            work: it; training jobs return their seconds.
            makes: a file that it writes and later ones read: a stage whose file is gone is run again.
        """
        from accord.train.run import write_text

        if stage in self.seconds and (makes is None or makes.exists()):
            self._display.finished(stage, self.seconds[stage])
            return
        self._display.stage(stage)
        began = time.monotonic()
        done = work()
        # A training job knows the time of its earlier parts; the others start over.
        give_memory_back()
        self.seconds[stage] = round(done if isinstance(done, float) else time.monotonic() - began, 1)
        self.peak_memory_gb = round(max(self.peak_memory_gb, _peak_memory_gb()), 2)
        state = {"seconds": self.seconds, "peak_memory_gb": self.peak_memory_gb}
        write_text(self._path, json.dumps(state, indent=2))
        self._display.complete()


def read_prompts(split: str, recipe: Recipe) -> list[Conversation]:
    """The shipped prompts of a split, "train" or "held-out": no film of one is in the other."""
    text = (files("accord.pipelines") / "quickstart_prompts.jsonl").read_text(encoding="utf8")
    rows = [json.loads(line) for line in text.splitlines()]
    count = recipe.train_prompts if split == "train" else recipe.held_out_prompts
    prompts: list[Conversation] = [(Message(role="user", content=r["prompt"]),) for r in rows if r["split"] == split]
    return prompts[:count]


def sample_and_rank(config: QuickstartConfig, recipe: Recipe, display: Display) -> None:
    """K responses of the base model to each training prompt, ranked by the gold reward; results in data/."""
    from accord.models.load import load_policy
    from accord.text import Template
    from accord.train.loop import Precision, device_of
    from accord.train.run import write_text

    folder = config.out / "data"
    folder.mkdir(exist_ok=True)
    prompts = read_prompts("train", recipe)
    model, tokenizer = load_policy(config.model)
    template, precision = Template(tokenizer), Precision(precision_of(config.out), device_of(model))
    responder = Responder(
        prompts=prompts, samples=recipe.samples, max_new_tokens=recipe.max_new_tokens, seed=config.seed
    )
    display.begin("rollouts", len(prompts) * recipe.samples)
    responses = responder(model, template, precision, lambda done, total: display.update(done, {}))
    rankings: list[dict[str, Any]] = []
    demonstrations: list[dict[str, Any]] = []
    arbitrary = 0
    for prompt, texts, marks in zip(prompts, responses.texts_BK, responses.finished_BK, strict=True):
        # An empty or repeated response is no choice. What was cut off is marked: without an end it must not teach one.
        finished = {text: mark for text, mark in zip(texts, marks, strict=True) if text.strip()}
        said = list(finished)
        gold = gold_rewards(said)
        if config.fast and len(set(gold)) < 2:
            arbitrary += 1  # a model that writes no words still has the machinery to go through
            gold = [float(-place) for place in range(len(said))]
        if len(set(gold)) < 2:
            continue  # all tie: nothing to prefer
        rows = [message.model_dump() for message in prompt]
        order = sorted(set(gold), reverse=True)
        ranks = [order.index(value) + 1 for value in gold]
        rankings.append({"prompt": rows, "responses": said, "ranks": ranks, "finished": list(finished.values())})
        best = said[gold.index(order[0])]
        demonstrations.append({"prompt": rows, "response": best, "finished": finished[best]})
    if arbitrary:
        display.note(f"{arbitrary} of {len(prompts)} prompts: all responses tie; --fast ranks them arbitrarily")
    if len(rankings) < 2:
        raise ValueError(
            f"{config.model}: the responses to nearly every prompt tie under the gold reward (VADER sentiment), so "
            "there is nothing to learn from; start from a model that writes English"
        )
    for name, lines in {
        "rankings": rankings,
        "demonstrations": demonstrations,
        "prompts": [{"prompt": [message.model_dump() for message in prompt]} for prompt in prompts],
    }.items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))


def train_sft(config: QuickstartConfig, recipe: Recipe, display: Display) -> float:
    """Supervised fine-tuning on the best response to each prompt."""
    from accord.train import sft

    job = SftConfig(
        model=config.model,
        data=(config.out / "data/demonstrations.jsonl",),
        out=config.out / "sft",
        epochs=recipe.sft_epochs,
        learning_rate=recipe.sft_rate,
        batch_size=recipe.batch_size,
        micro_tokens=recipe.micro_tokens,
        precision=precision_of(config.out),
        seed=config.seed,
    )
    return _seconds(sft.run(job, display))


def train_reward(config: QuickstartConfig, recipe: Recipe, display: Display) -> float:
    """A reward model on the rankings; a sixth of them are held out to measure its accuracy."""
    from accord.train import reward

    train, held_out = split_rankings(config.out)
    job = RewardConfig(
        model=str(config.out / "sft"),
        data=(train,),
        eval_data=(held_out,),
        out=config.out / "reward",
        learning_rate=recipe.reward_rate,
        batch_size=recipe.batch_size,
        micro_tokens=recipe.micro_tokens,
        precision=precision_of(config.out),
        eval_every=10_000,  # after the last step
        seed=config.seed,
    )
    return _seconds(reward.run(job, display))


def split_rankings(out: Path) -> tuple[Path, Path]:
    """Every sixth ranking is kept from the reward model."""
    from accord.train.run import write_text

    lines = (out / "data/rankings.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    every = min(6, len(lines))  # at least one is kept back
    paths = (out / "data/rankings.train.jsonl", out / "data/rankings.held-out.jsonl")
    for path, chosen in zip(paths, (False, True), strict=True):
        write_text(path, "".join(line for i, line in enumerate(lines) if (i % every == every - 1) is chosen))
    return paths


def train_ppo(config: QuickstartConfig, recipe: Recipe, display: Display) -> float:
    """PPO from the SFT model against the reward model."""
    from accord.train import policy

    steps = recipe.ppo_rollouts * recipe.ppo_minibatches
    job = PpoConfig(
        model=str(config.out / "sft"),
        reward=str(config.out / "reward"),
        data=(config.out / "data/prompts.jsonl",),
        out=config.out / "ppo",
        max_steps=steps,
        batch_size=recipe.ppo_prompts // recipe.ppo_minibatches,
        minibatches=recipe.ppo_minibatches,
        ppo_epochs=1,
        samples=recipe.samples,
        max_new_tokens=recipe.max_new_tokens,
        learning_rate=recipe.ppo_rate,
        kl_beta=recipe.ppo_kl,
        micro_tokens=recipe.micro_tokens,
        precision=precision_of(config.out),
        save_every=8,
        eval_every=max(1, steps // (recipe.watch_steps + 1)),
        seed=config.seed,
    )
    return _seconds(policy.run(job, display, watch=Watch(config, recipe)))


def train_dpo(config: QuickstartConfig, recipe: Recipe, display: Display) -> float:
    """DPO from the SFT model on the rankings."""
    from accord.train import preference

    steps = -(-sum(1 for _ in (config.out / "data/rankings.jsonl").open(encoding="utf8")) // recipe.batch_size)
    job = DpoConfig(
        model=str(config.out / "sft"),
        data=(config.out / "data/rankings.jsonl",),
        out=config.out / "dpo",
        beta=recipe.dpo_beta,
        learning_rate=recipe.dpo_rate,
        batch_size=recipe.batch_size,
        micro_tokens=recipe.micro_tokens,
        precision=precision_of(config.out),
        eval_every=max(1, steps // (recipe.watch_steps + 1)),
        seed=config.seed,
    )
    return _seconds(preference.run(job, display, watch=Watch(config, recipe)))


class Watch:
    """Gold reward, reward-model score and KL of a live policy on every second held-out prompt, one response each."""

    def __init__(self, config: QuickstartConfig, recipe: Recipe) -> None:
        self.config, self.recipe = config, recipe

    def __call__(self, model: Any, template: Any, precision: Any) -> dict[str, float]:
        """Figures to log."""
        from accord.train.scoring import all_sequence_logprobs

        # Loaded for each look and let go after it: memory peaks in the optimiser steps in between.
        give_memory_back()
        reference, reward = self._load(template, precision)
        prompts = read_prompts("held-out", self.recipe)[::2]
        responder = Responder(
            prompts=prompts, samples=1, max_new_tokens=self.recipe.max_new_tokens, seed=self.config.seed + 1
        )
        responses = responder(model, template, precision)
        own_N, reference_N = (
            all_sequence_logprobs(which, responses.trees, precision, self.recipe.micro_tokens)
            for which in (model, reference)
        )
        gold = gold_rewards([text for texts in responses.texts_BK for text in texts])
        return {
            "eval__gold_reward": sum(gold) / len(gold),
            "eval__reward__mean": float(reward(responses).mean()),
            "eval__kl__reference": float((own_N - reference_N).mean()),
        }

    def _load(self, template: Any, precision: Any) -> tuple[Any, Any]:
        from accord.models.load import load_policy
        from accord.models.score import prepare
        from accord.train.rewards import load_reward

        reference, _ = load_policy(str(self.config.out / "sft"))
        prepare(reference)
        precision.freeze(reference)
        reward = load_reward(str(self.config.out / "reward"), template, precision.name, self.recipe.micro_tokens)
        return reference, reward


def give_memory_back() -> None:
    """Return what a stage's models took to the system; glibc keeps freed memory to itself otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _seconds(folder: Path) -> float:
    return float(json.loads((folder / "done.json").read_text(encoding="utf8"))["seconds"])


def _peak_memory_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
