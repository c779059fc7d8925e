"""Which script a text is written in."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

__all__ = ["script_of"]

_SEEN = 2000  # characters that are looked at


def script_of(text: str) -> str | None:
    """The script most letters are of, as Unicode names it; None: no letters. Example: "שלום" is HEBREW.

    Japanese, which is written in Hiragana, Katakana and Chinese characters, is KANA: a tenth of its letters or more are
    kana, while a single one in a Chinese text is an ornament.
    """
    counts = Counter(name for one in text[:_SEEN] if one.isalpha() and (name := _first(one)))
    kana = counts.pop("HIRAGANA", 0) + counts.pop("KATAKANA", 0)
    if kana and 10 * kana >= kana + counts["CJK"]:
        counts["KANA"] = kana + counts.pop("CJK", 0)
    return counts.most_common(1)[0][0] if counts else None


@lru_cache(maxsize=4096)
def _first(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]
