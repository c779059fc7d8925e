"""What the metrics of `accord train` are called on a chart, in which unit, and in which order they are shown.

A metric that is not listed is drawn all the same, after the others, under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    "gold_reward": MetricName("Gold reward", "gold units", main=True),
    "kl/reference": MetricName("KL to the reference", "nats per response", main=True),
    "entropy": MetricName("Entropy of the policy", "nats per token", main=True),
    "length/mean": MetricName("Length of the samples", "tokens", main=True),
    "length/cut": MetricName("Samples cut off by length", "share"),
    "accuracy_strict": MetricName("Accuracy on pairs, strict", "share, ties wrong"),
    "longer_wins_accuracy": MetricName("Accuracy of choosing the longer", "share, ties half"),
    "reward/chosen": MetricName("Reward of the preferred", "reward units"),
    "reward/rejected": MetricName("Reward of the other", "reward units"),
    "logprob/chosen": MetricName("Log-probability, preferred", "nats per response"),
    "logprob/rejected": MetricName("Log-probability, other", "nats per response"),
    "length/chosen": MetricName("Length of the preferred", "tokens"),
    "length/rejected": MetricName("Length of the other", "tokens"),
    "reward/std": MetricName("Spread of the reward", "reward units, SD"),
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
    "updates": MetricName("Updates on a rollout", "optimiser steps"),
    "learning_rate": MetricName("Learning rate", "per step"),
    "grad_norm": MetricName("Gradient norm", "L2, before scaling"),
    "tokens_per_second": MetricName("Speed", "tokens per second"),
    "seconds/sample": MetricName("Time to sample", "seconds"),
    "seconds/score": MetricName("Time to score", "seconds"),
    "seconds/update": MetricName("Time to update", "seconds"),
}
ORDER = {name: position for position, name in enumerate(KNOWN)}


def describe(name: str) -> MetricName:
    """The words for a metric; its own name, without a unit, where there are none."""
    return KNOWN.get(name, MetricName(name.replace("_", " ").replace("/", ": "), ""))


def is_main(name: str) -> bool:
    """Whether a metric is shown at once."""
    return describe(name).main


def sort_key(name: str) -> tuple[int, str]:
    """Known metrics first, in their order; the rest by name."""
    return ORDER.get(name, len(ORDER)), name
