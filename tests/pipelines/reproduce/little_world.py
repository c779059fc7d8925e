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
    for name, count in (("train", 24), ("test", 10)):
        path = folder / "hh_rlhf" / f"helpful-base.{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rows = [_comparison(i) for i in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _comparison(number: int) -> dict[str, str]:
    ask = f"\n\nHuman: Is {number} even?\n\nAssistant: "
    return {"chosen": ask + f"It is {number % 2 == 0}.", "rejected": ask + "Who knows."}
