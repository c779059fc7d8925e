"""What the metrics of `accord train` are called on a chart, in which unit, and in which order they are shown.

A metric that is not listed is drawn all the same, after the others, under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["KNOWN", "MetricName", "describe", "is_main", "sort_key"]


@dataclass(frozen=True)
class MetricName:
    """A metric in words: `MetricName("KL to the reference", "nats per response")`."""

    title: str
    unit: str
    main: bool = False  # shown at once; the others are one click away


# In the order of the page: what is optimised, what that is for, what it costs, how the machine does.
# `eval/NAME` shares the chart of NAME.
KNOWN = {
    "loss": MetricName("Loss", "nats", main=True),
    "accuracy_tie_half": MetricName("Accuracy on pairs", "share, ties half", main=True),
    "margin": MetricName("Margin, preferred over other", "reward units", main=True),
    "reward/mean": MetricName("Reward of the samples", "reward units", main=True),
    "reward/best": MetricName("Reward of the best sample", "reward units", main=True),
    "gold_reward": MetricName("Gold reward", "gold units", main=True),
    "kl/reference": MetricName("KL to the reference", "nats per response", main=True),
    "entropy": MetricName("Entropy of the policy", "nats per token", main=True),
    "length/mean": MetricName("Length of the samples", "tokens", main=True),
    "ece": MetricName("Calibration error", "share, ten bins"),
    "brier": MetricName("Brier score of preferences", "share squared"),
    "nll": MetricName("Bradley-Terry loss of pairs", "nats"),
    "length/cut": MetricName("Samples cut off by length", "share"),
    "accuracy_strict": MetricName("Accuracy on pairs, strict", "share, ties wrong"),
    "longer_wins_accuracy": MetricName("Accuracy of choosing the longer", "share, ties half"),
    "ties/share": MetricName("Pairs that tie", "share"),
    "ties/gap": MetricName("Score difference of ties", "reward units"),
    "ties/parameter": MetricName("Tie parameter", "threshold or log nu"),
    "loss/centering": MetricName("Pull of the scores towards 0", "part of the loss"),
    "reward/chosen": MetricName("Reward of the preferred", "reward units"),
    "reward/rejected": MetricName("Reward of the other", "reward units"),
    "logprob/chosen": MetricName("Log-probability, preferred", "nats per response"),
    "logprob/rejected": MetricName("Log-probability, other", "nats per response"),
    "reward/desirable": MetricName("Reward, thumbs up", "reward units", main=True),
    "reward/undesirable": MetricName("Reward, thumbs down", "reward units", main=True),
    "logprob/desirable": MetricName("Log-probability, thumbs up", "nats per response"),
    "logprob/undesirable": MetricName("Log-probability, thumbs down", "nats per response"),
    "length/desirable": MetricName("Length, thumbs up", "tokens"),
    "length/undesirable": MetricName("Length, thumbs down", "tokens"),
    "kl/reference_point": MetricName("Reference point of KTO", "nats"),
    "length/chosen": MetricName("Length of the preferred", "tokens"),
    "length/rejected": MetricName("Length of the other", "tokens"),
    "reward/length_penalty": MetricName("Penalty for length", "deviations"),
    "reward/std": MetricName("Spread of the reward", "reward units, SD"),
    "reward/source/NAME": MetricName("Reward, source NAME", "deviations"),
    "reward/disagreement": MetricName("Disagreement of the ensemble", "deviations", main=True),
    "reward/normalised": MetricName("Reward, normalised", "deviations"),
    "kl/coefficient": MetricName("Weight of the KL penalty", "reward units per nat"),
    "kl/old": MetricName("KL of one rollout's updates", "nats per token"),
    "kl/moved": MetricName("KL of all updates of a rollout", "nats per token"),
    "kl/penalty": MetricName("Weight of the KL to the old policy", "reward units per nat"),
    "trpo/kl": MetricName("KL of a TRPO step", "nats per token"),
    "trpo/accepted": MetricName("TRPO step taken", "1 or 0"),
    "trpo/fraction": MetricName("TRPO step, share of the full one", "share"),
    "trpo/improvement": MetricName("Improvement by a TRPO step", "of the surrogate"),
    "trpo/expected": MetricName("Improvement a TRPO step promised", "of the surrogate"),
    "clip_fraction": MetricName("Tokens with a clipped ratio", "share"),
    "loss/policy": MetricName("Policy loss", "averaged as asked for"),
    "loss/kl": MetricName("KL to the reference in the loss", "nats, not weighted"),
    "loss/ptx": MetricName("Loss on the ptx text", "nats per token"),
    "loss/value": MetricName("Value loss", "reward units squared"),
    "value/explained": MetricName("Variance the values explain", "share"),
    "advantage/mean": MetricName("Advantage before whitening", "reward units"),
    "sampler/gap": MetricName("Gap of sampler and trainer", "nats per token"),
    "label/unscored": MetricName("Unscored", "share", main=True),
    "label/flips": MetricName("Position decides", "share of pairs", main=True),
    "label/per_second": MetricName("Speed", "items per second"),
    "label/tokens": MetricName("Tokens read and written", "tokens per second"),
    "label/money": MetricName("Cost", "money"),
    "updates": MetricName("Updates on a rollout", "optimiser steps"),
    "learning_rate": MetricName("Learning rate", "per step"),
    "grad_norm": MetricName("Gradient norm", "L2, before scaling"),
    "tokens_per_second": MetricName("Speed", "tokens per second"),
    "seconds/sample": MetricName("Time to sample", "seconds"),
    "seconds/score": MetricName("Time to score", "seconds"),
    "seconds/update": MetricName("Time to update", "seconds"),
}
ORDER = {name: position for position, name in enumerate(KNOWN)}
ANY = "NAME"  # at the end of a known name: it stands for what a run has several of


def describe(name: str) -> MetricName:
    """The words for a metric; its own name, without a unit, where there are none."""
    kind = _kind(name)
    if kind is None:
        return MetricName(name.replace("_", " ").replace("/", ": "), "")
    known = KNOWN[kind]
    return replace(known, title=known.title.replace(ANY, name.removeprefix(kind.removesuffix(ANY))))


def is_main(name: str) -> bool:
    """Whether a metric is shown at once."""
    return describe(name).main


def sort_key(name: str) -> tuple[int, str]:
    """Known metrics first, in their order; the rest by name."""
    kind = _kind(name)
    return len(ORDER) if kind is None else ORDER[kind], name


def _kind(name: str) -> str | None:
    """The known name of a metric: its own, or that of its kind (`reward/source/NAME`)."""
    if name in KNOWN:
        return name
    kinds = (known for known in KNOWN if known.endswith(f"/{ANY}"))
    return next((kind for kind in kinds if name.startswith(kind.removesuffix(ANY))), None)
