"""`docs/methods.md`, made from the table of methods and the configurations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from accord.pipelines.settings import show
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, TrainConfig
from accord.train.methods import METHODS, Method

__all__ = ["markdown", "recipe_of"]

JOBS: dict[str, tuple[str, type[TrainConfig] | None]] = {
    "sft": ("Likelihood", None),
    "reward": ("Reward models", RewardConfig),
    "dpo": ("Direct and listwise preference optimisation", DpoConfig),
    "ppo": ("Policy optimisation", PpoConfig),
}
HEAD = """\
# Methods

Every objective of `accord train`: what it minimises, where it is from, when to take it. Made from
`accord.train.methods`, which also holds the defaults and decides which settings a method reads: a setting that the
chosen method does not read is refused, not ignored. The exact definitions, with their degenerate cases, are the
docstrings of `accord.losses`. What the methods did on one task with one budget is in [log.md](log.md).

Where to begin: fine-tune on demonstrations (`sft`); with comparisons take `dpo`, with rankings `plackett-luce` or
`pro`, with thumbs `kto`; with a reward that can be computed, or to go beyond the responses that were judged, train a
reward model and take `ppo-clip`, or `rloo` if a value function is too much. Two baselines to beat need no new loss:
best-of-n sampling and fine-tuning on the best of n (`accord run recipes/rejection.yaml`).

In formulas y is a response, x its prompt, pi the policy, log-ratio = log pi(y | x) - log pi_ref(y | x), summed over
tokens; better and worse are the two of a pair. Losses of pairs and rankings are per prompt, those of policies per token
(RLOO: per response). `policy.rloo` and `policy.grpo` are definitions that the trainer's averages are tested against.
"""


def recipe_of(method: Method) -> str:
    """The recipe that runs the method as it stands."""
    first = next(other for other in METHODS if other.job == method.job)
    return f"recipes/{method.job}.yaml" if method is first else f"recipes/methods/{method.job}-{method.name}.yaml"


def markdown() -> str:
    """The page."""
    return "\n".join([HEAD, *_lines()]).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield "| method | job | choice | data | loss in `accord.losses` |"
    yield "|---|---|---|---|---|"
    for method in METHODS:
        link = f"[{method.title}](#{_anchor(method)})"
        yield f"| {link} | {method.job} | {_choice(method)} | {method.data} | `{method.function}` |"
    for job, (title, config) in JOBS.items():
        yield f"\n## {title}"
        for method in (method for method in METHODS if method.job == job):
            yield from _section(method)
        if config is not None:
            yield from _settings(config)


def _section(method: Method) -> Iterator[str]:
    yield f"\n### {_heading(method)}\n"
    yield f"    {method.formula}\n"
    words = f"{method.paper}. {method.when}" + (f" Convention: {method.note}." if method.note else "")
    yield textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False)
    if method.reads:
        yield "\nDefaults: " + ", ".join(f"`{name}` {show(value)}" for name, value in method.reads.items()) + "."
    yield f"\n```sh\naccord train {method.job} {recipe_of(method)}\n```"


def _settings(config: type[TrainConfig]) -> Iterator[str]:
    """Which method reads which setting."""
    methods = config.methods()
    names = [name for name in config.model_fields if any(name in method.reads for method in methods.values())]
    yield f"\n### Settings of {config.job} that not every method reads\n"
    yield "| setting | meaning | default |"
    yield "|---|---|---|"
    for name in names:
        given: dict[str, list[str]] = {}
        for method in methods.values():
            if name in method.reads:
                given.setdefault(show(method.reads[name]), []).append(method.name)
        defaults = "; ".join(f"{value}: {', '.join(readers)}" for value, readers in given.items())
        meaning = (config.model_fields[name].description or "").replace("|", "&#124;")
        yield f"| `{name}` | {meaning} | {defaults} |"


def _choice(method: Method) -> str:
    config = JOBS[method.job][1]
    return f"`--{config.choice} {method.name}`" if config is not None else "-"


def _heading(method: Method) -> str:
    return f"{method.title} (`{method.job}`)" if method.job == "sft" else f"{method.title} (`{method.name}`)"


def _anchor(method: Method) -> str:
    """As GitHub makes it of the heading: lower case, spaces to dashes, other signs dropped."""
    kept = "".join(c for c in _heading(method).lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
