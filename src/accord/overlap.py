"""How much of one text is in another: ROUGE-L on words. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Overlap", "Tokens", "rouge_l"]

Tokens: TypeAlias = Literal["ascii", "unicode"]

# Scripts written without spaces: kana, ideographs (extension A too), hangul. Each character is a token of its own.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = {"ascii": re.compile(r"[a-z0-9]+"), "unicode": re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")}


class Overlap(NamedTuple):
    """Shares of common tokens, 0 to 1: of the candidate's (precision), of the reference's (recall), of both (f1)."""

    precision: float
    recall: float
    f1: float


def rouge_l(candidate: str, reference: str, tokens: Tokens = "ascii") -> Overlap:
    """Longest common subsequence of the words of two texts (Lin 2004, ROUGE-L, with the plain F1).

        precision = LCS / len(candidate),   recall = LCS / len(reference),   f1 = 2 LCS / (len + len)

    Args:
        candidate: a text.
        reference: another; swapping the two swaps precision and recall.
        tokens: "ascii", runs of a-z and 0-9 of the lower-cased text without stemming, as Self-Instruct
            (arXiv:2212.10560) filters; texts in other scripts have no such tokens. "unicode", runs of letters and
            digits of any script, lower-cased, each kana, ideograph and hangul syllable a token of its own.

    Returns: all 0 if either text has no token, all 1 for equal tokens.

    Raises:
        ValueError: an unknown kind of tokens.
    """
    if tokens not in _TOKEN:
        raise ValueError(f"`tokens` is {tokens!r}; expected 'ascii' or 'unicode'")
    first, second = (_TOKEN[tokens].findall(text.lower()) for text in (candidate, reference))
    if not first or not second:
        return Overlap(0.0, 0.0, 0.0)
    common = _common_subsequence(first, second)
    return Overlap(common / len(first), common / len(second), 2 * common / (len(first) + len(second)))


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one integer (Hyyrö 2004).

    Bit i of `row` is 0 where the table grows by one at token i of `first`; each step costs a few additions of big
    integers instead of a loop over `first`.
    """
    places: dict[str, int] = {}
    for position, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << position
    everything = row = (1 << len(first)) - 1
    for token in second:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(first) - row.bit_count()
