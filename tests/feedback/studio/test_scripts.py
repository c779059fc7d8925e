"""Which way texts run, and which language a screen reader should read them in."""

from __future__ import annotations

import pytest

from accord.feedback.scripts import script_of
from accord.feedback.store import CampaignSettings
from accord.feedback.store.tables import Item, Prompt
from accord.feedback.studio.scripts import spoken
from feedback.worlds import ranks


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


def test_reviews_tests_examples_and_notes_say_so_too(place):
    examples = CampaignSettings(examples=("שלום",), attempts=1)
    place.open(items=0, people=1, settings=examples)
    place.world.add_item("سلام", responses=("دا سم دی", "hello"))
    place.world.add_item("これは", kind="qualification", responses=("はい", "no"), expected={"はい": 1, "no": 2})
    asked = place.store.read(lambda s: s.get(Item, place.world.items[0]).prompt_id)
    place.store.run(lambda s: setattr(s.get(Prompt, asked), "language", "ps"))
    task = place.world.next(0)
    place.world.submit(task, 0, ranks(task, "no"))
    ada, rita, admin = place.person(), place.someone("reviewer"), place.someone("admin")
    admin.post(f"/admin/campaign/{place.world.campaign}/message/{ada.user_id}", {"text": "Γειά"})
    case = rita.get(f"/review/{place.world.campaign}/{place.world.items[0]}").text
    assert case.count('lang="ps" dir="rtl"') == 2
    assert ada.get(f"/c/{place.world.campaign}/qualify").text.count('lang="ja" dir="ltr"') == 2
    assert 'lang="he" dir="rtl"' in ada.get(f"/c/{place.world.campaign}/examples").text
    assert 'lang="el" dir="ltr"' in ada.get("/").text


def test_a_task_says_so_of_each_message(place):
    place.open(items=0, people=1)
    place.world.add_item("مرحبا بالعالم", responses=("שלום", "hello"))
    page = place.person().get(place.task_page).text
    for attributes in ('lang="ar" dir="rtl"', 'lang="he" dir="rtl"', 'lang="" dir="ltr"'):
        assert f"{attributes}>" in page
