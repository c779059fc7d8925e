"""Constitutions: the shipped one, the published one, and what is wrong with a file said in a line."""

from pathlib import Path

import pytest
import yaml

from accord.feedback.ai.constitution import few_not_preachy, load_constitution

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "constitutional_ai"

EXAMPLE = {"conversation": [{"role": "user", "content": "x"}], "first": "1", "second": "2", "answer": "A"}


def written(tmp_path, **changes):
    one = {"id": "kind", "critique": "Is it kind?", "revision": "Make it kind.", "comparison": "Which is kinder?"}
    content = {"version": 1, "name": "mine", "principles": [{**one, **changes.pop("principle", {})}], **changes}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_shipped_constitution_covers_its_four_aims_and_does_not_preach():
    shipped = load_constitution()
    assert len(shipped.principles) == 13
    assert {"harmless", "honest", "helpful", "not-preachy"} <= {tag for one in shipped.principles for tag in one.tags}
    assert few_not_preachy(shipped.principles) is None
    assert len(shipped.serving("critique")) == len(shipped.serving("comparison")) == 13


def test_prohibitions_alone_are_warned_of():
    shipped = load_constitution()
    assert "0% of the principles" in few_not_preachy([one for one in shipped.principles if "harmless" in one.tags])


def test_a_principle_may_serve_one_stage(tmp_path):
    loaded = load_constitution(written(tmp_path, principle={"critique": None, "revision": None}))
    assert len(loaded.serving("comparison")) == 1
    with pytest.raises(ValueError, match="no principle has a `critique`"):
        loaded.serving("critique")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"principle": {"comparision": "?"}}, 'principle kind, `comparision`: unknown key; did you mean "comparison"'),
        ({"principle": {"revision": None}}, "principle `kind` has no `revision`"),
        ({"principle": {"id": "not good"}}, "principle not good, `id`"),
        (
            {"principles": [{"id": "a", "comparison": "x"}, {"id": "a", "comparison": "y"}]},
            "two principles have the id",
        ),
        ({"few_shot": {"comparison": [{**EXAMPLE, "principle": "b"}]}}, "names the principle `b`, which is missing"),
        ({"version": 2}, "version"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")) as caught:
        load_constitution(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_other_words_have_another_fingerprint(tmp_path):
    before = load_constitution(written(tmp_path)).fingerprint
    assert load_constitution(written(tmp_path, principle={"comparison": "Which is kindest?"})).fingerprint != before


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published principles are not here")
def test_the_published_principles_load():
    published = load_constitution(f"anthropic:{PUBLISHED}")
    assert len(published.serving("critique")) == len(published.serving("comparison")) == 16
    assert sum("not-preachy" in one.tags for one in published.serving("comparison")) == 5
    first = published.serving("critique")[0]
    assert first.critique.startswith("Identify specific ways")
    assert not any(label in f"{one.critique}{one.revision}" for one in published.serving("critique")
                   for label in ("Critique:", "Request:"))  # fmt: skip
    assert [example.reasoning is None for example in published.few_shot.comparison] == [True] * 5 + [False] * 6
    assert {example.answer for example in published.few_shot.comparison[:5]} == {"A", "B"}
    assert all(example.conversation[-1].role == "assistant" for example in published.few_shot.critique)
