"""Which way a text runs and, where its script tells, which language it is: for screen readers and fonts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

from markupsafe import Markup, escape

__all__ = ["script_of", "spoken"]

_SEEN = 600  # characters that are looked at
# Scripts that one language, or one above all others, is written in. Latin and Cyrillic tell nothing.
_LANGUAGES = {
    "HEBREW": "he", "GREEK": "el", "HANGUL": "ko", "KANA": "ja", "CJK": "zh", "THAI": "th", "GEORGIAN": "ka",
    "ARMENIAN": "hy", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml",
    "GUJARATI": "gu", "KHMER": "km", "LAO": "lo", "SINHALA": "si", "THAANA": "dv", "BURMESE": "my", "ETHIOPIC": "am",
}  # fmt: skip
_RIGHT_TO_LEFT = {"HEBREW", "ARABIC", "SYRIAC", "THAANA", "NKO", "ADLAM"}
_NAMES = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "MYANMAR": "BURMESE"}
_OF_ARABIC = (("ur", "ٹڈڑںے"), ("fa", "پچژگی"))  # letters that Arabic itself does not have


def script_of(text: str) -> str | None:
    """The script most letters are of, by its name in Unicode; None: no letters. Example: "שלום" is HEBREW."""
    counts = Counter(
        name for one in text[:_SEEN] if one.isalpha() and (name := _NAMES.get(first := _first(one), first))
    )
    if counts["KANA"] and counts["CJK"]:
        counts["KANA"] += counts["CJK"]  # Japanese is written in both
    return counts.most_common(1)[0][0] if counts else None


@lru_cache(maxsize=4096)
def _first(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def spoken(text: str, language: str | None = None) -> Markup:
    """The attributes `lang` and `dir` of a text.

    Args:
        text: the text.
        language: of its prompt, if that is known; it holds unless the script is another language's.

    Returns: `lang="he" dir="rtl"`; `lang=""` says that the language is not known, rather than that of the page.
    """
    script = script_of(text)
    if script is None:
        return Markup('dir="auto"')
    told = _LANGUAGES.get(script)
    if script == "ARABIC":
        told = next((name for name, letters in _OF_ARABIC if any(one in text for one in letters)), "ar")
    known = language if told is None or (language or "").partition("-")[0] == told else told
    return Markup('lang="{}" dir="{}"').format(escape(known or ""), "rtl" if script in _RIGHT_TO_LEFT else "ltr")
