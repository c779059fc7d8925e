"""The reward of a job from its settings: one source, an ensemble of reward models, or several sources in a sum.

    score of an ensemble = mean, min, or mean - deviation over members of (score - mean of the member) / its deviation
    total                = sum over sources of weight * (score - mean) / deviation  -  length_penalty * tokens

Members and sources speak in units of their own, so each is normalised by its own moments before it meets another. A
single source without penalty stays what it is: its raw score, normalised where advantages are made.

Dimensions: M members or sources, N responses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from accord.losses.advantages import normalise_score
from accord.text import Template
from accord.train.configs import RewardSources
from accord.train.rewards import ModelReward, Responses, Reward, load_reward

__all__ = ["COMBINE", "Ensemble", "Total", "load_rewards"]

COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda score_MN: score_MN.mean(0),
    "min": lambda score_MN: score_MN.amin(0),
    "mean-std": lambda score_MN: score_MN.mean(0) - score_MN.std(0, correction=0),
}
"""How the members of an ensemble make one score; the last two distrust what only some of them like."""


class Ensemble:
    """Several reward models as one source; its score is in deviations, so it needs no moments of its own.

    Attributes:
        figures: of the last call, to be logged: how far apart the members are. It grows where a policy finds responses
            that some members were never taught to judge, which is how reward hacking begins (Coste et al. 2023,
            arXiv:2310.02743).
    """

    mean, std = 0.0, 1.0

    def __init__(self, members: Sequence[Reward], combine: str) -> None:
        self.members, self.combine = members, combine
        self.name = f"{combine} of {', '.join(member.name for member in members)}"
        self.figures: dict[str, float] = {}

    def __call__(self, responses: Responses) -> Tensor:
        """(N,) deviations."""
        score_MN = torch.stack([_normal(member, responses) for member in self.members])
        self.figures = {"reward__disagreement": float(score_MN.std(0, correction=0).mean())}
        return COMBINE[self.combine](score_MN)


class Total:
    """The weighted sum of several sources, less a penalty per token; mean 0 and deviation 1 leave it as it is.

    Attributes:
        figures: of the last call, to be logged: the mean of each source before its weight, by its label, and the
            disagreement of ensembles among them, averaged.
    """

    mean, std = 0.0, 1.0

    def __init__(self, sources: dict[str, Reward], weights: Sequence[float], length_penalty: float) -> None:
        self.sources, self.weights, self.length_penalty = sources, weights, length_penalty
        parts = [f"{weight:g} x {source.name}" for weight, source in zip(weights, sources.values(), strict=True)]
        self.name = " + ".join(parts) + (f" - {length_penalty:g} x tokens" if length_penalty else "")
        self.figures: dict[str, float] = {}

    def __call__(self, responses: Responses) -> Tensor:
        """(N,) in deviations of the sources."""
        score_MN = torch.stack([_normal(source, responses) for source in self.sources.values()])
        self.figures = {f"reward__source__{label}": float(score_MN[m].mean()) for m, label in enumerate(self.sources)}
        apart = [s.figures["reward__disagreement"] for s in self.sources.values() if isinstance(s, Ensemble)]
        if apart:
            self.figures["reward__disagreement"] = sum(apart) / len(apart)
        tokens_N = torch.tensor([len(branch.tokens) for tree in responses.trees for branch in tree.branches])
        return (torch.tensor(self.weights).unsqueeze(-1) * score_MN).sum(0) - self.length_penalty * tokens_N


def load_rewards(config: RewardSources, template: Template, precision_name: str) -> Reward:
    """The reward a job names.

    Args:
        config: its sources, their weights, the rule of ensembles and the length penalty.
        template: the policy's; reward models with another vocabulary read the text.
        precision_name: arithmetic of reward models.

    Raises: ValueError: a source, or a member of an ensemble, is not there; the message names it.
    """
    combine = config.ensemble or "mean"

    def load(name: str) -> Reward:
        return load_reward(name, template, precision_name, config.micro_tokens)

    sources = [_source(name, load, combine) for name in config.reward]
    weights = config.reward_weights or (1.0,) * len(sources)
    if len(sources) == 1 and weights == (1.0,) and not config.length_penalty:
        return sources[0]
    return Total(dict(zip(labels(config.reward), sources, strict=True)), weights, config.length_penalty)


def labels(names: Sequence[str]) -> list[str]:
    """A short name for each source, unique: the last folder of a path, members of an ensemble joined by +.

    >>> labels(["runs/helpful", "old/helpful/model", "a/x,a/y", "lengths:short"])
    ['helpful', 'helpful-2', 'x+y', 'lengths:short']
    """
    found: list[str] = []
    for name in names:
        short = "+".join(_last_folder(member.strip()) for member in name.split(","))
        numbered = (f"{short}-{number}" for number in itertools.count(2))
        found.append(next(label for label in itertools.chain([short], numbered) if label not in found))
    return found


def _last_folder(name: str) -> str:
    parts = [part for part in Path(name).parts if part not in ("/", "model")]
    return parts[-1] if parts else name


def _source(name: str, load: Callable[[str], Reward], combine: str) -> Reward:
    if "," not in name or Path(name).exists():
        return load(name)
    members = []
    for member in (part.strip() for part in name.split(",")):
        try:
            loaded = load(member)
        except ValueError as error:
            raise ValueError(f"ensemble {name!r}: {error}") from error
        if not isinstance(loaded, ModelReward):
            raise ValueError(
                f"ensemble {name!r}: {member!r} is a function; members are reward models, normalised by their own "
                "moments; give the function as a source of its own"
            )
        members.append(loaded)
    return Ensemble(members, combine)


def _normal(source: Reward, responses: Responses) -> Tensor:
    return normalise_score(source(responses), mean=source.mean, std=source.std)
