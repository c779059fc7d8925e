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
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.reproduce.configs import InstructionConfig
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
from accord.pipelines.reproduce.lab import Lab, Step, write_rows

__all__ = ["conclude", "data", "steps"]

PARROTED = 0.7  # ROUGE-L of a reply with its instruction from which on it repeats it


def steps(lab: Lab, config: InstructionConfig) -> list[Step]:
    """Everything that is run, in order."""
    base = config.model
    zero, shots = (partial(_measure, lab, config, name, base) for name in ("base", "base-shots"))
    found = [
        Step("tasks", "convert tasks; clusters held out", partial(_convert, lab, config)),
        Step("base", "the base model, zero-shot", partial(zero, "items", False)),
        Step("base few-shot", "the base model, with exemplars", partial(shots, "shots", False)),
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
    """Rows of the clusters in turn, of their tasks in turn, until the tokens are used up."""
    from accord.models.load import load_tokenizer
    from accord.records import Message
    from accord.text import Template

    template, draw = Template(load_tokenizer(config.model)), random.Random(seed)
    files = {path: path.read_text(encoding="utf8").splitlines() for paths in clusters for path in paths}
    for lines in files.values():
        draw.shuffle(lines)
    rows: list[dict[str, Any]] = []
    used = turn = 0
    while used < config.train_tokens and any(files.values()):
        paths = [path for path in clusters[turn % len(clusters)] if files[path]]
        turn += 1
        if not paths:
            continue
        row = json.loads(files[draw.choice(paths)].pop())
        length = template.tree((Message(role="user", content=row["prompt"]),), [row["response"]]).length
        if length <= config.max_length:
            used += length
            rows.append({"prompt": [{"role": "user", "content": row["prompt"]}], "response": row["response"]})
    return rows


def _measure(lab: Lab, config: InstructionConfig, name: str, model: str, items: str, chat: bool) -> float:
    from accord.pipelines import tasks
    from accord.pipelines.language_models import open_language_model

    settings = TasksConfig(
        models=(model,), data=tuple(sorted(lab.path(items).glob("held-out/*.jsonl"))), per_task=config.per_task,
        chat=chat, replicates=0, batch_size=8, precision=lab.precision,
    )  # fmt: skip
    opened = [open_language_model(model, precision=lab.precision)]
    return lab.evaluate(f"tasks-{name}", lambda _, rows, display: tasks.run(settings, rows, display, opened))


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
    key = "score, all clusters" if len(config.hold_out) > 1 else f"score, cluster {config.hold_out[0]}"
    base, shots = (_headline(lab.evaluated(f"tasks-{name}"), key) for name in ("base", "base-shots"))
    scores = {
        count: [_headline(lab.evaluated(f"tasks-{_name(count, seed)}"), key) for seed in config.seeds]
        for count in config.cluster_counts
    }
    rows = [
        ["base, zero-shot", with_interval(base, None, None), "-"],
        [f"base, {config.shots} exemplars", with_interval(shots, None, None), "-"],
    ]
    points = []
    for count, values in scores.items():
        mean = over_seeds(values)
        rows.append([f"{count} clusters", with_interval(*mean), with_interval(*over_seeds([v - base for v in values]))])
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
        setting=f"{config.model}, all weights trained on {config.train_tokens} tokens whatever the number of clusters; "
        f"held out: {held}; at most {config.per_task} items of a task, options by log-probability.",
        findings=_findings(lab, config, base, scores),
        tables=[
            Table(
                title=f"Held-out score ({held})",
                columns=["model", "score [t interval over seeds]", "less base"],
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
    )


def _findings(lab: Lab, config: InstructionConfig, base: float, scores: dict[int, list[float]]) -> list[Finding]:
    first, last = config.cluster_counts[0], config.cluster_counts[-1]
    more = over_seeds([b - a for a, b in zip(scores[first], scores[last], strict=True)])
    tuned = over_seeds([value - base for value in scores[last]])
    before = binary_rate([_parroted(row) for row in _answers(lab, "base")])
    after = [binary_rate([_parroted(row) for row in _answers(lab, _name(last, seed))]).value for seed in config.seeds]
    fewer = over_seeds([before.value - value for value in after])
    return [
        Finding(
            claim="Held-out performance grows with the number of training clusters (Wei et al. 2021, figure 6).",
            seen=sign_of(*more[1:]),
            words=f"score with {last} clusters less that with {first}: {with_interval(*more, 3)}",
        ),
        Finding(
            claim="Instruction tuning costs small models held-out accuracy; large ones gain (Wei 2021, figure 7).",
            seen={"yes": "no", "no": "yes", "unclear": "unclear"}[sign_of(*tuned[1:])],  # type: ignore[arg-type]
            words=f"score with {last} clusters less that of the base model: {with_interval(*tuned, 3)}",
        ),
        Finding(
            claim="A base model goes on asking instead of answering; a tuned one answers (Ouyang et al. 2022).",
            seen=sign_of(*fewer[1:]),
            words=f"replies that are questions, empty or repetitions: base {before.value:.2f} of {before.n}, tuned "
            f"{over_seeds(after)[0]:.2f}; fewer by {with_interval(*fewer, 3)}",
        ),
    ]


def _answers(lab: Lab, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.path("answers", f"{name}.jsonl").read_text(encoding="utf8").splitlines()]


def _headline(found: dict[str, float], key: str) -> float:
    return found.get(key, next(iter(found.values())))


def data(lab: Lab, config: InstructionConfig) -> list[dict[str, Any]]:
    """Facts of the data files: the manifest of the conversion has the sources."""
    from accord.data.files import sha256
    from accord.pipelines.evaluation import data_facts

    paths = sorted(lab.path("items").glob("held-out/*.jsonl"))
    return [data_facts(path, path.read_bytes().count(b"\n"), sha256(path)) for path in paths]
