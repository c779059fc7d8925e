"""Which way texts run, and which language a screen reader should read them in."""

from __future__ import annotations

import pytest

from accord.feedback.scripts import script_of
from accord.feedback.studio.scripts import spoken


@pytest.mark.parametrize(
    ("text", "language", "made"),
    [
        ("Hello there", None, 'lang="" dir="ltr"'),
        ("Hello there", "en", 'lang="en" dir="ltr"'),
        ("שלום לכולם, ok?", None, 'lang="he" dir="rtl"'),
        ("1. שלום", "en", 'lang="he" dir="rtl"'),  # the script says otherwise than the prompt's language
        ("مرحبا بالعالم", None, 'lang="ar" dir="rtl"'),
        ("سلام، چطوری؟", None, 'lang="fa" dir="rtl"'),
        ("آپ کیسے ہیں", None, 'lang="ur" dir="rtl"'),
        ("これは漢字とかなです", None, 'lang="ja" dir="ltr"'),
        ("这是中文", "zh-Hant", 'lang="zh-Hant" dir="ltr"'),
        ("Привет", "uk", 'lang="uk" dir="ltr"'),
        ("دا سم دی", "ps", 'lang="ps" dir="rtl"'),  # languages that share a script keep theirs
        ("מה נשמע", "yi", 'lang="yi" dir="rtl"'),
        ("অসমীয়া", "as-IN", 'lang="as-IN" dir="ltr"'),
        ("日本", "ja", 'lang="ja" dir="ltr"'),
        ("日本", "yue", 'lang="yue" dir="ltr"'),
        ("日本", "en", 'lang="zh" dir="ltr"'),
        ("ሰላም", "TI", 'lang="TI" dir="ltr"'),
        ("这是中文的の字 一个假名不算数", None, 'lang="zh" dir="ltr"'),
        ("カタカナ と ｶﾀｶﾅ", "en", 'lang="ja" dir="ltr"'),
        ("12 + 3 = 15", "en", 'dir="auto"'),
        ("x", '"><script>', 'lang="&#34;&gt;&lt;script&gt;" dir="ltr"'),
    ],
)
def test_texts_carry_their_language_and_direction(text, language, made):
    assert str(spoken(text, language)) == made


def test_the_script_is_that_of_most_letters():
    assert script_of("The word שלום means peace") == "LATIN"
    assert script_of("...") is None


def test_a_task_says_so_of_each_message(place):
    place.open(items=0, people=1)
    place.world.add_item("مرحبا بالعالم", responses=("שלום", "hello"))
    page = place.person().get(place.task_page).text
    for attributes in ('lang="ar" dir="rtl"', 'lang="he" dir="rtl"', 'lang="" dir="ltr"'):
        assert f"{attributes}>" in page
