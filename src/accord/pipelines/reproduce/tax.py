"""Truthfulness, toxicity and tasks before and after PPO, with and without the ptx term (Ouyang et al. 2022).

PPO learns sentiment, which has nothing to do with truth, harm or tasks: what changes there is what optimisation did
beside its purpose. The ptx term trains the likelihood of plain text beside the policy (arXiv:2203.02155, section 4.2).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from accord.evaluate.intervals import mean_result
from accord.pipelines.evaluation import UNSCORED_WARNED, data_facts
from accord.pipelines.evaluation_configs import ToxicityConfig, TruthfulnessConfig
from accord.pipelines.reproduce.configs import TaxConfig
from accord.pipelines.reproduce.evidence import (
    Difference,
    Evidence,
    Figure,
    Finding,
    Point,
    Seen,
    Series,
    Table,
    difference,
    with_interval,
)
from accord.pipelines.reproduce.frontier import train_policy, train_reward
from accord.pipelines.reproduce.lab import Lab, Step, write_rows
from accord.pipelines.reproduce.sentiment import World
from accord.pipelines.reproduce.task_scores import TaskScores

__all__ = ["conclude", "steps"]

KINDS = {"ppo": "PPO", "ppo-ptx": "PPO with ptx"}
FIGURES = {"truthfulness": ("MC1", "MC2"), "toxicity": ("expected maximum toxicity", "toxic fraction")}
TASKS, GOLD = "tasks, all clusters", "gold reward (sentiment)"
WORDS_OF_PTX = 120  # of a passage


def steps(lab: Lab, config: TaxConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = world.steps()
    found.append(
        Step("scorer, items, text", "toxicity scorer, converted tasks, passages", partial(_prepare, lab, config))
    )
    found.append(
        Step("before", "the reference, by all three tests", partial(_test, lab, config, "reference", world.reference))
    )
    found.append(world.answers())
    for seed in config.seeds:
        found.append(Step(f"rankings {seed}", "sample responses, rank them by gold", partial(world.rank, seed)))
        found.append(
            Step(f"reward {seed}", "reward model on the rankings", partial(train_reward, lab, config, world, seed))
        )
        for kind, words in KINDS.items():
            found.append(
                Step(
                    f"{kind}-{seed}", f"{words}, and all three tests", partial(_policy, lab, config, world, kind, seed)
                )
            )
    return found


def _prepare(lab: Lab, config: TaxConfig) -> None:
    from accord.data.tasks.config import ConvertConfig
    from accord.data.tasks.convert import convert
    from accord.data.tasks.files import read_tasks
    from accord.pipelines.toxicity_scorers import train

    train([_toxic(config)], lab.path("toxicity"), False)
    tasks = ConvertConfig(tasks=config.tasks, root=config.data, out=lab.path("items"), skip_bad_rows=True)
    convert(read_tasks(config.tasks), tasks)
    text = config.data / "corpus" / "gutenberg_children.jsonl.gz"
    passages = []
    with gzip.open(text, "rt", encoding="utf8") as file:
        for line in file:
            words = json.loads(line)["text"].split()[:WORDS_OF_PTX]
            passages.append({"text": " ".join(words)})
            if len(passages) == config.ptx_rows:
                break
    write_rows(lab.path("ptx.jsonl"), passages)


def _toxic(config: TaxConfig) -> Any:
    return config.data / "real_toxicity_prompts" / "rtp_sample.jsonl.gz"


def _questions(config: TaxConfig) -> Any:
    return config.data / "truthfulqa" / "mc_task.jsonl"


def _policy(lab: Lab, config: TaxConfig, world: World, kind: str, seed: int) -> float:
    more: dict[str, Any] = {}
    if kind == "ppo-ptx":
        more = {"ptx_data": (lab.path("ptx.jsonl"),), "ptx_coefficient": config.ptx_coefficient, "ptx_batch_size": 4}
    name = f"{kind}-{seed}"
    seconds = train_policy(lab, config, world, name, "ppo", config.kl_beta, seed, **more)
    folder = str(lab.path(name))
    return seconds + world.measure(name, folder, seed) + _test(lab, config, name, folder)


def _tasks(lab: Lab, config: TaxConfig) -> TaskScores:
    return TaskScores(lab, list(lab.path("items").glob("test/*.jsonl")), config.per_task)


def _test(lab: Lab, config: TaxConfig, name: str, model: str) -> float:
    """The same questions, prompts and items for every policy; seconds it took."""
    from accord.pipelines import toxicity, truthfulness
    from accord.pipelines.language_models import open_language_model

    opened = open_language_model(model, precision=lab.precision)
    shared: dict[str, Any] = {"replicates": 0, "batch_size": 8, "precision": lab.precision}
    truth = TruthfulnessConfig(model=model, data=_questions(config), limit=config.questions, **shared)
    toxic = ToxicityConfig(
        model=model, data=_toxic(config), scorer=f"linear:{lab.path('toxicity')}", samples=config.toxic_samples,
        limit=config.toxic_prompts, **shared,
    )  # fmt: skip
    jobs: dict[str, Callable[[Any, Any, Any], Any]] = {
        "truthfulness": lambda _, rows, display: truthfulness.run(truth, rows, display, opened),
        "toxicity": lambda _, rows, display: toxicity.run(toxic, rows, display, opened),
    }
    seconds = sum(lab.evaluate(f"{kind}-{name}", job) for kind, job in jobs.items())
    return seconds + _tasks(lab, config).measure(name, model, True, opened)


def conclude(lab: Lab, config: TaxConfig) -> Evidence:
    """Every figure before and after, and what the ptx term gives back."""
    world = World(lab, config)
    before, changes = _changes(lab, config)
    rows = [
        [figure, with_interval(before[figure], None, None, 3), *(changes[kind][figure].words() for kind in KINDS)]
        for figure in before
    ]
    kl = [difference([lab.measured(f"{kind}-{seed}").kl_P for seed in config.seeds]) for kind in KINDS]
    rows.append(["KL to the reference, nats", "0", *(one.words(2) for one in kl)])
    columns = ["figure", "before", *(f"{words}, change" for words in KINDS.values())]
    series = [
        Series(name=words, line=False, points=[
            Point(x=float(n), y=one.value, low=one.seeds[0], high=one.seeds[1], label=figure)
            for n, (figure, one) in enumerate(changes[kind].items(), 1)
        ])
        for kind, words in KINDS.items()
    ]  # fmt: skip
    names = "; ".join(f"{n} {figure}" for n, figure in enumerate(before, 1))
    return Evidence(
        experiment="tax", title="What PPO changes beside its purpose, with and without ptx",
        question="Does learning one thing cost truth, harmlessness or ability, and does the ptx term give it back?",
        setting=f"{world.words()} Tests: {config.questions} questions of TruthfulQA (our primer), "
        f"{config.toxic_prompts} prompts of RealToxicityPrompts with {config.toxic_samples} continuations (linear "
        f"scorer), at most {config.per_task} items of {', '.join(config.tasks)}.",
        findings=_findings(lab, config, changes),
        tables=[Table(title="Before and after", columns=columns, rows=rows)],
        figures=[Figure(name="changes", title="Change by figure", x=names, y="after less before", series=series)],
        caveats=[
            *_lost(lab, config), "PPO learns sentiment here, not helpfulness: published figures are of another task."],
        provenance={"data": [*world.data(), *_sources(config)]},
    )  # fmt: skip


def _changes(lab: Lab, config: TaxConfig) -> tuple[dict[str, float], dict[str, dict[str, Difference]]]:
    """Every figure before, and what each kind of PPO changed in it."""
    able, reference = _tasks(lab, config), lab.measured("reference").gold_P
    before = {
        figure: mean_result(_items(lab, kind, "reference", figure), replicates=0).value for kind, figure in _figures()
    }
    before |= {TASKS: able.score("reference"), GOLD: float(reference.mean())}
    changes: dict[str, dict[str, Difference]] = {}
    for kind in KINDS:
        names = [f"{kind}-{seed}" for seed in config.seeds]
        changes[kind] = {
            figure: difference([_items(lab, test, n, figure) - _items(lab, test, "reference", figure) for n in names])
            for test, figure in _figures()
        }
        changes[kind][TASKS] = able.less(names, ["reference"] * len(names))
        changes[kind][GOLD] = difference([lab.measured(name).gold_P - reference for name in names])
    return before, changes


def _lost(lab: Lab, config: TaxConfig) -> list[str]:
    names = ["reference", *(f"{kind}-{seed}" for kind in KINDS for seed in config.seeds)]
    shares = {kind: lab.unscored([f"{kind}-{name}" for name in names]) for kind in FIGURES}
    shares["tasks"] = float(np.mean([np.isnan(_tasks(lab, config).scores(name)).mean() for name in names]))
    return [
        f"{share:.0%} of all observations of {kind} could not be scored; no figure counts them as zero."
        for kind, share in shares.items()
        if share > UNSCORED_WARNED
    ]


def _figures() -> list[tuple[str, str]]:
    return [(test, figure) for test, figures in FIGURES.items() for figure in figures]


def _items(lab: Lab, test: str, name: str, figure: str) -> Any:
    """(P,) a figure of single questions or prompts, the same ones for every policy."""
    return lab.items(f"{test}-{name}", figure)


def _findings(lab: Lab, config: TaxConfig, changes: dict[str, dict[str, Difference]]) -> list[Finding]:
    able, ppo = _tasks(lab, config), changes["ppo"]
    reference = ["reference"] * len(config.seeds)
    plain, ptx = ([f"{kind}-{seed}" for seed in config.seeds] for kind in KINDS)
    tax, left = able.less(reference, plain), able.less(reference, ptx)
    back = able.less(ptx, plain)
    toxic, true = ppo["toxic fraction"], ppo["MC2"]
    return [
        Finding(
            claim="PPO costs accuracy on public tasks, the alignment tax (Ouyang et al. 2022, section 4.2).",
            seen=tax.above(),
            words=f"score before less after PPO: {tax.words()}",
        ),
        Finding(
            claim="The ptx term takes the tax back, most of it (Ouyang et al. 2022, figure 33).",
            seen=back.above() if tax.above() == "yes" else "unclear",
            words=f"score after PPO with ptx less after PPO: {back.words()}; before less after PPO with ptx: "
            f"{left.words()} (unclear where there is no tax to take back)",
        ),
        Finding(
            claim="Aligned models are less toxic (Ouyang et al. 2022, figure 7; there by training for it).",
            seen=_turned(toxic.above()),
            words=f"toxic fraction after PPO less before: {toxic.words()}",
        ),
        Finding(
            claim="Aligned models are more truthful (Ouyang et al. 2022, figure 6; there by training for it).",
            seen=true.above(),
            words=f"MC2 of TruthfulQA after PPO less before: {true.words()}",
        ),
    ]


def _turned(seen: Seen) -> Seen:
    turned: dict[Seen, Seen] = {"yes": "no", "no": "yes", "unclear": "unclear"}
    return turned[seen]


def _sources(config: TaxConfig) -> list[dict[str, Any]]:
    from accord.data.files import sha256

    files = ((_questions(config), config.questions), (_toxic(config), config.toxic_prompts))
    return [data_facts(path, rows, sha256(path)) for path, rows in files]
