"""Words of the demonstration: consent, guideline, questions with four answers each. All of them ours."""

from __future__ import annotations

__all__ = ["CONSENT", "GUIDELINE", "QUESTIONS"]

CONSENT = """\
## What is kept of your work

This is a demonstration on a machine of your own. The studio keeps **your answers**, the order in which responses were
shown to you, and when you answered. Other annotators do not see your answers; admins see them under a pseudonym.

You may stop at any time, skip any task, and take this consent back on your account page.
"""

GUIDELINE = """\
## What makes an answer good

1. **It does what was asked.** An answer to another question is no answer, however well it reads.
2. **It is right.** One wrong fact weighs more than a nice style.
3. **It is as long as it needs to be.** Longer is not better.
4. **It is honest** about what it does not know.

## Ties

Use a tie when you would be equally glad to get either. Do not toss a coin.

## When an answer failed

Mark an answer as failed when it is nonsense, off topic, or no answer at all. Two failed answers are not compared.

## Code and mathematics

Go by what it says. If you cannot judge it, skip the task: *it needs knowledge I do not have*.
"""

_BRIEF, _PLAIN, _CHATTY, _POOR = "brief-1", "plain-2", "chatty-3", "early-0"

QUESTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Why does bread dough rise?",
        (
            (
                _BRIEF,
                "Yeast eats sugar in the flour and gives off carbon dioxide. Gluten, the stretchy protein of the dough, "
                "traps the gas in bubbles, so the dough grows.",
            ),
            (
                _CHATTY,
                "What a lovely question! Bread has been with us for thousands of years, and its rise is a small wonder. "
                "When you knead, you feel the dough come alive under your hands.\n\nIn short: yeast makes gas, and the "
                "dough holds on to it. Isn't that wonderful? Let me know if you would like a recipe!",
            ),
            (_POOR, "Bread dough rises because the air in the oven is hot and hot air goes up."),
            (
                _PLAIN,
                "Three things work together:\n\n- **Yeast** turns sugar into carbon dioxide and alcohol.\n- **Gluten** "
                "forms a net that holds the gas.\n- **Warmth** makes the yeast work faster; in the oven the bubbles "
                "expand once more until the crust sets.",
            ),
        ),
    ),
    (
        "Write a Python function that says whether a word is a palindrome. Ignore upper and lower case.",
        (
            (
                _PLAIN,
                "```python\ndef is_palindrome(word: str) -> bool:\n    word = word.casefold()\n    return word == "
                "word[::-1]\n```\n\n`is_palindrome(\"Level\")` is `True`.",
            ),
            (
                _POOR,
                "```python\ndef is_palindrome(word):\n    return word == word[::-1]\n```\n\nThis works for every word.",
            ),
            (
                _CHATTY,
                "Sure! A palindrome reads the same both ways. Here is a careful version that compares from both ends:\n\n"
                "```python\ndef is_palindrome(word):\n    word = word.lower()\n    left, right = 0, len(word) - 1\n"
                "    while left < right:\n        if word[left] != word[right]:\n            return False\n"
                "        left += 1\n        right -= 1\n    return True\n```\n\nIt stops at the first difference.",
            ),
            (_BRIEF, "```python\nis_palindrome = lambda w: (w := w.lower()) == w[::-1]\n```"),
        ),
    ),
    (
        "What is the sum of the first 100 whole numbers, and how does one see that quickly?",
        (
            (
                _PLAIN,
                "It is $5050$. Pair the first with the last: $1 + 100 = 101$, $2 + 99 = 101$, and so on, 50 pairs in "
                "all.\n\n$$\n\\sum_{k=1}^{n} k = \\frac{n(n+1)}{2}\n$$",
            ),
            (_BRIEF, "5050, as there are 50 pairs of 101."),
            (_POOR, "The sum is 5000, because the mean is 50 and there are 100 numbers."),
            (
                _CHATTY,
                "The story goes that young Gauss found it at school while his teacher hoped for a quiet hour. Add the "
                "numbers $1, 2, 3, \\dots$ to the same numbers backwards: each column gives $101$, there are $100$ "
                "columns, and each number was counted twice, so the sum is $\\frac{100 \\cdot 101}{2} = 5050$.",
            ),
        ),
    ),
    (
        "I have to give a talk tomorrow and I am very nervous. What can I do tonight?",
        (
            (
                _PLAIN,
                "Some things help most people:\n\n1. Say the first two minutes aloud, three times. A safe start calms.\n"
                "2. Look at the room or the link, and have your slides in two places.\n3. Write on a card what you would "
                "say if you lost the thread.\n4. Then stop, and sleep. A rested head is worth more than a last "
                "rehearsal.\n\nBeing nervous is not visible from the seats as much as it feels.",
            ),
            (_BRIEF, "Rehearse the beginning aloud, pack your things, go to bed early."),
            (_POOR, "Talks are given to audiences. The first talks were given in ancient Greece."),
            (
                _CHATTY,
                "Oh no, I know that feeling so well! You will be great! Everyone is nervous, even the best. Breathe. "
                "Believe in yourself! Perhaps imagine the audience in their underwear, that always works! You have got "
                "this!",
            ),
        ),
    ),
    (
        "Compare tea and coffee as a drink for the afternoon. Use a table.",
        (
            (
                _PLAIN,
                "| | Tea | Coffee |\n|---|---|---|\n| Caffeine in a cup | about 40 mg | about 90 mg |\n| Lasts | gentle, "
                "2 to 3 h | strong, 4 to 6 h |\n| Sleep | seldom a problem | late cups keep many awake |\n\nAfter three "
                "o'clock tea is the safer choice.",
            ),
            (_BRIEF, "| Tea | Coffee |\n|---|---|\n| mild | strong |"),
            (_POOR, "Tea and coffee are both drinks. I like both of them."),
            (
                _CHATTY,
                "Ah, the eternal question! Tea lovers praise its calm, coffee lovers its kick. Tea has about half the "
                "caffeine, so it is kinder to your night. I could make a table, but I think the answer is clear: it "
                "depends on you!",
            ),
        ),
    ),
    (
        "Translate into French: “The library is closed on Mondays.”",
        (
            (_BRIEF, "La bibliothèque est fermée le lundi."),
            (_POOR, "La librairie est fermée les lundi."),
            (_PLAIN, "« La bibliothèque est fermée le lundi. »\n\n*Le lundi* means every Monday; *lundi* alone would be "
             "this coming one."),
            (_CHATTY, "In French one would say: La bibliothèque est fermée tous les lundis. French is a beautiful language!"),
        ),
    ),
)  # fmt: skip
