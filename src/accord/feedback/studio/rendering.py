"""Text of models and people as HTML that can do no harm: what a model writes is hostile input.

Markdown by markdown-it-py with HTML off, code by Pygments, mathematics by latex2mathml to MathML, and all of it through
nh3 with a list of what is allowed. Links show where they go, images are never loaded, and characters that hide or turn
text around are made visible.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

__all__ = ["anchor", "anchors", "render", "render_with_anchors", "visible"]

_LONGEST_CODE = 20_000  # characters that are coloured; longer code is shown plain
_LONGEST_FORMULA = 2_000
_LONGEST_KEPT = 4_000

_TEXT = "a b blockquote br code del div em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span strong sub sup u ul"
_TABLES = "table thead tbody tr th td"
_MATH = (
    "math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace "
    "msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none semantics"
)
_TAGS = set(f"{_TEXT} {_TABLES} {_MATH}".split())
_MATH_ATTRIBUTES = {
    "accent", "close", "columnalign", "columnlines", "depth", "display", "displaystyle", "fence", "form", "height",
    "largeop", "linethickness", "lspace", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "open",
    "rowlines", "rspace", "scriptlevel", "separators", "stretchy", "symmetric", "voffset", "width",
}  # fmt: skip
_ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "title"},
    "ol": {"start"},
    "code": {"class"},
    "span": {"class"},
    "div": {"class"},
    "pre": {"class"},
    **dict.fromkeys(_MATH.split(), _MATH_ATTRIBUTES),
}
_CLASS = re.compile(r"[a-z][a-z0-9]{0,3}|code|target|address|formula")  # Pygments' short names, and ours
_JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji are spelled with them


def visible(text: str) -> str:
    r"""Spell out characters that cannot be seen: bidirectional controls, zero-width ones, control characters.

    Joiners stay between letters of scripts that are written with them. Example: `a\u202eb` becomes `a⟦U+202E⟧b`.
    """
    return "".join(_shown(text, place) for place in range(len(text))) if not text.isascii() else _plain(text)


def _plain(text: str) -> str:
    return "".join(c if c in "\n\t" or c.isprintable() else f"⟦U+{ord(c):04X}⟧" for c in text.replace("\r\n", "\n"))


def _shown(text: str, place: int) -> str:
    character = text[place]
    if character == "\r" and text[place + 1 : place + 2] == "\n":
        return ""
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    around = text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
    if character in _JOINERS and len(around) == 2 and not around.isascii() and not around[0].isascii():
        return character
    return f"⟦U+{ord(character):04X}⟧"


def render(text: str) -> str:
    """Return safe HTML of a markdown text. Short ones are remembered: 4,096 long ones would fill the memory."""
    return _remembered(text) if len(text) <= _LONGEST_KEPT else _rendered(text)


_HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)


def anchor(words: str) -> str:
    """The name of a place in a guideline, by its heading. Example: "Makes things up" is "makes-things-up"."""
    return "-".join(re.findall(r"[^\W_]+", words.casefold()))


@lru_cache(maxsize=64)
def render_with_anchors(text: str) -> str:
    """Return safe HTML of a guideline, whose headings are places one can go to: `id="guide-..."`, each name once."""
    seen: set[str] = set()

    def place(match: re.Match[str]) -> str:
        level, inside = match.groups()
        name = anchor(html.unescape(re.sub(r"<[^>]+>", "", inside)))
        if not name or name in seen:
            return match[0]
        seen.add(name)
        return f'<h{level} id="guide-{name}">{inside}</h{level}>'

    return _HEADING.sub(place, render(text))


def anchors(text: str) -> frozenset[str]:
    """The places of a guideline, without "guide-"."""
    return frozenset(re.findall(r'<h[1-6] id="guide-([^"]+)">', render_with_anchors(text)))


@lru_cache(maxsize=2048)
def _remembered(text: str) -> str:
    return _rendered(text)


def _rendered(text: str) -> str:
    return nh3.clean(
        _markdown().render(visible(text)),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_allow,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        generic_attribute_prefixes=set(),
    )


def _allow(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        kept = [one for one in value.split() if _CLASS.fullmatch(one)]
        return " ".join(kept) or None
    return value


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _code, "maxNesting": 40})
    markdown.enable(["table", "strikethrough"])
    dollarmath_plugin(markdown, allow_digits=False, double_inline=True, renderer=_formula_of)
    texmath_plugin(markdown, delimiters="brackets")
    for name, display in (("math_inline", "inline"), ("math_block", "block"), ("math_block_eqno", "block")):
        markdown.add_render_rule(name, _formula_rule(display))
    markdown.add_render_rule("math_inline_double", _formula_rule("block"))
    markdown.add_render_rule("link_close", _link_close)
    markdown.add_render_rule("image", _image)
    return markdown


def _formula_of(content: str, options: Any) -> str:
    return _formula(content, "block" if options.get("display_mode") else "inline")


def _formula_rule(display: str) -> Callable[[RendererHTML, Sequence[Token], int, Any, Any], str]:
    def rule(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        return _formula(tokens[at].content, display)

    return rule


def _formula(source: str, display: str) -> str:
    """MathML, or the source as code where it is no LaTeX that is understood."""
    if len(source) <= _LONGEST_FORMULA:
        try:
            return str(convert(source.strip(), display=display))
        except Exception:  # the converter raises what it happens to stumble on
            pass
    return f'<code class="formula">{html.escape(source)}</code>'


def _code(source: str, language: str, _: str) -> str:
    """A fence, coloured by the language it names."""
    try:
        lexer = get_lexer_by_name(language) if language and len(source) <= _LONGEST_CODE else None
    except ClassNotFound:
        lexer = None
    inside = html.escape(source) if lexer is None else highlight(source, lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="code"><code>{inside}</code></pre>'


def _link_close(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """Say where a link goes, unless its text says so."""
    opened = next(
        token for token in reversed(tokens[:at]) if token.type == "link_open" and token.level == tokens[at].level
    )
    address = str(opened.attrGet("href") or "")
    said = "".join(token.content for token in tokens[tokens.index(opened) : at])
    shown = "" if said == address else f' <span class="target">({html.escape(_host(address))})</span>'
    return f"</a>{shown}"


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or address
    except ValueError:
        return address


def _image(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    address = html.escape(str(tokens[at].attrGet("src") or ""))
    return f'<span class="address">[image: {html.escape(tokens[at].content)} · {address}]</span>'
