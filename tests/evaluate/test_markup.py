import pytest

from accord.evaluate.markup import holds_phrase, marks, read_phrases

TEXT = """# Answer

1. first
2) second
  - inner **bold** and __strong__
* 2 * 3 is 6

```python
x = a * b
```
####no heading"""


def test_marks_by_hand():
    assert marks(TEXT) == {"list items": 4, "bold": 2, "headings": 1, "code": 1}
    assert set(marks("a - b, 3.14, 2*3*4, snake__case__name").values()) == {0}


def test_phrases_in_any_case_with_any_apostrophe_and_spacing():
    phrases = read_phrases()
    assert holds_phrase("I\u2019m sorry,  but I CAN\u2019T\ndo that", phrases["refusals"])
    assert not holds_phrase("I can do that", phrases["refusals"])
    assert holds_phrase("Great question! ...", phrases["stock phrases"])


def test_a_file_of_phrases_is_checked(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("mine: [Hello   There]\n", encoding="utf8")
    assert read_phrases(path) == {"mine": ("hello there",)}
    path.write_text("- hello\n", encoding="utf8")
    with pytest.raises(ValueError, match="expected lists of phrases by name"):
        read_phrases(path)
