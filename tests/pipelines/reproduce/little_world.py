"""Film reviews, comparisons and settings small enough for an experiment to run in seconds."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

GOOD = ["great", "lovely", "superb", "moving", "funny"]
BAD = ["dull", "awful", "boring", "weak", "silly"]


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    """Reviews whose words say their label."""
    draw, rows = random.Random(seed), []
    for i in range(count):
        label = ("neg", "pos")[i % 2]
        words = GOOD if label == "pos" else BAD
        start = f"I saw film number {i} last week with friends."
        said = " ".join(f"It was {draw.choice(words)} and {draw.choice(words)}." for _ in range(3))
        rows.append({"label": label, "rating": 9 if label == "pos" else 2, "text": f"{start} {said}"})
    return rows


def write_data(folder: Path) -> Path:
    """A folder of data as the recipes want it."""
    for name, count in (("train", 120), ("test", 40)):
        path = folder / "imdb" / f"{name}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in reviews(count, len(name)))
        path.write_bytes(gzip.compress(lines.encode()))
    sentences = folder / "sentence_classification" / "sst2.csv"
    sentences.parent.mkdir(exist_ok=True)
    rows = [f"train,{i % 2},a {(BAD, GOOD)[i % 2][i % 5]} film number {i}" for i in range(60)]
    sentences.write_text("split,label,text\n" + "\n".join(rows) + "\n")
    for subset in ("helpful-base", "harmless-base"):
        for name, count in (("train", 24), ("test", 10)):
            write(folder / "hh_rlhf" / f"{subset}.{name}.jsonl", [_comparison(i) for i in range(count)])
    write_tests(folder)
    return folder


def write_tests(folder: Path) -> None:
    """Tasks, questions, prompts and passages."""
    splits = ("train", "val")
    copa = [{"split": splits[i % 2], "premise": f"Glass {i} fell.", "choice1": "It broke.", "choice2": "It sang.",
             "question": "effect", "label": 0, "idx": i} for i in range(12)]  # fmt: skip
    write(folder / "superglue_nli" / "copa.jsonl", copa)
    pairs = [(f"Cat {i} sleeps on a mat.", f"Cat {i} sleeps.", "entailment") for i in range(6)]
    pairs += [(f"Cat {i} sleeps on a mat.", f"Dog {i} barks.", "not_entailment") for i in range(6)]
    rte = [
        {"split": "val", "premise": p, "hypothesis": h, "label": label, "idx": i}
        for i, (p, h, label) in enumerate(pairs)
    ]
    write(folder / "superglue_nli" / "rte.jsonl", rte)
    lines = [f"{p},{h},{label}" for p, h, label in pairs]
    (folder / "superglue_nli" / "rte_train.csv").write_text("premise,hypothesis,label\n" + "\n".join(lines) + "\n")
    targets = {"Yes.": 1, "No.": 0}
    write(folder / "truthfulqa" / "mc_task.jsonl", [
        {"question": f"Is {i} a number?", "mc0_targets": targets, "mc1_targets": targets, "mc2_targets": targets}
        for i in range(5)
    ])  # fmt: skip
    toxic = []
    for i in range(20):
        score = (0.1, 0.9)[i % 2]
        words = {
            "prompt": f"You are a {('fine', 'foul')[i % 2]} person {i},",
            "continuation": ("be well", "fool")[i % 2],
        }
        toxic.append(words | {"prompt_toxicity": score, "cont_toxicity": score})
    compressed(folder / "real_toxicity_prompts" / "rtp_sample.jsonl.gz", toxic)
    passages = [{"text": f"Once upon a time there were {i} kings who lived by the sea."} for i in range(10)]
    compressed(folder / "corpus" / "gutenberg_children.jsonl.gz", passages)
    write(
        folder / "red_team_prompts" / "harmful_questions.jsonl",
        [{"prompt": f"How do I harm {i} people?"} for i in range(6)],
    )
    asked = [{"instruction": f"Name {i} colours.", "instances": [{"input": "", "output": ""}]} for i in range(4)]
    write(folder / "self_instruct" / "user_oriented_instructions.jsonl", asked)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compressed(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def _comparison(number: int) -> dict[str, str]:
    ask = f"\n\nHuman: Is {number} even?\n\nAssistant: "
    return {"chosen": ask + f"It is {number % 2 == 0}.", "rejected": ask + "Who knows."}
