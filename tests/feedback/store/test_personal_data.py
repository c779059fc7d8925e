"""Personal data: what is found, what is not mistaken for it, and how it is replaced."""

from __future__ import annotations

from collections import Counter

import pytest

from accord.feedback.store import personal_data
from accord.feedback.store.personal_data import Find, find, scrub

FOUND = [
    ("EMAIL", "write to ada.lovelace+x@mail.example.org today", "ada.lovelace+x@mail.example.org"),
    ("PHONE", "call +44 20 7946 0958 now", "+44 20 7946 0958"),
    ("PHONE", "call (020) 7946-0958.", "(020) 7946-0958"),
    ("PHONE", "555-867-5309 is hers", "555-867-5309"),
    ("IP", "from 192.168.17.4, she said", "192.168.17.4"),
    ("IP", "host 2001:db8::8a2e:370:7334 is up", "2001:db8::8a2e:370:7334"),
    ("CARD", "pay with 4111 1111 1111 1111 please", "4111 1111 1111 1111"),
    ("IBAN", "to GB82 WEST 1234 5698 7654 32.", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN", "to DE89370400440532013000", "DE89370400440532013000"),
    ("NATIONAL_ID", "SSN 219-09-9999", "219-09-9999"),
    ("NATIONAL_ID", "NI number AB 12 34 56 C", "AB 12 34 56 C"),
    ("SECRET", "key=AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("SECRET", "use ghp_" + "a1B2" * 9, "ghp_" + "a1B2" * 9),
    ("SECRET", "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", None),
    ("URL", "clone https://bob:hunter2@git.example.com/x.git", "https://bob:hunter2@git.example.com/x.git"),
]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_is_found(kind, text, value):
    assert [(one.type, text[one.start : one.end]) for one in find(text)] == [(kind, value or text)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 fails the Luhn check",
        "GB82 WEST 1234 5698 7654 33 fails modulo 97",
        "on 2024-01-05 and 01/02/2024 at 12:30:45",
        "version 1.2.3 of std::vector, 999.1.1.1",
        "1234567890 atoms, 3.14159265358979, 10 000 000 people",
        "987-65-4321 and 2 + 2 = 4",
        "see https://example.com/a:b and a @ b",
        "127.0.0.1 is home",
    ],
)
def test_is_not_mistaken_for_personal_data(text):
    assert find(text) == []


def test_the_same_value_has_the_same_number_within_a_conversation():
    texts, finds = scrub(["I am a@b.org, not c@d.org.", "Write to A@B.org or 219-09-9999"])
    assert texts == ["I am [EMAIL_1], not [EMAIL_2].", "Write to [EMAIL_1] or [NATIONAL_ID_1]"]
    assert Counter(one.type for found in finds for one in found) == {"EMAIL": 3, "NATIONAL_ID": 1}
    assert scrub(["c@d.org"])[0] == ["[EMAIL_1]"]


def test_a_detector_of_ones_own_finds_what_no_pattern_does():
    def names(text):
        at = text.find("Ada")
        return [Find(type="NAME", start=at, end=at + 3, rule="list")] if at >= 0 else []

    assert scrub(["Ada: ada@b.org"], [names])[0] == ["[NAME_1]: [EMAIL_1]"]


def test_the_report_counts_and_says_what_it_cannot_do():
    said = personal_data.report(find("a@b.org 219-09-9999 c@d.org"))
    assert "2 EMAIL, 1 NATIONAL_ID" in said
    assert "misses cases" in said
