"""Little tasks that a random two-layer model learns in seconds."""

import json
from pathlib import Path

WORDS = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def demonstrations(path: Path, count: int = 32) -> Path:
    """The response repeats the prompt's word."""
    return write(path, [{"prompt": WORDS[i % 8], "response": WORDS[i % 8]} for i in range(count)])


def comparisons(path: Path, count: int = 32) -> Path:
    """Responses with "z" lose to responses with "a", whatever their length."""
    rows = []
    for i in range(count):
        long, short = "{0}" * (2 + i % 3), "{0}" * (1 + i % 2)
        good, bad = (long, short) if i % 2 else (short, long)
        rows.append({"prompt": WORDS[i % 8], "chosen": good.format("a"), "rejected": bad.format("z")})
    return write(path, rows)


def rankings(path: Path, count: int = 24) -> Path:
    """ "aa" before two "m"s that tie, before "zz"; every third row has a failed response."""
    rows = []
    for i in range(count):
        responses = ["m", "aa", "zz", "mm"]
        ranks = [2, 1, None if i % 3 == 0 else 3, 2]
        rows.append({"prompt": WORDS[i % 8], "responses": responses, "ranks": ranks})
    return write(path, rows)


def prompts(path: Path, count: int = 64) -> Path:
    return write(path, [{"prompt": WORDS[i % 8]} for i in range(count)])


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def many_a(conversations):
    """Reward: share of the letter a in the response, minus a little per character."""
    return [c[-1].content.count("a") / max(1, len(c[-1].content)) for c in conversations]
