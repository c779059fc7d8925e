"""What models write is hostile: it reaches the page as text, code and formulas, and as nothing else."""

from __future__ import annotations

import re

import pytest

from accord.feedback.studio.rendering import render, visible

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox)",
    "<a href='x' onclick='alert(1)'>y</a>",
    "![x](javascript:alert(1))",
    '![x](https://evil.example/p.png "onerror=alert(1)")',
    "```html\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "`<script>alert(1)</script>`",
    r"$\text{<script>alert(1)</script>}$",
    r"$\href{javascript:alert(1)}{x}$",
    "$$\n\\text{<img src=x onerror=alert(1)>}\n$$",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<style>@import 'https://evil.example'</style>",
    "<iframe src=//evil.example></iframe>",
    "<form action=//evil.example><input name=csrf></form>",
    "[a]: javascript:alert(1)\n\n[a]",
    '<https://a.example/?q="onmouseover=alert(1)>',
    "| a |\n|---|\n| <script>alert(1)</script> |",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_runs_or_loads_gets_through(attack):
    made = render(attack)
    tags = set(re.findall(r"<\s*([a-z0-9]+)", made))
    assert not tags & {"script", "img", "svg", "iframe", "style", "form", "input", "object", "embed", "link", "base"}
    inside = "".join(re.findall(r"<[^>]+>", made)).lower()
    assert "javascript:" not in inside
    assert not re.search(r"\son\w+\s*=", inside)
    assert "style=" not in inside


def test_a_link_says_where_it_goes_and_takes_nothing_along():
    made = render("[my bank](https://evil.example/login)")
    assert 'href="https://evil.example/login"' in made
    assert 'rel="noopener noreferrer nofollow"' in made
    assert "(evil.example)" in made
    assert "(a.example)" not in render("<https://a.example>")  # its text says so already


def test_an_image_is_its_words_and_its_address():
    made = render("![a cat](https://evil.example/track.png)")
    assert "[image: a cat · https://evil.example/track.png]" in made


def test_characters_that_hide_text_are_spelled_out():
    assert visible("a\u202eb\u2066c\u200bd") == "a⟦U+202E⟧b⟦U+2066⟧c⟦U+200B⟧d"
    assert visible("a\x00b\x1b[31m") == "a⟦U+0000⟧b⟦U+001B⟧[31m"
    assert visible("one\r\ntwo\tthree") == "one\ntwo\tthree"


def test_joiners_stay_where_scripts_and_emoji_need_them():
    assert visible("می\u200cخواهم") == "می\u200cخواهم"  # noqa: RUF001
    assert visible("👩\u200d🚀") == "👩\u200d🚀"
    assert visible("pass\u200dword") == "pass⟦U+200D⟧word"


def test_mathematics_becomes_mathml():
    made = render(r"Half is $\frac{1}{2}$, and \(x^2\) a square." + "\n\n$$\n\\sum_i x_i\n$$\n")
    assert made.count("<math") == 3
    assert re.search(r"<mfrac>.*<mn>1</mn>.*<mn>2</mn>.*</mfrac>", made)
    assert 'display="block"' in made


def test_money_is_no_mathematics():
    assert "<math" not in render("It costs $5 and then $6.")


def test_a_formula_too_long_to_typeset_is_shown_as_it_stands():
    source = "x + " * 600 + "y"
    made = render(f"${source}$")
    assert "<math" not in made
    assert source in made


def test_code_has_the_colours_of_its_language():
    assert '<span class="k">def</span>' in render("```python\ndef f(): pass\n```")
    assert "<span" not in render("```nosuchlanguage\ndef f(): pass\n```")


def test_deep_nesting_ends():
    assert len(render(">" * 5000 + " x")) < 100_000
