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

from accord.pipelines.evaluation import data_facts
from accord.pipelines.evaluation_configs import TasksConfig, ToxicityConfig, TruthfulnessConfig
from accord.pipelines.reproduce.configs import TaxConfig
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    over_seeds,
    sign_of,
    with_interval,
)
from accord.pipelines.reproduce.frontier import train_policy, train_reward
from accord.pipelines.reproduce.lab import Lab, Step, write_rows
from accord.pipelines.reproduce.sentiment import World

__all__ = ["conclude", "data", "steps"]

KINDS = {"ppo": "PPO", "ppo-ptx": "PPO with ptx"}
FIGURES = {
    "truthfulness": {"MC1": "MC1", "MC2": "MC2"},
    "toxicity": {
        "expected maximum toxicity, all prompts": "expected maximum toxicity",
        "toxic fraction, all prompts": "toxic fraction",
    },
    "tasks": {"score, all clusters": "tasks, all clusters"},
}
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
    found.append(
        Step("measured reference", "the reference answers", partial(world.measure, "reference", world.reference, 0))
    )
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


def _test(lab: Lab, config: TaxConfig, name: str, model: str) -> float:
    """The same questions, prompts and items for every policy; seconds it took."""
    from accord.pipelines import tasks, toxicity, truthfulness
    from accord.pipelines.language_models import open_language_model

    opened = open_language_model(model, precision=lab.precision)
    shared: dict[str, Any] = {"replicates": 0, "batch_size": 8, "precision": lab.precision}
    truth = TruthfulnessConfig(model=model, data=_questions(config), limit=config.questions, **shared)
    toxic = ToxicityConfig(
        model=model, data=_toxic(config), scorer=f"linear:{lab.path('toxicity')}", samples=config.toxic_samples,
        limit=config.toxic_prompts, **shared,
    )  # fmt: skip
    able = TasksConfig(
        models=(model,), data=tuple(sorted(lab.path("items").glob("test/*.jsonl"))), per_task=config.per_task,
        chat=True, **shared,
    )  # fmt: skip
    jobs: dict[str, Callable[[Any, Any, Any], Any]] = {
        "truthfulness": lambda _, rows, display: truthfulness.run(truth, rows, display, opened),
        "toxicity": lambda _, rows, display: toxicity.run(toxic, rows, display, opened),
        "tasks": lambda _, rows, display: tasks.run(able, rows, display, [opened]),
    }
    return sum(lab.evaluate(f"{kind}-{name}", job) for kind, job in jobs.items())


def conclude(lab: Lab, config: TaxConfig) -> Evidence:
    """Every figure before and after, and what the ptx term gives back."""
    world = World(lab, config)
    before = _figures_of(lab, "reference")
    after = {kind: [_figures_of(lab, f"{kind}-{seed}") for seed in config.seeds] for kind in KINDS}
    rows = []
    for figure, value in before.items():
        changes = [over_seeds([one[figure] - value for one in after[kind]]) for kind in KINDS]
        rows.append([figure, f"{value:.3f}", *(with_interval(*change, 3) for change in changes)])
    reference = float(lab.measured("reference").gold_PS.mean())
    gold = [
        over_seeds([float(lab.measured(f"{kind}-{s}").gold_PS.mean()) - reference for s in config.seeds])
        for kind in KINDS
    ]
    rows.append(["gold reward (sentiment)", f"{reference:.3f}", *(with_interval(*one, 3) for one in gold)])
    kl = [over_seeds([float(lab.measured(f"{kind}-{s}").kl_PS.mean()) for s in config.seeds]) for kind in KINDS]
    rows.append(["KL to the reference, nats", "0", *(with_interval(*one, 2) for one in kl)])
    columns = ["figure", "before", *(f"{words}, change [t interval over seeds]" for words in KINDS.values())]
    series = [
        Series(name=words, line=False, points=[
            Point(x=float(n), y=mean, low=low, high=high, label=figure)
            for n, (figure, value) in enumerate(before.items(), 1)
            for mean, low, high in [over_seeds([one[figure] - value for one in after[kind]])]
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
        findings=_findings(config, before, after),
        tables=[Table(title="Before and after", columns=columns, rows=rows)],
        figures=[Figure(name="changes", title="Change by figure", x=names, y="after less before", series=series)],
        caveats=["PPO learns sentiment here, not helpfulness: published figures are of another task."],
    )  # fmt: skip


def _figures_of(lab: Lab, name: str) -> dict[str, float]:
    found = {}
    for kind, names in FIGURES.items():
        values = lab.evaluated(f"{kind}-{name}")
        for key, words in names.items():
            found[words] = values.get(key, next(iter(values.values())))
    return found


def _findings(config: TaxConfig, before: dict[str, float], after: dict[str, list[dict[str, float]]]) -> list[Finding]:
    tasks = FIGURES["tasks"]["score, all clusters"]
    tax = over_seeds([before[tasks] - one[tasks] for one in after["ppo"]])
    back = over_seeds([b[tasks] - a[tasks] for a, b in zip(after["ppo"], after["ppo-ptx"], strict=True)])
    toxic = over_seeds([before["toxic fraction"] - one["toxic fraction"] for one in after["ppo"]])
    return [
        Finding(
            claim="PPO costs accuracy on public tasks, the alignment tax (Ouyang et al. 2022, section 4.2).",
            seen=sign_of(*tax[1:]),
            words=f"accuracy before less after PPO: {with_interval(*tax, 3)}",
        ),
        Finding(
            claim="The ptx term takes most of the tax back (Ouyang et al. 2022, figure 33).",
            seen=sign_of(*back[1:]),
            words=f"accuracy after PPO with ptx less after PPO: {with_interval(*back, 3)}",
        ),
        Finding(
            claim="Aligned models are less toxic (Ouyang et al. 2022, figure 7; there by training for it).",
            seen=sign_of(*toxic[1:]),
            words=f"toxic fraction before less after PPO: {with_interval(*toxic, 3)}",
        ),
    ]


def data(lab: Lab, config: TaxConfig) -> list[dict[str, Any]]:
    """Facts of the data files."""
    from accord.data.files import sha256

    files = ((_questions(config), config.questions), (_toxic(config), config.toxic_prompts))
    return [*World(lab, config).data(), *(data_facts(path, rows, sha256(path)) for path, rows in files)]
