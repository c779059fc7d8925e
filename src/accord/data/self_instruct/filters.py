"""What is not kept, and why: instructions (step 2) and instances (step 5). The first rule that applies counts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from accord.data.self_instruct.seeds import Instance
from accord.overlap import Novelty

__all__ = ["bad_instruction", "keep_instances"]

_BLOCKED = re.compile(
    r"(?i)\b(images?|graphs?|pictures?|files?|maps?|draw|plots?|go to|videos?|audio|music|flowcharts?|diagrams?)\b"
)
_ELSEWHERE = re.compile(
    r"(?i)https?://|www\.|\burl\b|\battach(?:ed|ment|ments)\b|\buploaded\b|\bthe (?:given|following) link\b"
)
_NOT_SAID = {"n/a", "na", "<noinput>", "<nooutput>"}


def bad_instruction(text: str, pool: Novelty) -> tuple[str, list[tuple[float, int]]]:
    """Why an instruction is not kept ("" if it is), and the 10 nearest of the pool where it came to that.

    Args:
        text: the instruction, tidied.
        pool: seeds and accepted instructions; f1 above its threshold is too close.
    """
    words = text.split()
    if len(words) <= 3:
        return "too short", []
    if len(words) > 150:
        return "too long", []
    if _BLOCKED.search(text):
        return "blocked word", []
    if text.lower().startswith("write a program"):
        return "asks for a program", []
    if unicodedata.category(text[0])[0] in "PS":
        return "begins with punctuation", []
    if not pool.is_new(text):
        return "too close to a known one", pool.nearest(text, 1, pool.threshold)
    return "", nearest(pool, text)


def nearest(pool: Novelty, text: str, count: int = 10) -> list[tuple[float, int]]:
    """The nearest of a pool, by floors that fall until there are enough: most have ten neighbours that are not far."""
    found: list[tuple[float, int]] = []
    for floor in (0.4, 0.2, 0.0):
        found = pool.nearest(text, count, floor)
        if len(found) == count:
            break
    return found


def keep_instances(
    instruction: str, instances: Sequence[Instance], most: int
) -> tuple[list[Instance], list[tuple[Instance, str]]]:
    """Instances that are kept, at most so many, and those that are not, each with the reason."""
    kept: list[Instance] = []
    rejected: list[tuple[Instance, str]] = []
    outputs: dict[str, set[str]] = {}
    for given, output in instances:
        outputs.setdefault(given, set()).add(output)
    for instance in instances:
        reason = _bad_instance(instruction, instance)
        if not reason and instance in kept:
            reason = "repeated"
        if not reason and instance.input and len(outputs[instance.input]) > 1:
            reason = "same input, different outputs"
        if not reason and len(kept) == most:
            reason = "more than asked for"
        if reason:
            rejected.append((instance, reason))
        else:
            kept.append(instance)
    return kept, rejected


def _bad_instance(instruction: str, instance: Instance) -> str:
    given, output = instance
    if not output or output.lower() in _NOT_SAID:
        return "empty output"
    if given == output:
        return "input equals output"
    if given.endswith(":") or output.endswith(":"):
        return "ends with a colon"
    if _ELSEWHERE.search(instruction) or _ELSEWHERE.search(given):
        return "needs an address or an attachment"
    return ""
