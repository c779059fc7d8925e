"""The memory of answers: what was asked is not asked again, what failed is."""

import subprocess
import sys

import pytest

from accord.feedback.ai.cache import Cached
from accord.protocols import Reply, Sampling
from accord.records import Message
from fakes import Scripted

CHAT = (Message(role="user", content="hi"),)
FAILED = Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0, error="away")


def test_answers_are_kept_across_processes_of_work(tmp_path):
    first = Cached(Scripted("a", "b", [-1.0, -2.0]), tmp_path / "c.sqlite")
    replies = first([CHAT], 2, Sampling())
    scores = first([CHAT], [("A", "B")])
    again = Cached(Scripted(), tmp_path / "c.sqlite")  # has nothing to say of its own
    assert again([CHAT], 2, Sampling()) == replies
    assert again([CHAT], [("A", "B")]) == scores == [[-1.0, -2.0]]
    assert again.hits == 3


def test_kept_scores_say_how_they_were_had(tmp_path):
    class Server(Scripted):
        method = "not asked"

        def score(self, prompts, continuations):
            self.method = "top"
            return super().score(prompts, continuations)

    Cached(Server([-1.0, -2.0]), tmp_path / "c.sqlite")([CHAT], [("A", "B")])
    again = Cached(Server(), tmp_path / "c.sqlite")
    again([CHAT], [("A", "B")])
    assert again.method == "top"


@pytest.mark.parametrize("other", [Sampling(seed=1), Sampling(temperature=0.5), Sampling(stop=("x",))])
def test_other_sampling_is_another_question(tmp_path, other):
    model = Cached(Scripted("a", "b"), tmp_path / "c.sqlite")
    model([CHAT], 1, Sampling())
    assert model([CHAT], 1, other)[0][0].text == "b"


def test_another_model_is_asked_anew(tmp_path):
    Cached(Scripted("a", name="x @ 1"), tmp_path / "c.sqlite")([CHAT], 1, Sampling())
    assert Cached(Scripted("b", name="x @ 2"), tmp_path / "c.sqlite")([CHAT], 1, Sampling())[0][0].text == "b"


def test_a_message_is_not_the_same_as_its_text(tmp_path):
    model = Cached(Scripted("a", "b"), tmp_path / "c.sqlite")
    assert model([CHAT], 1, Sampling())[0][0].text == "a"
    assert model(["hi"], 1, Sampling())[0][0].text == "b"


def test_errors_and_missing_scores_are_not_kept(tmp_path):
    model = Cached(Scripted(FAILED, "fine", [None, None], [-1.0, -2.0]), tmp_path / "c.sqlite")
    assert model([CHAT], 1, Sampling())[0][0].error == "away"
    assert model([CHAT], 1, Sampling())[0][0].text == "fine"
    assert model([CHAT], [("A", "B")]) == [[None, None]]
    assert model([CHAT], [("A", "B")]) == [[-1.0, -2.0]]


def test_only_what_is_missing_is_asked(tmp_path):
    script = Scripted("a", "b")
    model = Cached(script, tmp_path / "c.sqlite")
    model(["one"], 1, Sampling())
    assert [row[0].text for row in model(["two", "one"], 1, Sampling())] == ["b", "a"]
    assert script.asked == ["one", "two"]


def test_another_file_is_no_cache(tmp_path):
    (tmp_path / "c.sqlite").write_text("not a database, but long enough to be read as the header of one")
    with pytest.raises(ValueError, match="not a cache file"):
        Cached(Scripted(), tmp_path / "c.sqlite")


@pytest.mark.parametrize("module", ["feedback.ai.label", "feedback.ai.critique", "feedback.ai.worth", "servers"])
def test_it_starts_without_torch(module):
    code = f"import accord.{module}, sys; assert not sys.modules.keys() & {{'torch', 'transformers'}}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_and_scores_of_the_same_texts_are_two_questions(tmp_path):
    model = Cached(Scripted([-1.0, -2.0], [-3.0, -4.0]), tmp_path / "c.sqlite")
    assert model.score([CHAT], [("A", "B")]) == [[-1.0, -2.0]]
    assert model.score_labels([CHAT], [("A", "B")]) == [[-3.0, -4.0]]
    assert model.score_labels([CHAT], [("A", "B")]) == [[-3.0, -4.0]]


def test_a_prompt_that_is_rendered_otherwise_is_another_question(tmp_path):
    """Another chat template in the same folder, another arithmetic: the name of the model says nothing of them."""

    class Rendering(Scripted):
        how = "bf16"

        def rendered(self, prompt):
            return [self.how, super().rendered(prompt)]

    script = Rendering("a", "b")
    model = Cached(script, tmp_path / "c.sqlite")
    assert model([CHAT], 1, Sampling())[0][0].text == "a"
    assert model([CHAT], 1, Sampling())[0][0].text == "a"
    script.how = "fp32"
    assert model([CHAT], 1, Sampling())[0][0].text == "b"


def test_each_score_says_how_it_was_had_where_kept_and_fresh_ones_are_mixed(tmp_path):
    class Server(Scripted):
        method = "votes"

    Cached(Server([-1.0, -2.0]), tmp_path / "c.sqlite").score_labels(["one"], [("A", "B")])
    later = Server([-1.0, -2.0])
    later.method = "top"
    again = Cached(later, tmp_path / "c.sqlite")
    again.score_labels(["one", "two"], [("A", "B")] * 2)
    assert [again.method_of(prompt) for prompt in ("one", "two")] == ["votes", "top"]
    assert again.method == "top and votes"
