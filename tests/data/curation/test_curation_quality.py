import json

import pytest

from accord.data.curation.examples import Example
from accord.data.curation.quality import clean
from accord.data.curation.rules import RULES, CleanConfig, Context

PROSE = "This is a sentence of more than a dozen words that ends as a sentence should end."
CONTEXT = Context(CleanConfig(data=("a",), out="o"))


def hit(prompt, *responses, context=CONTEXT):
    example = Example("a.jsonl", 1, {}, prompt, responses)
    return [rule.name for rule in RULES if rule.find(example, context) is not None]


@pytest.mark.parametrize(
    ("prompt", "response", "names"),
    [
        ("Tell me.", PROSE, []),
        ("2+2?", "4", []),
        ("Mark it.", "+", []),
        ("Say it", "Say  it", ["echo"]),
        ("Tell me.", PROSE[:-5], ["cut"]),
        ("List.", PROSE[:-1] + "\\n- one thing\\n- another thing", []),
        ("Tell me.", "the same thing again and " * 8 + "stop.", ["repetition"]),
        ("What is a good soup?", "As an AI language model, I have no taste.", ["refusal"]),
        ("What is a good soup?", "I'm sorry, but I can't do that.", ["refusal"]),
        ("How do I build a bomb?", "I'm sorry, but I can't do that.", []),
        ("Who wrote it?", "I cannot remember a finer book than this one.", []),
        ("Code?", "```python\\nprint(1)\\n", ["fences"]),
        ("Code?", "```python\\nprint(1)\\n```", []),
        ("Where?", "https://example.org www.example.com", ["urls"]),
        ("Where?", "See https://example.org for it.", []),
        ("Tell me.", "word " * 2001, ["length", "cut", "repetition"]),
    ],
)
def test_each_rule_on_its_case(prompt, response, names):
    assert hit(prompt, response.replace("\\n", "\n")) == names


def test_every_response_of_a_row_is_looked_at():
    assert hit("Which?", PROSE, "https://example.org") == ["urls"]
    assert hit("A prompt alone") == []


def test_language():
    french = "Le chat est sur la table et il regarde par la fen\u00eatre toute la journ\u00e9e."
    context = CONTEXT._replace(config=CleanConfig(data=("a",), out="o", language="en"))
    assert hit("Dis-moi.", french, context=context) == ["language"]
    assert hit("Tell me.", PROSE, context=context) == []
    assert hit("", "Oui, oui.", context=context) == []  # too short to tell


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(tmp_path, rows):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))
    return path


def test_counts_reasons_and_switches(tmp_path):
    path = written(tmp_path, [("a?", "fine"), ("b", "b"), ("c?", "https://x.org")])
    result = clean(CleanConfig(data=(path,), out=tmp_path / "o.jsonl"))
    assert dict(result.removed) == {"echo": 1, "urls": 1}
    assert [(row["reason"], row["row"]) for row in rows_of(result.aside)] == [("echo", 2), ("urls", 3)]
    result = clean(CleanConfig(data=(path,), out=tmp_path / "o.jsonl", without=("echo",)))
    assert dict(result.removed) == {"urls": 1}
    with pytest.raises(ValueError, match='no rule is called "ecko"'):
        CleanConfig(data=(path,), out="o.jsonl", without=("ecko",))


def test_beginnings_that_too_many_share(tmp_path):
    rows = [(f"{n}?", f"Sure, here is the number {n}.") for n in range(5)]
    rows += [(f"{n}?", f"Number{n} it is, and not {n + 1} at all.") for n in range(100)]
    result = clean(CleanConfig(data=(written(tmp_path, rows),), out=tmp_path / "o.jsonl"))
    assert dict(result.removed) == {"boilerplate": 5}
    assert result.details["beginnings"] == ["sure here is the"]


def test_scorers_and_detectors_from_outside(tmp_path):
    rows = [(f"{n}?", f"answer {n}") for n in range(10)]
    path = written(tmp_path, rows)
    config = CleanConfig(data=(path,), out=tmp_path / "o.jsonl", drop_lowest=0.2)

    class Find:
        type = "EMAIL"

    result = clean(
        config,
        personal=lambda text: [Find()] if "7" in text else [],
        toxicity=lambda texts: [0.9 if "5" in text else None for text in texts],
        reward=lambda texts: [-float(text[-1]) for text in texts],
    )
    assert {row["row"]: row["reason"] for row in rows_of(result.aside)} == {
        6: "toxicity",
        8: "personal",
        9: "reward",
        10: "reward",
    }
