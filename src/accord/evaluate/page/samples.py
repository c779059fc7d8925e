"""Responses to read: the same prompt before and after training, or at several steps of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from accord.evaluate.page.files import Row, number, stage_of
from accord.evaluate.page.parts import baseline_of, stage_name, stages_in_order
from accord.evaluate.page.svg import StageStyle, fixed, stage_style, stage_styles

__all__ = ["Answer", "Sample", "Samples", "compare_stages", "compare_steps"]

MOST_PROMPTS = 200
MOST_CHARACTERS = 6000
MOST_STEPS = 4  # shown side by side


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response with its figures: `facts` are (name, value) in words."""

    label: str
    style: StageStyle
    response: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A prompt as turns of (role, text), and what was answered."""

    title: str
    turns: Sequence[tuple[str, str]]
    answers: Sequence[Answer]
    gain: float | None = None  # reward of the last answer less that of the first
    is_cut: bool = False  # a response was cut off by length, as far as the file says


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the browser shows, and the sentence above it."""

    intro: str
    shown: Sequence[Sample]


def compare_stages(rows: Sequence[Row]) -> Samples | None:
    """Side by side: the first response of every stage to each held-out prompt, in the order of the file."""
    by_prompt: dict[str, dict[str, Row]] = {}
    repeated = False
    for row in rows:
        answers = by_prompt.setdefault(str(row.get("prompt_id", _plain(row.get("prompt")))), {})
        repeated |= stage_of(row) in answers
        answers.setdefault(stage_of(row), row)
    styles = stage_styles(stages_in_order(stage_of(row) for row in rows))
    items = [_stage_sample(answers, styles) for answers in by_prompt.values()]
    order = "All held-out prompts in the order of the file; none was picked."
    extra = " Of several responses to a prompt the first is shown." if repeated else ""
    return _samples(order + extra, items)


def compare_steps(rows: Sequence[Row]) -> Samples | None:
    """The responses a run wrote down while it trained, by prompt; of many steps the first, the last and two between."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(_plain(row.get("prompt")), []).append(row)
    items = [_step_sample(answers) for answers in by_prompt.values()]
    return _samples("Responses noted during training, oldest first.", items)


def _samples(intro: str, items: Sequence[Sample]) -> Samples | None:
    if not items:
        return None
    if len(items) > MOST_PROMPTS:
        intro += f" The first {MOST_PROMPTS} of {len(items)} prompts are here; the rest is in the run folder."
    return Samples(intro=intro, shown=items[:MOST_PROMPTS])


def _stage_sample(answers: dict[str, Row], styles: Mapping[str, StageStyle]) -> Sample:
    ordered, baseline = stages_in_order(answers), baseline_of(answers)
    shown = [
        Answer(
            label=stage_name(stage),
            style=styles[stage],
            response=_cut(answers[stage].get("response")),
            facts=_facts(answers[stage], answers.get(baseline) if stage != baseline else None),
        )
        for stage in ordered
    ]
    first, last = answers[ordered[0]], answers[ordered[-1]]
    key = next((key for key in ("gold_reward", "reward_model_score") if key in last), "preferred")
    sample = _sample(first, shown, _gain(first, last, key))
    return replace(sample, is_cut=any(row.get("cut") is True for row in answers.values()))


def _step_sample(rows: Sequence[Row]) -> Sample:
    if len(rows) > MOST_STEPS:
        rows = [rows[round(i * (len(rows) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]
    shown = [
        Answer(
            label="Response" if (step := number(row.get("step"))) is None else f"Step {step:g}",
            style=stage_style("", 0),
            response=_cut(row.get("response")),
            facts=_facts(row, None),
        )
        for row in rows
    ]
    return _sample(rows[0], shown, _gain(rows[0], rows[-1], "reward"))


def _sample(row: Row, answers: Sequence[Answer], gain: float | None) -> Sample:
    turns = _turns(row.get("prompt"))
    line = " ".join(turns[-1][1].split())
    return Sample(title=line if len(line) <= 80 else line[:79] + "…", turns=turns, answers=answers, gain=gain)


def _gain(first: Row, last: Row, key: str) -> float | None:
    before, after = number(first.get(key)), number(last.get(key))
    return None if before is None or after is None or first is last else round(after - before, 6)


def _facts(row: Row, base: Row | None) -> list[tuple[str, str]]:
    facts = []
    for key, words in (("gold_reward", "gold reward"), ("reward", "reward"), ("preferred", "preferred, tie 0.5")):
        value = number(row.get(key))
        against = None if base is None else number(base.get(key))
        if value is not None:
            change = "" if against is None else f" ({'+' * (value >= against)}{fixed(value - against)})"
            facts.append((words, fixed(value) + change.replace("-", "\u2212")))
    for key, words, unit in (
        ("reward_model_score", "reward model", ""), ("kl", "KL", " nats"), ("length", "length", " tokens")
    ):  # fmt: skip
        value = number(row.get(key))
        if value is not None:
            facts.append((words, f"{value:g}{unit}" if key == "length" else fixed(value) + unit))
    return facts


def _turns(prompt: object) -> list[tuple[str, str]]:
    """A prompt as it is written in records: a string, or a list of messages."""
    if isinstance(prompt, list) and prompt and all(isinstance(turn, dict) for turn in prompt):
        return [(str(turn.get("role", "")), _cut(turn.get("content"))) for turn in prompt]
    return [("", _cut(prompt))]


def _cut(text: object) -> str:
    plain = _plain(text)
    return (
        plain if len(plain) <= MOST_CHARACTERS else plain[:MOST_CHARACTERS] + f" … ({len(plain):,} characters in all)"
    )


def _plain(text: object) -> str:
    return "" if text is None else text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
