"""Which way a text runs and, where its script tells, which language it is: for screen readers and fonts."""

from __future__ import annotations

from markupsafe import Markup, escape

from accord.feedback.scripts import script_of

__all__ = ["spoken"]

# Scripts that one language, or one above all others, is written in. Latin and Cyrillic tell nothing.
_LANGUAGES = {
    "HEBREW": "he", "GREEK": "el", "HANGUL": "ko", "KANA": "ja", "CJK": "zh", "THAI": "th", "GEORGIAN": "ka",
    "ARMENIAN": "hy", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml",
    "GUJARATI": "gu", "KHMER": "km", "LAO": "lo", "SINHALA": "si", "THAANA": "dv", "MYANMAR": "my", "ETHIOPIC": "am",
}  # fmt: skip
# Others that are written in a script of the table: a language that is known stays what it is.
_SHARED = {
    "HEBREW": "yi lad", "ARABIC": "ar fa ur ps ku ckb sd ug ks pa az uz ms prs azb bal bgn", "BENGALI": "as mni bpy",
    "CJK": "ja ko yue wuu nan hak gan cmn lzh vi", "KANA": "ain ryu", "ETHIOPIC": "ti gez tig", "GREEK": "grc",
    "GEORGIAN": "xmf sva", "MYANMAR": "shn mnw ksw", "KANNADA": "tcy kok", "THAI": "nod tts", "MALAYALAM": "kok",
}  # fmt: skip
_RIGHT_TO_LEFT = {"HEBREW", "ARABIC", "SYRIAC", "THAANA", "NKO", "ADLAM"}
_OF_ARABIC = (("ur", "ٹڈڑںے"), ("fa", "پچژگی"))  # letters that Arabic itself does not have


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
    own = (language or "").partition("-")[0].lower()
    known = language if told is None or own in (told, *_SHARED.get(script, "").split()) else told
    return Markup('lang="{}" dir="{}"').format(escape(known or ""), "rtl" if script in _RIGHT_TO_LEFT else "ltr")
