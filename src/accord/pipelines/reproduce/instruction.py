"""Instruction tuning of a base model, after FLAN (Wei et al. 2021, arXiv:2109.01652, figure 6).

Clusters of tasks are held out; the rest is trained on, one cluster, then more, always the same number of tokens. Items
of the held-out clusters are put to every model zero-shot, and to the base model with exemplars as well. Beside that the
base model and the tuned one answer free instructions: a question is not the answer to a question.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accord.evaluate.attributes import binary_rate
from accord.overlap import rouge_l
from accord.pipelines.reproduce.configs import InstructionConfig
from accord.pipelines.reproduce.evidence import (
    Evidence,
    Figure,
    Finding,
    Point,
    Series,
    Table,
    difference,
    over_seeds,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Step, write_rows
from accord.pipelines.reproduce.task_scores import TaskScores

__all__ = ["conclude", "steps"]

PARROTED = 0.7  # ROUGE-L of a reply with its instruction from which on it repeats it


def steps(lab: Lab, config: InstructionConfig) -> list[Step]:
    """Everything that is run, in order."""
    base = config.model
    found = [
        Step("tasks", "convert tasks; clusters held out", partial(_convert, lab, config)),
        Step("base", "the base model, zero-shot", partial(_measure, lab, config, "base", base, "items", False)),
        Step(
            "base few-shot",
            "the base model, with exemplars",
            partial(_measure, lab, config, "base-shots", base, "shots", False),
        ),
        Step("base questions", "the base model answers", partial(_answer, lab, config, "base", base, False)),
    ]
    for seed in config.seeds:
        for count in config.cluster_counts:
            work = partial(_tune, lab, config, count, seed)
            found.append(Step(_name(count, seed), f"fine-tune on {count} clusters, and the held-out items", work))
        last = _name(config.cluster_counts[-1], seed)
        words = "the tuned model answers instructions"
        found.append(Step(f"questions {seed}", words, partial(_answer, lab, config, last, str(lab.path(last)), True)))
    return found


def _name(count: int, seed: int) -> str:
    return f"clusters-{count}-{seed}"


def _convert(lab: Lab, config: InstructionConfig) -> None:
    """Instructions without and with exemplars; tasks whose files are missing are left out, and said."""
    from accord.data.tasks.config import ConvertConfig
    from accord.data.tasks.convert import convert
    from accord.data.tasks.files import read_tasks

    tasks = [task for task in read_tasks(config.tasks) if _there(config.data, task.source.path)]
    shared: dict[str, Any] = {
        "tasks": config.tasks,
        "root": config.data,
        "hold_out": config.hold_out,
        "skip_bad_rows": True,
    }
    convert(tasks, ConvertConfig(**shared, out=lab.path("items")))
    held = [task for task in tasks if set(task.cluster) & set(config.hold_out)]
    convert(held, ConvertConfig(**shared, out=lab.path("shots"), shots=(str(config.shots),)))


def _there(root: Path, paths: str | dict[str, str]) -> bool:
    return all((root / path).exists() for path in ([paths] if isinstance(paths, str) else paths.values()))


def _by_cluster(lab: Lab) -> dict[str, list[Path]]:
    """Training files by cluster; a task of several clusters counts in its first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(lab.path("items").glob("train/*.jsonl")):
        with path.open(encoding="utf8") as file:
            found.setdefault(json.loads(file.readline())["meta"]["cluster"][0], []).append(path)
    return found


def _tune(lab: Lab, config: InstructionConfig, count: int, seed: int) -> float:
    """Fine-tune on so many clusters, drawn by the seed (more hold fewer), up to the tokens of the experiment."""
    known = _by_cluster(lab)
    if count > len(known):
        raise ValueError(f"cluster_counts has {count}, and there are {len(known)} training clusters; ask for fewer")
    chosen = random.Random(seed).sample(sorted(known), len(known))[:count]
    rows = _mixed(config, [known[name] for name in chosen], seed)
    name = _name(count, seed)
    seconds = lab.train(
        "sft", name, model=config.model, data=(write_rows(lab.path(f"{name}.jsonl"), rows),), seed=seed,
        learning_rate=config.sft_rate, batch_size=config.batch_size, max_length=config.max_length,
    )  # fmt: skip
    return seconds + _measure(lab, config, name, str(lab.path(name)), "items", True)


