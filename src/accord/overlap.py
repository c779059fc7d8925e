"""How much of one text is in another: ROUGE-L on words. Standard library only."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Novelty", "Overlap", "Tokens", "rouge_l", "words"]

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
    first, second = (words(text, tokens) for text in (candidate, reference))
    if not first or not second:
        return Overlap(0.0, 0.0, 0.0)
    common = _common_subsequence(first, second)
    return Overlap(common / len(first), common / len(second), 2 * common / (len(first) + len(second)))


def words(text: str, tokens: Tokens = "ascii") -> list[str]:
    """Return the tokens of a text as `rouge_l` counts them.

    Raises:
        ValueError: an unknown kind of tokens.
    """
    if tokens not in _TOKEN:
        raise ValueError(f"`tokens` is {tokens!r}; expected 'ascii' or 'unicode'")
    return _TOKEN[tokens].findall(text.lower())


def _common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one integer (Hyyrö 2004).

    Bit i of `row` is 0 where the table grows by one at token i of `first`; each step costs a few additions of big
    integers instead of a loop over `first`.
    """
    return _matched(_places(first), len(first), second)


def _places(first: Sequence[Hashable]) -> dict[Hashable, int]:
    """Where each token stands, as the bits of an integer."""
    places: dict[Hashable, int] = {}
    for position, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << position
    return places


def _matched(places: Mapping[Hashable, int], length: int, second: Sequence[Hashable]) -> int:
    everything = row = (1 << length) - 1
    for token in second:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & everything
    return length - row.bit_count()


class Novelty:
    """A growing pool of texts, and whether another one is new: `rouge_l` f1 with each of them at most a threshold.

    Exact, and quick where the pool is large, because most texts are ruled out without a longest common subsequence:
    f1 = 2 LCS / (a + b), LCS <= min(a, b), and LCS <= the tokens two texts share, counted as multisets. The pool is an
    inverted index (token -> texts that have it); walking the lists of a candidate's tokens, the rarest first, counts
    the shared tokens of all texts at once.

    Args:
        threshold: 0 < threshold < 1; above it a text is not new. Self-Instruct takes 0.7.
        tokens: as `rouge_l`.

    Example: after `pool.add("Name three colours.")`, `pool.nearest("Name three colours!")` is `[(1.0, 0)]`.
    """

    def __init__(self, threshold: float = 0.7, tokens: Tokens = "ascii") -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"`threshold` is {threshold}; expected a number between 0 and 1")
        self.threshold, self._tokens = threshold, tokens
        self._texts: list[list[str]] = []
        self._having: dict[tuple[str, int], list[int]] = {}

    def __len__(self) -> int:
        """How many texts are in the pool."""
        return len(self._texts)

    def add(self, text: str) -> int:
        """Put a text into the pool, new or not; returns its number."""
        found, number = words(text, self._tokens), len(self._texts)
        self._texts.append(found)
        for key in _numbered(found):
            self._having.setdefault(key, []).append(number)
        return number

    def nearest(self, text: str, count: int = 10, floor: float = 0.0) -> list[tuple[float, int]]:
        """The texts of the pool that are most alike: (f1, number), the largest first, equal ones by number.

        Args:
            text: to compare.
            count: of them, at most.
            floor: only those with an f1 above it; a high floor is quick.
        """
        found = words(text, self._tokens)
        places, length = _places(found), len(found)
        best: list[tuple[float, int]] = []  # a heap, the worst of the best first
        for bound, number in self._bounded(found, floor):
            if len(best) == count and (bound, -number) <= best[0]:
                if bound < best[0][0]:
                    break  # they come by their bound: no later one can be better
                continue
            other = self._texts[number]
            f1 = 2 * _matched(places, length, other) / (length + len(other))
            if f1 > floor:
                heapq.heappush(best, (f1, -number))
                if len(best) > count:
                    heapq.heappop(best)
        return [(f1, -number) for f1, number in sorted(best, reverse=True)]

    def _bounded(self, found: Sequence[str], floor: float) -> list[tuple[float, int]]:
        """Upper bound of f1 and number of the texts that can be above the floor, largest bound first.

        Texts above it share more than floor * a / (2 - floor) tokens with the candidate (from 2 s / (a + b) > floor and
        b >= s), so they are in the list of one of the others: the longest lists, those of the commonest tokens, need
        not be walked. All of the tokens left out are counted as shared, up to what the text has.
        """
        length, texts = len(found), self._texts
        lists = sorted((self._having.get(key, []) for key in _numbered(found)), key=len)
        left_out = int(floor * length / (2 - floor) + 1e-9)
        shared: Counter[int] = Counter()
        for numbers in lists[: length - left_out]:
            shared.update(numbers)
        bounds = []
        for number, common in shared.items():
            size = len(texts[number])
            bound = 2 * min(common + left_out, size) / (length + size)
            if bound > floor:
                bounds.append((bound, number))
        return sorted(bounds, key=lambda pair: (-pair[0], pair[1]))

    def is_new(self, text: str) -> bool:
        """Whether no text of the pool is closer than the threshold."""
        return not self.nearest(text, count=1, floor=self.threshold)


def _numbered(found: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each token with how often it has come before: lists of these have as much in common as the multisets."""
    seen: Counter[str] = Counter()
    for token in found:
        yield token, seen[token]
        seen[token] += 1
