import json

import pytest

from accord.data.curation.contamination import DecontaminateConfig, Index, Prompt, decontaminate
from accord.data.curation.examples import Example

LONG = "the quick brown fox jumps over the lazy dog and then runs away into the forest at night"
SHORT = "who painted the ceiling of the chapel in Rome"  # 9 words


def index(*texts, **options):
    return Index([Prompt("eval.jsonl", number, text) for number, text in enumerate(texts, 1)], **options)


def found(texts, prompt, *responses, **options):
    return index(*texts, **options).find(Example("train.jsonl", 1, {}, prompt, responses or ("r",)))


def test_thirteen_words_in_a_row():
    words = LONG.split()
    assert found([LONG], "Listen: " + " ".join(words[2:15])).rule == "13 words"
    assert found([LONG], "Listen: " + " ".join(words[2:14])) is None
    assert found([LONG], " ".join(words[:8]) + " but " + " ".join(words[8:])) is None


def test_case_and_punctuation_do_not_matter_and_responses_count():
    loud = LONG.upper().replace(" ", ", ")
    assert found([LONG], "a", "b", loud).shared == " ".join(LONG.split()[:13])
    assert found([LONG], "a", loud).number == 1


def test_a_short_question_inside_a_template_is_found():
    assert (
        found([SHORT], f"Answer in one word. {SHORT}? Say only the name, no more than that.").rule == "the whole prompt"
    )
    assert (
        found([SHORT], f"Tell me {SHORT.replace('Rome', 'Paris')} please, with all the details that you know of it")
        is None
    )


def test_eight_words_count_only_where_the_whole_is_alike():
    near = SHORT.replace("Rome", "Rom")
    assert found([SHORT], near).rule.startswith("8 words and ROUGE-L 0.89")
    assert found([SHORT], near + " " + " ".join(f"x{n}" for n in range(12))) is None  # f1 = 16 / 30


def test_shorter_questions_are_not_looked_for():
    assert found(["What is the capital of France?"], "What is the capital of France?") is None


def test_wording_of_templates_does_not_count_but_long_passages_do():
    template = "please read this text with great care and tell us what the writer thinks of it: {}"
    evaluated = [template.format(f"text number {n} about {n * n}") for n in range(20)]
    assert found(evaluated, template.format("another text entirely")) is None
    assert found(evaluated, template.format("another text entirely"), wording=None).rule == "13 words"
    passage = " ".join(f"word{n}" for n in range(60))
    questions = [f"{passage} question {n}" for n in range(20)]
    assert found(questions, f"A text: {passage}").rule == "13 words"


def test_scripts_without_spaces():
    text = "".join(chr(0x4E00 + n) for n in range(20))
    assert found([text], "x" + text[3:17]).rule == "13 words"
    assert found([text], text[3:17], tokens="ascii") is None


def test_what_goes_is_listed_with_what_it_shares(tmp_path):
    train, evaluation = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    rows = [{"prompt": "Hello", "response": "Hi"}, {"prompt": "Repeat.", "response": LONG, "meta": {"a": 1}}]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation.write_text(json.dumps({"question": "unrelated"}) + "\n" + json.dumps({"question": LONG}) + "\n")
    config = DecontaminateConfig(data=(train,), against=(evaluation,), fields=("question",), out=tmp_path / "o.jsonl")
    result = decontaminate(config)
    assert json.loads(result.out.read_text()) == rows[0]
    removed = json.loads(result.aside.read_text())
    assert removed["evaluation"] == {"file": str(evaluation), "row": 2}
    assert (removed["reason"], removed["action"], removed["raw"]) == ("13 words", "removed", rows[1])
    assert removed["shared"] in LONG
    report = json.loads(result.report.read_text())
    assert report["removed_by_set"] == {str(evaluation): 1}
    assert report["sha256"]
    with pytest.raises(ValueError, match="expected"):
        decontaminate(config.model_copy(update={"fields": ("prompt",)}))
    with pytest.raises(ValueError, match="one of the files"):
        decontaminate(config.model_copy(update={"out": train}))