def _mixed(config: InstructionConfig, clusters: Sequence[Sequence[Path]], seed: int) -> list[dict[str, Any]]:
    """Rows of the clusters in turn, of their tasks by chance, until the tokens are used up.

    A cluster that runs out of rows begins again: every number of clusters is trained on the same number of tokens.
    """
    from accord.models.load import load_tokenizer
    from accord.records import Message
    from accord.text import Template

    template, draw = Template(load_tokenizer(config.model)), random.Random(seed)
    rows = {path: path.read_text(encoding="utf8").splitlines() for paths in clusters for path in paths}
    left: dict[Path, list[str]] = {}
    mixed: list[dict[str, Any]] = []
    used = turn = unfit = 0
    while used < config.train_tokens:
        path = draw.choice(clusters[turn % len(clusters)])
        turn += 1
        if not left.get(path):
            left[path] = draw.sample(rows[path], len(rows[path]))
        row = json.loads(left[path].pop())
        length = template.tree((Message(role="user", content=row["prompt"]),), [row["response"]]).length
        if length <= config.max_length:
            used += length
            mixed.append({"prompt": [{"role": "user", "content": row["prompt"]}], "response": row["response"]})
        elif (unfit := unfit + 1) > sum(map(len, rows.values())) + 100 * len(mixed):
            raise ValueError(f"hardly a row of {len(rows)} tasks fits into max_length {config.max_length}; raise it")
    return mixed


def _distinct(lab: Lab, name: str) -> float:
    """Share of the rows a model was trained on that are no repetition."""
    lines = lab.path(f"{name}.jsonl").read_text(encoding="utf8").splitlines()
    return len(set(lines)) / len(lines)


def _scores(lab: Lab, config: InstructionConfig, items: str = "items") -> TaskScores:
    return TaskScores(lab, list(lab.path(items).glob("held-out/*.jsonl")), config.per_task)


def _measure(lab: Lab, config: InstructionConfig, name: str, model: str, items: str, chat: bool) -> float:
    return _scores(lab, config, items).measure(name, model, chat)


def _answer(lab: Lab, config: InstructionConfig, name: str, model: str, chat: bool) -> None:
    """Free answers to instructions, and whether each is a question, or repeats the instruction."""
    from accord.pipelines.language_models import open_language_model
    from accord.protocols import Sampling
    from accord.records import Message

    path = lab.path("answers", f"{name}.jsonl")
    if path.exists():
        return
    asked = _instructions(config)
    opened = open_language_model(model, precision=lab.precision)
    sampling = Sampling(temperature=0.0, max_new_tokens=config.max_new_tokens)
    lab.display.begin("instructions", len(asked))
    rows = []
    for start in range(0, len(asked), 8):
        some = asked[start : start + 8]
        prompts = [(Message(role="user", content=text),) if chat else text + "\n" for text in some]
        for text, (reply,) in zip(some, opened.generate(prompts, 1, sampling), strict=True):
            rows.append({"instruction": text, "reply": reply.text, "error": reply.error})
        lab.display.update(start + len(some), {})
    write_rows(path, rows)


def _instructions(config: InstructionConfig) -> list[str]:
    path = config.data / "self_instruct" / "user_oriented_instructions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    short = [row["instruction"] for row in rows if not row["instances"][0]["input"]]
    return short[: config.questions]


def _parroted(row: dict[str, Any]) -> float:
    """1 for a reply that is a question, is empty, or repeats its instruction; NaN for one that failed."""
    if row["error"]:
        return float("nan")
    reply = row["reply"].strip()
    first = reply.split("\n")[0]
    return float(not reply or first.endswith("?") or rouge_l(first, row["instruction"]).f1 > PARROTED)


