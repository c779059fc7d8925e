"""Every figure a run logs: its name, unit and meaning. `docs/metrics.md` is generated from here; a test compares."""

from __future__ import annotations

__all__ = ["METRICS", "is_known", "markdown"]

ANY = "NAME"  # at the end of a metric's name: it stands for what a run has several of
METRICS: dict[str, tuple[str, str]] = {
    "step": ("optimiser steps", "steps taken when the line was written; prompts answered, where a job only samples"),
    "epoch": ("passes", "share of the data seen, 1 = once"),
    "seconds": ("s", "time since the job started, summed over resumed parts"),
    "tokens_per_second": ("tokens/s", "tokens of the step's trees, prompts counted once, over the step's time"),
    "learning_rate": ("", "of this step"),
    "grad_norm": ("", "L2 norm of the gradient before it is scaled down"),
    "loss": ("nats", "of the step; mean over its tokens (sft), prompts (reward, dpo) or the PPO objective"),
    "accuracy_tie_half": (
        "share",
        "pairs in which the preferred response scores higher, a tie counts half; none at probability 1/2",
    ),
    "accuracy_strict": ("share", "the same, a tie counts as wrong"),
    "longer_wins_accuracy": ("share", "pairs in which the preferred response is the longer one; ties count half"),
    "margin": (
        "reward units",
        "mean score (reward) or implicit reward (dpo) of preferred minus other; implicit reward: beta x log-ratio, "
        "without a reference beta x mean log-probability (simpo), the mean (orpo, pro), the sum (slic)",
    ),
    "ties/share": ("share", "pairs that tie, of all pairs the loss reads (rao-kupper, davidson)"),
    "ties/gap": ("reward units", "mean size of the score difference between responses that tie"),
    "ties/parameter": ("", "threshold (rao-kupper, reward units) or log nu (davidson, nats) where it is learned"),
    "loss/centering": ("", "part of the loss that pulls scores towards 0, mean over prompts"),
    "reward/chosen": ("reward units", "mean (implicit) reward of the preferred response of each pair"),
    "reward/rejected": ("reward units", "mean (implicit) reward of the other response of each pair"),
    "logprob/chosen": ("nats", "mean log-probability of the preferred response, summed over tokens"),
    "logprob/rejected": ("nats", "mean log-probability of the other response, summed over tokens"),
    "reward/desirable": ("reward units", "kto: mean implicit reward of the responses with thumbs up"),
    "reward/undesirable": ("reward units", "kto: mean implicit reward of the responses with thumbs down"),
    "logprob/desirable": ("nats", "kto: mean log-probability of the responses with thumbs up, summed over tokens"),
    "logprob/undesirable": ("nats", "kto: mean log-probability of the responses with thumbs down, summed over tokens"),
    "length/desirable": ("tokens", "kto: mean length of the responses with thumbs up, end token included"),
    "length/undesirable": ("tokens", "kto: mean length of the responses with thumbs down, end token included"),
    "kl/reference_point": ("nats", "kto: the step's z0, mean log-ratio of mismatched responses, at least 0"),
    "length/chosen": ("tokens", "mean length of the preferred response, end token included"),
    "length/rejected": ("tokens", "mean length of the other response, end token included"),
    "reward/mean": (
        "reward units",
        "mean score of the sampled responses as the reward gave it; of several sources, an ensemble, a weight or a "
        "length penalty their sum, in deviations",
    ),
    "reward/length_penalty": ("deviations", "mean of what --length-penalty takes from a response's score"),
    "reward/std": ("reward units", "their standard deviation"),
    "reward/best": ("reward units", "mean over prompts of the score of their best response"),
    "reward/source/NAME": (
        "deviations",
        "mean score of one of several sources, normalised, before its weight; NAME is the source's last folder",
    ),
    "reward/disagreement": (
        "deviations",
        "standard deviation over the members of an ensemble, mean over responses; it rises where a policy leaves what "
        "the members were taught, the first sign of reward hacking",
    ),
    "reward/normalised": ("deviations", "mean score after normalisation and clipping, before the KL penalty"),
    "kl/reference": ("nats", "KL(policy || reference) of the samples, k1, summed over tokens, mean over responses"),
    "kl/coefficient": ("reward units/nat", "weight of the KL penalty"),
    "kl/old": (
        "nats",
        "KL(old || new) per token before the rollout's last update, or before the one an early stop skipped, k3; "
        "0 where a rollout makes one update",
    ),
    "kl/moved": ("nats", "KL(old || new) per token after the rollout's updates, k3, over all its tokens"),
    "kl/penalty": ("reward units/nat", "weight of KL(old || new) in the loss (ppo-penalty)"),
    "trpo/accepted": ("share", "1 if the line search found a step, 0 if the policy stayed where it was"),
    "trpo/fraction": ("share", "of the full natural step that was taken"),
    "trpo/kl": ("nats", "KL(old || new) of the step taken, exact, mean over all tokens of the rollout"),
    "trpo/improvement": ("", "decrease of the surrogate loss by the step taken"),
    "trpo/expected": ("", "decrease of the surrogate loss that the full step promises to first order"),
    "entropy": ("nats", "mean entropy of the policy per sampled token"),
    "clip_fraction": ("share", "tokens whose ratio is clipped"),
    "loss/policy": ("", "loss of the policy algorithm, averaged as asked for, without KL penalty, values and entropy"),
    "loss/kl": ("nats", "KL to the reference in the loss, by the estimator asked for, averaged likewise, not weighted"),
    "loss/value": ("reward units^2", "half the squared error of the value function, mean over tokens"),
    "loss/ptx": ("nats", "negative log-likelihood of the ptx text per token, not weighted"),
    "value/explained": ("share", "variance of the returns the value function explains; 1 is all, below 0 is harm"),
    "advantage/mean": ("reward units", "mean advantage before whitening"),
    "length/mean": ("tokens", "mean length of the sampled responses, end token included"),
    "length/cut": ("share", "sampled responses cut off by max_new_tokens"),
    "sampler/gap": (
        "nats",
        "mean size of the difference between sampler's and trainer's log-probability of a token",
    ),
    "label/per_second": ("1/s", "pairs, prompts or responses a model gave feedback on, over the batch's time"),
    "label/tokens": ("tokens/s", "tokens a model read and wrote for them, as far as they are counted"),
    "label/unscored": ("share", "pairs or responses so far of which the model's answer could not be read or had"),
    "label/flips": ("share", "pairs so far on which the model takes the same place whichever response stands there"),
    "label/money": ("money", "cost of all requests so far, where a price is given"),
    "updates": ("optimiser steps", "updates made on this rollout; fewer than planned after an early stop"),
    "seconds/sample": ("s", "time spent sampling"),
    "seconds/score": (
        "s",
        "time on reward, reference, values and, unless the one step of a rollout gives them, old log-probabilities",
    ),
    "seconds/update": ("s", "time spent on updates"),
    "eval/loss": ("nats", "loss on the held-out data"),
    "eval/accuracy_tie_half": ("share", "as accuracy_tie_half, on the held-out data"),
    "eval/accuracy_strict": ("share", "as accuracy_strict, on the held-out data"),
    "eval/longer_wins_accuracy": ("share", "as longer_wins_accuracy, on the held-out data"),
    "eval/margin": ("reward units", "as margin, on the held-out data"),
    "eval/reward/desirable": ("reward units", "as reward/desirable, on the held-out data"),
    "eval/reward/undesirable": ("reward units", "as reward/undesirable, on the held-out data"),
    "eval/ties/gap": ("reward units", "as ties/gap, on the held-out data"),
    "eval/ece": (
        "share",
        "expected calibration error on held-out pairs: confidence less share right, its size averaged over ten bins",
    ),
    "eval/brier": ("", "mean squared error of P(preferred is better) on held-out pairs; 1/4 at equal scores"),
    "eval/nll": (
        "nats",
        "mean Bradley-Terry loss of held-out pairs, whatever the loss trained on; log 2 at equal scores",
    ),
    "eval/reward/mean": ("reward units", "mean score of responses sampled for the held-out prompts"),
    "eval/gold_reward": ("gold units", "mean of a reward nothing is trained on, where the job was given one to watch"),
    "eval/kl/reference": ("nats", "as kl/reference, on the held-out prompts"),
    "eval/length/mean": ("tokens", "mean length of responses sampled for the held-out prompts"),
}


def is_known(name: str) -> bool:
    """Whether a figure has a meaning here, itself or as one of a kind (`reward/source/helpful`)."""
    kinds = (known.removesuffix(ANY) for known in METRICS if known.endswith(f"/{ANY}"))
    return name in METRICS or any(name.startswith(kind) and name != kind for kind in kinds)


def markdown() -> str:
    """`docs/metrics.md`."""
    rows = [
        f"| `{name}` | {unit or '-'} | {meaning.replace('|', '&#124;')} |" for name, (unit, meaning) in METRICS.items()
    ]
    head = [
        "# Metrics",
        "",
        "Each line of a run's `metrics.jsonl` is one object; these are its keys. Made from `accord.train.metrics`.",
        "",
        "| name | unit | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"
