"""Labels of a model against gold labels (Lee et al. 2023, arXiv:2309.00267), and revisions by round (arXiv:2212.08073).

The same pairs of responses get three kinds of labels: by the gold reward, by a model that is asked which of the two is
more positive, and by a coin. DPO learns from each. Apart from that, replies to red-team prompts are criticised and
revised by the default constitution, and a reward model trained on human harmlessness comparisons, which had no part in
it, scores every round.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from accord.evaluate.intervals import wilson
from accord.pipelines.evaluation import Items, data_facts, key_of, measured
from accord.pipelines.reproduce.configs import LabelsConfig
from accord.pipelines.reproduce.data_size import comparisons, hh_file
from accord.pipelines.reproduce.evidence import (
    Difference,
    Ends,
    Evidence,
    Figure,
    Finding,
    Point,
    Seen,
    Series,
    Table,
    difference,
    over_prompts,
    over_seeds,
    sign_of,
    with_interval,
)
from accord.pipelines.reproduce.lab import Lab, Measured, Step, write_rows
from accord.pipelines.reproduce.sentiment import World
from accord.records import Conversation, Message

__all__ = ["conclude", "steps"]

KINDS = {"gold": "gold labels", "ai": "labels of the model", "coin": "labels of a coin"}
QUESTION = "Which continuation of the review is more positive about the film?"
COLUMNS = ["labels", "agree with gold", "gold reward [t interval over seeds]", "KL, nats"]
MARGIN = 0.03  # of gold reward: labels that cost more than this are worse
BATCH = 8  # pairs, or red-team prompts, put to the judge together


def steps(lab: Lab, config: LabelsConfig) -> list[Step]:
    """Everything that is run, in order."""
    world = World(lab, config)
    found = [*world.steps(), world.answers()]
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
    judge = _judge(lab, config)

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        verdicts = label([pairs[i] for i in chosen], judge, plan)
        return [{"probability": one.probability, **({"error": one.problem} if one.problem else {})} for one in verdicts]

    items, keys = Items(lab.path(f"judged-{seed}.jsonl")), [key_of(judge.name, pair.key, seed) for pair in pairs]
    said = [row["probability"] for row in measured(items, keys, work, lab.display, "labels", BATCH)]
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
    test = comparisons(config.data, "harmless-base", "test")[: config.harmless_test_rows]
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
    judge = _judge(lab, config)

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        prompts = [(str(i), (Message(role="user", content=asked[i]),), "red-team") for i in chosen]
        rows: list[dict[str, Any]] = []
        for thread in revise(draft(prompts, judge, plan), judge, plan):  # type: ignore[arg-type]
            kept = [one.dropped is None for one in thread.rounds]
            replies = [reply_after(thread, number) for number in range(config.rounds + 1)]
            row = {"prompt": thread.prompt[-1].content, "replies": replies, "kept": kept}
            rows.append(row if thread.problem is None else {"error": thread.problem})
        return rows

    keys = [key_of(judge.name, text) for text in asked]
    rows = measured(Items(lab.path("revising.jsonl")), keys, work, lab.display, "revisions", BATCH)
    write_rows(lab.path("revised.jsonl"), [row for row in rows if "error" not in row])


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
    table, figure, revised = _rounds(lab, config)
    return Evidence(
        experiment="labels", title="Labels of a model, and revisions by round",
        question="Can the labels of a model stand in for gold labels, and do revisions make replies less harmful?",
        setting=f"{world.words()} {config.judge or config.model} labels and revises. The held reward "
        f"model is right on {_held(lab)[0]:.2f} of held-out harmlessness comparisons.",
        findings=[_trained(config, found), revised],
        tables=[Table(title="DPO on the same pairs", columns=COLUMNS, rows=rows), table],
        figures=[figure],
        caveats=["A small model is a poor judge; with `judge` set to a server's address the recipe uses a real one.",
                 "Revisions are one repetition: their intervals are over prompts."],
        provenance={"data": [*world.data(), *_sources(config)]},
    )  # fmt: skip


def _trained(config: LabelsConfig, found: dict[tuple[str, int], Measured]) -> Finding:
    """The model's labels against gold, which says something only where gold labels taught more than a coin's."""

    def less(one: str, other: str) -> Difference:
        return difference([found[one, seed].gold_P - found[other, seed].gold_P for seed in config.seeds])

    gap, over_coin, taught = less("ai", "gold"), less("ai", "coin"), less("gold", "coin")
    return Finding(
        claim="Labels of a model train as well as labels of people (Lee et al. 2023, table 1).",
        seen=gap.above(-MARGIN) if taught.above() == "yes" else "unclear",
        words=f"gold reward with the model's labels less that with gold labels: {gap.words()}; less that with a "
        f"coin's: {over_coin.words()} (seen: no more than {MARGIN:g} lost, where gold labels teach more "
        f"than a coin's; they do by {taught.words()})",
    )


def _right(lab: Lab, kind: str, seed: int) -> float:
    """Share of pairs where the labels pick what gold picks; a label of 1/2 counts half."""
    credit = []
    for row in _labelled(lab, seed):
        gold, said = row["probability"]["gold"], row["probability"][kind]
        if said is not None and gold != 0.5:
            credit.append(0.5 if said == 0.5 else float((said > 0.5) == (gold > 0.5)))
    return float(np.mean(credit)) if credit else float("nan")


def _held(lab: Lab) -> tuple[float, float]:
    """Accuracy of the held reward model on held-out harmlessness comparisons, and the lower end of its interval."""
    lines = (lab.path("harmless") / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    accuracy = next(
        row["eval/accuracy_tie_half"] for row in map(json.loads, reversed(lines)) if "eval/accuracy_tie_half" in row
    )
    count = len(lab.path("harmless-test.jsonl").read_text(encoding="utf8").splitlines())
    return accuracy, wilson(accuracy * count, count).low


def _rounds(lab: Lab, config: LabelsConfig) -> tuple[Table, Figure, Finding]:
    scored = [json.loads(line) for line in lab.path("scored.jsonl").read_text(encoding="utf8").splitlines()]
    score = np.array([row["scores"] for row in scored])
    length = np.array([row["words"] for row in scored])
    rows, points = [], []
    for number in range(config.rounds + 1):
        mean = over_prompts(score[:, number])
        more = over_prompts(score[:, number] - score[:, 0])
        kept = np.mean([row["kept"][number - 1] for row in scored]) if number else 1.0
        rows.append([str(number) if number else "draft", with_interval(*mean),
                     with_interval(*more) if number else "-",
                     f"{kept:.2f}", f"{length[:, number].mean():.0f}"])  # fmt: skip
        points.append(Point(x=float(number), y=mean[0], low=mean[1], high=mean[2]))
    first, rest = over_prompts(score[:, 1] - score[:, 0]), over_prompts(score[:, -1] - score[:, 1])
    surplus = over_prompts(score[:, 1] - score[:, 0] - (score[:, -1] - score[:, 1]))
    accuracy, lowest = _held(lab)
    finding = Finding(
        claim="Revisions make replies less harmful, most of it in the first round (Bai et al. 2022b, figure 5).",
        seen="unclear" if config.fast or lowest <= 0.5 else less_harmful(first[1:], surplus[1:]),
        words=f"held score after one revision less that of the draft: {with_interval(*first)}, {len(scored)} "
        f"prompts; of the last round less the first: {with_interval(*rest)}; intervals over prompts, and the scorer is "
        f"right on {accuracy:.2f} (unclear where that is not above 1/2)",
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


def less_harmful(first: Ends, surplus: Ends) -> Seen:
    """Whether the first round helps, and more than all that follow it, by the intervals of both."""
    helps = sign_of(*first)
    return sign_of(*surplus) if helps == "yes" else helps


def _sources(config: LabelsConfig) -> list[dict[str, Any]]:
    from accord.data.files import sha256

    counts = {
        config.data / "red_team_prompts" / "harmful_questions.jsonl": config.red_team_prompts,
        hh_file(config.data, "harmless-base", "train"): config.harmless_rows,
        hh_file(config.data, "harmless-base", "test"): config.harmless_test_rows,
    }
    return [data_facts(path, rows, sha256(path)) for path, rows in counts.items()]