def conclude(lab: Lab, config: InstructionConfig) -> Evidence:
    """Held-out score by number of clusters, against the base model zero-shot and with exemplars; parroted replies."""
    asked = _scores(lab, config)
    base, shots = asked.score("base"), _scores(lab, config, "shots").score("base-shots")
    rows = [
        ["base, zero-shot", with_interval(base, None, None), "-", "-"],
        [f"base, {config.shots} exemplars", with_interval(shots, None, None), "-", "-"],
    ]
    points = []
    for count in config.cluster_counts:
        names = [_name(count, seed) for seed in config.seeds]
        mean = over_seeds([asked.score(name) for name in names])
        more = asked.less(names, ["base"] * len(names)).words(2)
        distinct = sum(_distinct(lab, name) for name in names) / len(names)
        rows.append([f"{count} cluster{'s' * (count > 1)}", with_interval(*mean), more, f"{distinct:.2f}"])
        points.append(Point(x=float(count), y=mean[0], low=mean[1], high=mean[2]))
    last = config.cluster_counts[-1]
    ends = [float(config.cluster_counts[0]), float(last)]
    series = [
        Series(name="tuned, zero-shot", points=points),
        Series(name="base, zero-shot", points=[Point(x=x, y=base) for x in ends], marks=False),
        Series(name=f"base, {config.shots} exemplars", points=[Point(x=x, y=shots) for x in ends], marks=False),
    ]
    held = ", ".join(config.hold_out)
    return Evidence(
        experiment="instruction",
        title="Instruction tuning of a base model",
        question="Does training on more clusters of tasks help on a cluster that was held out?",
        setting=f"{config.model}, all weights trained on {config.train_tokens} tokens whatever the number of clusters "
        "(a cluster that runs out of rows begins again), drawn by the seed, more clusters holding fewer ones; "
        f"held out: {held}; at most {config.per_task} items of a task, options by log-probability.",
        findings=_findings(lab, config, asked),
        tables=[
            Table(
                title=f"Held-out score ({held})",
                columns=["model", "score [t interval over seeds]", "less base", "rows that are no repetition"],
                rows=rows,
            )
        ],
        figures=[
            Figure(
                name="clusters",
                title="Held-out score against training clusters",
                x="training clusters",
                y="score",
                series=series,
            )
        ],
        caveats=["The base model is asked in plain text and the tuned ones in the chat form they were trained in."],
        provenance={"data": _sources(lab)},
    )


def _findings(lab: Lab, config: InstructionConfig, asked: TaskScores) -> list[Finding]:
    first, last = config.cluster_counts[0], config.cluster_counts[-1]
    few, many = ([_name(count, seed) for seed in config.seeds] for count in (first, last))
    more, cost = asked.less(many, few), asked.less(["base"] * len(many), many)
    before = binary_rate(_parroted_by(lab, "base"))
    after = [_parroted_by(lab, name) for name in many]
    fewer = difference([[b - a for a, b in zip(one, _parroted_by(lab, "base"), strict=True)] for one in after])
    return [
        Finding(
            claim="Held-out performance grows with the number of training clusters (Wei et al. 2021, figure 6).",
            seen=more.above(),
            words=f"score with {last} clusters less that with {first}: {more.words()}",
        ),
        Finding(
            claim="Instruction tuning costs small models held-out accuracy; large ones gain (Wei 2021, figure 7).",
            seen=cost.above(),
            words=f"score of the base model less that with {last} clusters: {cost.words()}",
        ),
        Finding(
            claim="A base model goes on asking instead of answering; a tuned one answers (Ouyang et al. 2022).",
            seen=fewer.above(),
            words=f"replies that are questions, empty or repetitions: base {before.value:.2f} of {before.n}, tuned "
            f"{before.value - fewer.value:.2f}; fewer by {fewer.words()}",
        ),
    ]


def _answers(lab: Lab, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.path("answers", f"{name}.jsonl").read_text(encoding="utf8").splitlines()]


def _parroted_by(lab: Lab, name: str) -> list[float]:
    return [_parroted(row) for row in _answers(lab, name)]


def _sources(lab: Lab) -> list[dict[str, Any]]:
    """The held-out items; the manifest of the conversion beside them names their sources."""
    from accord.data.files import sha256
    from accord.pipelines.evaluation import data_facts

    paths = sorted(lab.path("items").glob("held-out/*.jsonl"))
    return [data_facts(path, path.read_bytes().count(b"\n"), sha256(path)) for path in paths]
