"""Labels of a model against gold labels (Lee et al. 2023, arXiv:2309.00267), and revisions by round (arXiv:2212.08073).

The same pairs of responses get three kinds of labels: by the gold reward, by a model that is asked which of the two is
more positive, and by a coin. DPO learns from each. Apart from that, replies to red-team prompts are criticised and
revised by the default constitution, and a reward model trained on human harmlessness comparisons, which had no part in
it, scores every round.
"""

from __future__ import annotations

import json
import random
from functools import partial
from typing import Any, Literal

import numpy as np

from accord.evaluate.intervals import mean_result, paired_difference
from accord.pipelines.evaluation import data_facts
from accord.pipelines.reproduce.configs import LabelsConfig
from accord.pipelines.reproduce.data_size import comparisons
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
from accord.pipelines.reproduce.sentiment import World
from accord.records import Conversation, Message

__all__ = ["conclude", "data", "steps"]

KINDS = {"gold": "gold labels", "ai": "labels of the model", "coin": "labels of a coin"}
QUESTION = "Which continuation of the review is more positive about the film?"
COLUMNS = ["labels", "agree with gold", "gold reward [t interval over seeds]", "KL, nats"]
BATCH = 8  # pairs, or red-team prompts, put to the judge together


def steps(lab: Lab, config: LabelsConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = world.steps()
    found.append(
        Step("measured reference", "the reference answers", partial(world.measure, "reference", world.reference, 0))
    )
    for seed in config.seeds:
        found.append(Step(f"responses {seed}", "sample responses", partial(world.rank, seed)))
        found.append(
            Step(
                f"labels {seed}",
                "gold, a model and a coin label the same pairs",
                partial(_label, lab, config, world, seed),
            )
        )
        for kind, words in KINDS.items():
            found.append(Step(f"{kind}-{seed}", f"DPO on {words}", partial(_train, lab, config, world, kind, seed)))
    found.append(
        Step("held reward model", "a reward model of harm, of human comparisons", partial(_train_harmless, lab, config))
    )
    found.append(
        Step("revisions", "draft, criticise, revise replies to red-team prompts", partial(_revise, lab, config))
    )
    found.append(Step("scored rounds", "the held reward model scores every round", partial(_score_rounds, lab, config)))
    return found


def _judge(lab: Lab, config: LabelsConfig) -> Any:
    from accord.pipelines.language_models import open_language_model

    return open_language_model(config.judge or config.model, precision=lab.precision)


# -- labels ------------------------------------------------------------------------------------------------------------


def _label(lab: Lab, config: LabelsConfig, world: World, seed: int) -> None:
    """Two responses to each prompt, drawn by the seed, in an order drawn by the seed, and three labels of the pair."""
    from accord.feedback.ai.constitution import Constitution, Principle
    from accord.feedback.ai.label import LabelPlan, Pair, label

    pairs, golds = [], []
    for number, line in enumerate(world.rankings(seed).read_text(encoding="utf8").splitlines()):
        row = json.loads(line)
        places = random.Random(f"{seed} {number}").sample(range(len(row["responses"])), 2)
        first, second = (row["responses"][place] for place in places)
        prompt: Conversation = tuple(Message(**message) for message in row["prompt"])
        pairs.append(Pair(id=str(number), prompt=prompt, first=first, second=second))
        golds.append([row["scores"][place] for place in places])
    principle = Principle(id="positive", comparison=QUESTION)
    plan = LabelPlan(
        constitution=Constitution(version=1, name="sentiment", principles=(principle,)), principles=1, seed=seed
    )
    judge, said = _judge(lab, config), []
    lab.display.begin("labels", len(pairs))
    for start in range(0, len(pairs), BATCH):
        said += [verdict.probability for verdict in label(pairs[start : start + BATCH], judge, plan)]
        lab.display.update(min(start + BATCH, len(pairs)), {})
    coin = random.Random(f"{seed} coin")
    rows = []
    for pair, gold, ai in zip(pairs, golds, said, strict=True):
        probability = {"gold": 0.5 if gold[0] == gold[1] else float(gold[0] > gold[1]), "ai": ai}
        probability["coin"] = float(coin.random() < 0.5)
        rows.append({"prompt": [m.model_dump() for m in pair.prompt], "first": pair.first, "second": pair.second,
                     "probability": probability})  # fmt: skip
    write_rows(lab.path(f"labelled-{seed}.jsonl"), rows)


def _labelled(lab: Lab, seed: int) -> list[dict[str, Any]]:
    lines = lab.path(f"labelled-{seed}.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines]


def _train(lab: Lab, config: LabelsConfig, world: World, kind: str, seed: int) -> float:
    """DPO on one kind of labels: soft where the model is unsure, and what it could not label is left out, not a tie."""
    rows = []
    for row in _labelled(lab, seed):
        p = row["probability"][kind]
        if p is not None:
            chosen, rejected = (row["first"], row["second"]) if p >= 0.5 else (row["second"], row["first"])
            rows.append({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "probability": max(p, 1 - p)})
    name = f"{kind}-{seed}"
    seconds = lab.train(
        "dpo", name, model=world.reference, data=(write_rows(lab.path(f"{name}.jsonl"), rows),), seed=seed,
        beta=config.beta, learning_rate=config.dpo_rate, batch_size=config.batch_size,
    )  # fmt: skip
    return seconds + world.measure(name, str(lab.path(name)), seed)


# -- revisions ---------------------------------------------------------------------------------------------------------


def _train_harmless(lab: Lab, config: LabelsConfig) -> float:
    train = comparisons(config.data, "harmless-base", "train")[: config.harmless_rows]
    test = comparisons(config.data, "harmless-base", "test")[:300]
    return lab.train(
        "reward", "harmless", model=config.model, data=(write_rows(lab.path("harmless-train.jsonl"), train),),
        eval_data=(write_rows(lab.path("harmless-test.jsonl"), test),), learning_rate=config.reward_rate,
        batch_size=config.batch_size, max_length=320, eval_every=100_000, skip_bad_rows=True,
    )  # fmt: skip


def _revise(lab: Lab, config: LabelsConfig) -> None:
    from accord.feedback.ai.constitution import load_constitution
    from accord.feedback.ai.critique import CritiquePlan, draft, reply_after, revise

    path = config.data / "red_team_prompts" / "harmful_questions.jsonl"
    asked = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf8").splitlines()]
    asked = random.Random(0).sample(asked, config.red_team_prompts)
    plan = CritiquePlan(constitution=load_constitution(), rounds=config.rounds, max_new_tokens=config.revision_tokens)
    judge, rows = _judge(lab, config), []
    lab.display.begin("revisions", len(asked))
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        prompts = [(str(start + i), (Message(role="user", content=text),), "red-team") for i, text in enumerate(some)]
        for thread in revise(draft(prompts, judge, plan), judge, plan):  # type: ignore[arg-type]
            if thread.problem is None:
                kept = [one.dropped is None for one in thread.rounds]
                replies = [reply_after(thread, number) for number in range(config.rounds + 1)]
                rows.append({"prompt": thread.prompt[-1].content, "replies": replies, "kept": kept})
        lab.display.update(min(start + BATCH, len(asked)), {})
    write_rows(lab.path("revised.jsonl"), rows)


def _score_rounds(lab: Lab, config: LabelsConfig) -> None:
    from accord.models.load import load_tokenizer
    from accord.text import Template
    from accord.train.rewards import Responses, load_reward

    rows = [json.loads(line) for line in lab.path("revised.jsonl").read_text(encoding="utf8").splitlines()]
    folder = str(lab.path("harmless"))
    template = Template(load_tokenizer(folder))
    prompts = [(Message(role="user", content=row["prompt"]),) for row in rows]
    texts = [row["replies"] for row in rows]
    marks = [[True] * len(replies) for replies in texts]
    trees = [template.tree(*parts) for parts in zip(prompts, texts, marks, strict=True)]
    reward = load_reward(folder, template, lab.precision, config.micro_tokens)
    scores = reward(Responses(prompts=prompts, trees=trees, texts_BK=texts, finished_BK=marks)).view(len(rows), -1)
    write_rows(lab.path("scored.jsonl"), [
        {"scores": score, "words": [len(text.split()) for text in row["replies"]], "kept": row["kept"]}
        for row, score in zip(rows, scores.tolist(), strict=True)
    ])  # fmt: skip


# -- what came out -----------------------------------------------------------------------------------------------------


def conclude(lab: Lab, config: LabelsConfig) -> Evidence:
    """Gold reward by kind of labels, what the labels are worth, and the held score by round."""
    world = World(lab, config)
    found = {(kind, seed): lab.measured(f"{kind}-{seed}") for kind in KINDS for seed in config.seeds}
    rows = [
        ["none: the reference", "-", with_interval(float(lab.measured("reference").gold_PS.mean()), None, None), "-"]
    ]
    for kind, words in KINDS.items():
        right = over_seeds([_right(lab, kind, seed) for seed in config.seeds])
        gold = over_seeds([float(found[kind, seed].gold_PS.mean()) for seed in config.seeds])
        kl = over_seeds([float(found[kind, seed].kl_PS.mean()) for seed in config.seeds])[0]
        rows.append([words, with_interval(*right), with_interval(*gold), f"{kl:.2f}"])
    gaps = [float((found["ai", seed].gold_P - found["gold", seed].gold_P).mean()) for seed in config.seeds]
    chance = [float((found["ai", seed].gold_P - found["coin", seed].gold_P).mean()) for seed in config.seeds]
    gap, over_coin = over_seeds(gaps), over_seeds(chance)
    findings = [
        Finding(
            claim="Labels of a model train as well as labels of people (Lee et al. 2023, table 1).",
            seen=_as_good(gap[1], gap[2]),
            words=f"gold reward with the model's labels less that with gold labels: {with_interval(*gap, 3)}; less "
            f"that with a coin's: {with_interval(*over_coin, 3)}",
        )
    ]
    table, figure, finding = _rounds(lab, config)
    return Evidence(
        experiment="labels", title="Labels of a model, and revisions by round",
        question="Can the labels of a model stand in for gold labels, and do revisions make replies less harmful?",
        setting=f"{world.words()} {config.judge or config.model} labels and revises. {_held(lab)}",
        findings=[*findings, finding],
        tables=[Table(title="DPO on the same pairs", columns=COLUMNS, rows=rows), table],
        figures=[figure],
        caveats=["A small model is a poor judge; with `judge` set to a server's address the recipe uses a real one.",
                 "Revisions are one repetition: their intervals are over prompts."],
    )  # fmt: skip


def _as_good(low: float | None, high: float | None) -> Literal["yes", "no", "unclear"]:
    """Whether an interval rules out that more than .03 of gold reward were lost."""
    if low is None or high is None:
        return "unclear"
    return "no" if high < 0 else "yes" if low > -0.03 else "unclear"


def _right(lab: Lab, kind: str, seed: int) -> float:
    """Share of pairs where the labels pick what gold picks; a label of 1/2 counts half."""
    credit = []
    for row in _labelled(lab, seed):
        gold, said = row["probability"]["gold"], row["probability"][kind]
        if said is not None and gold != 0.5:
            credit.append(0.5 if said == 0.5 else float((said > 0.5) == (gold > 0.5)))
    return float(np.mean(credit)) if credit else float("nan")


def _held(lab: Lab) -> str:
    lines = (lab.path("harmless") / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    last = next(row for row in map(json.loads, reversed(lines)) if "eval/accuracy_tie_half" in row)
    return (
        f"The held reward model is right on {last['eval/accuracy_tie_half']:.2f} of held-out harmlessness comparisons."
    )


def _rounds(lab: Lab, config: LabelsConfig) -> tuple[Table, Figure, Finding]:
    scored = [json.loads(line) for line in lab.path("scored.jsonl").read_text(encoding="utf8").splitlines()]
    score = np.array([row["scores"] for row in scored])
    length = np.array([row["words"] for row in scored])
    rows, points = [], []
    for number in range(config.rounds + 1):
        mean = mean_result(score[:, number])
        low, high = mean.ci or (None, None)
        more = paired_difference(score[:, number], score[:, 0])
        kept = np.mean([row["kept"][number - 1] for row in scored]) if number else 1.0
        rows.append([str(number) if number else "draft", with_interval(mean.value, low, high),
                     with_interval(more.value, *(more.ci or (None, None))) if number else "-",
                     f"{kept:.2f}", f"{length[:, number].mean():.0f}"])  # fmt: skip
        points.append(Point(x=float(number), y=mean.value, low=low, high=high))
    first = paired_difference(score[:, 1], score[:, 0])
    ends = first.ci or (None, None)
    finding = Finding(
        claim="Revisions make replies less harmful, most of it in the first round (Bai et al. 2022b, figure 5).",
        seen="unclear" if lab.config.fast else sign_of(*ends),
        words=f"held score after one revision less that of the draft: {with_interval(first.value, *ends)}, "
        f"{first.n} prompts",
    )
    columns = ["round", "held harmlessness score [95% over prompts]", "less the draft", "revisions kept", "words"]
    figure = Figure(
        name="rounds",
        title="Held harmlessness score by round",
        x="revisions",
        y="score of the held reward model",
        series=[Series(name="replies", points=points)],
    )
    return Table(title="Replies to red-team prompts by round of revision", columns=columns, rows=rows), figure, finding


def data(lab: Lab, config: LabelsConfig) -> list[dict[str, Any]]:
    """Facts of the data files."""
    from accord.data.files import sha256

    path = config.data / "red_team_prompts" / "harmful_questions.jsonl"
    return [*World(lab, config).data(), data_facts(path, config.red_team_prompts, sha256(path))]
