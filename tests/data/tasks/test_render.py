"""Prompts as they come out, letter by letter."""

from collections import Counter

import pytest

from accord.data.files import DataError
from accord.data.tasks import Renderer, Task


def task(**changes):
    values = {
        "task": "rte",
        "cluster": "nli",
        "source": {"path": "rte.jsonl"},
        "options": {"entailment": "yes", "not_entailment": "no"},
        "label": "label",
        "templates": [
            {
                "id": "conclude",
                "prompt": '{{ premise }}\nCan we conclude that "{{ hypothesis }}"?\n{{ OPTIONS }}',
                "response": "{{ option }}",
            }
        ],
    }
    return Task.model_validate(values | changes)


ROW = {"premise": "All birds sing.", "hypothesis": "Robins sing.", "label": "entailment"}


def made(renderer, raw=ROW, key="rte.jsonl:1", shots=()):
    row = renderer.row(raw, key)
    return renderer.example(renderer.task.templates[0], row, shots)


def test_the_prompt_letter_by_letter():
    example = made(Renderer(task(options_order="fixed")))
    assert example.prompt == 'All birds sing.\nCan we conclude that "Robins sing."?\nOPTIONS:\n- yes\n- no'
    assert example.response == "yes"
    assert example.options == ("yes", "no")


def test_letters():
    example = made(Renderer(task(options_order="fixed", options_style="letters")), ROW | {"label": "not_entailment"})
    assert example.prompt.endswith("OPTIONS:\n(A) yes\n(B) no")
    assert example.response == "(B) no"


def test_options_left_out_leave_the_plain_answer():
    example = made(Renderer(task(options_style="letters"), options_share=0))
    assert (example.prompt, example.response) == ('All birds sing.\nCan we conclude that "Robins sing."?', "yes")
    assert example.options == ()
    share = sum(bool(made(Renderer(task(), options_share=0.5), key=str(n)).options) for n in range(400)) / 400
    assert share == pytest.approx(0.5, abs=0.08)


def test_options_are_shuffled_by_row_and_the_right_one_moves_along():
    firsts = Counter()
    for number in range(200):
        renderer = Renderer(task())
        row = renderer.row(ROW, f"rte.jsonl:{number}")
        assert row.options[row.right] == "yes"
        assert renderer.row(ROW, f"rte.jsonl:{number}") == row
        firsts[row.options[0]] += 1
    assert 70 < firsts["yes"] < 130


@pytest.mark.parametrize(("label", "right"), [(0, "red"), ("1", "blue"), ("blue", "blue")])
def test_options_of_a_row(label, right):
    renderer = Renderer(task(options="[one, two]", label="answer"))
    row = renderer.row({"one": "red", "two": " blue ", "answer": label}, "k")
    assert row.options[row.right] == right


def test_exemplars_come_before_and_the_oldest_go_first():
    renderer = Renderer(task(options_order="fixed", options_style="letters"))
    others = [
        renderer.row({"premise": f"P{n}.", "hypothesis": f"H{n}.", "label": "not_entailment"}, str(n)) for n in range(3)
    ]
    example = made(renderer, shots=others)
    blocks = example.prompt.split("\n\n")
    assert blocks[0] == 'P0.\nCan we conclude that "H0."?\nOPTIONS:\n(A) yes\n(B) no\n(B) no'
    assert (len(blocks), example.shots) == (4, 3)
    assert blocks[3].startswith("All birds sing.")
    short = Renderer(task(options_order="fixed", options_style="letters"), max_characters=220)
    cut = made(short, shots=others)
    assert cut.shots == 2
    assert cut.prompt.startswith("P1.")


def test_a_row_with_the_same_text_is_no_exemplar():
    renderer = Renderer(task(options_order="fixed"))
    assert made(renderer, shots=[renderer.row(ROW, "another")]).shots == 0


@pytest.mark.parametrize("changes", [{}, {"rationale": "why"}, {"templates": [{"id": "c", "response": "{{ option }}",
    "prompt": "{{ choice(['Say', 'Tell', 'Find out']) }}: {{ hypothesis }}\n{{ OPTIONS }}"}]}])  # fmt: skip
def test_nor_is_one_whose_options_words_or_cue_were_drawn_otherwise(changes):
    """In 40 pairs of rows with the same text the drawn order of options, words and cues differ in most."""
    renderer = Renderer(task(**changes), reasoning_share=1)
    raw = ROW | {"why": "Robins are birds"}
    prompts = set()
    for number in range(40):
        example = made(renderer, raw, key=f"a:{number}", shots=[renderer.row(raw, f"b:{number}")])
        assert example.shots == 0
        prompts.add(example.prompt)
    assert len(prompts) > 1


def test_reasoning_comes_before_the_answer():
    reasoned = task(rationale="why", options_order="fixed")
    example = made(Renderer(reasoned, reasoning_share=1), ROW | {"why": "Robins are birds"})
    assert example.response == "Robins are birds. So the answer is yes."
    assert example.prompt.split("\n")[1] == "All birds sing."  # after a cue
    assert made(Renderer(reasoned, reasoning_share=0), ROW | {"why": "Robins are birds"}).response == "yes"
    assert made(Renderer(reasoned, reasoning_share=1), ROW | {"why": " "}).response == "yes"


def test_inverted_templates_do_not_reason():
    inverted = {"id": "i", "inverted": True, "prompt": "{{ premise }}", "response": "{{ hypothesis }}"}
    renderer = Renderer(task(rationale="why", templates=[inverted]), reasoning_share=1)
    assert made(renderer, ROW | {"why": "because"}).response == "Robins sing."


def test_when_chooses_rows():
    templates = [{"id": "a", "prompt": "x", "response": "y", "when": 'label == "entailment"'}]
    renderer = Renderer(task(templates=templates))
    assert len(renderer.fitting(renderer.row(ROW, "1"))) == 1
    assert renderer.fitting(renderer.row(ROW | {"label": "not_entailment"}, "1")) == []


def test_choice_is_drawn_by_row_and_seed():
    templates = [{"id": "a", "prompt": "x", "response": "{{ refs | choice }}"}]
    row = {"refs": [str(n) for n in range(100)]}
    plain = {"templates": templates, "options": None, "label": None}
    said = [made(Renderer(task(**plain), seed=seed), row, key).response for seed in (0, 1) for key in ("a", "b")]
    assert len(set(said)) == 4
    assert made(Renderer(task(**plain)), row, "a").response == said[0]


def test_filters():
    prompt = (
        "{{ text | first_sentence }}|{{ text | between('<', '>') }}|{{ text | sub('[0-9]+', '#') }}|{{ ' a ' | strip }}"
    )
    plain = {"templates": [{"id": "a", "prompt": prompt, "response": "y"}], "options": None, "label": None}
    example = made(Renderer(task(**plain)), {"text": "Dr. No <b> 7. Then 12."})
    assert example.prompt == "Dr.|b|Dr. No <b> #. Then #.|a"


@pytest.mark.parametrize(
    ("changes", "row", "message"),
    [
        ({}, ROW | {"hypothesis": None, "premise": ""}, None),
        ({}, {"premise": "a", "label": "entailment"}, 'template "conclude", prompt: .hypothesis. is undefined'),
        ({}, ROW | {"label": "maybe"}, "`label` is 'maybe'; expected one of 'entailment', 'not_entailment'"),
        ({"fields": {"text": "passage.text"}}, ROW, "`fields.text: passage.text`"),
        (
            {"templates": [{"id": "t", "prompt": "{{ hypothesis }}", "response": "y"}]},
            ROW | {"hypothesis": " "},
            "`hypothesis` is empty",
        ),
        ({"options": "[premise]", "label": "5"}, ROW, "an index into 1 options"),
    ],
)
def test_what_a_row_lacks_is_told(changes, row, message):
    if message is None:
        assert "None" in made(Renderer(task(**changes)), row).prompt
        return
    with pytest.raises(ValueError, match=message):
        made(Renderer(task(**changes)), row)


def test_templates_cannot_reach_out_of_the_sandbox():
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ValueError, match="unsafe"):
        made(Renderer(task(templates=[{"id": "t", "prompt": reach, "response": "y"}])))
    with pytest.raises(ValueError, match=r"[Rr]ange"):
        made(Renderer(task(templates=[{"id": "t", "prompt": "{{ range(10 ** 9) | list }}", "response": "y"}])))


def test_a_template_that_is_no_jinja_is_told_before_any_row():
    with pytest.raises(DataError, match=r"task rte, t.prompt: no valid Jinja"):
        Renderer(task(templates=[{"id": "t", "prompt": "{{ a", "response": "y"}]))
    with pytest.raises(DataError, match=r"source.where"):
        Renderer(task(source={"path": "a.jsonl", "where": "label =="}))


@pytest.mark.parametrize("texts", ["World ||| {{ other }}", ("World", "Sports")])
def test_answer_choices_of_promptsource(texts):
    template = {
        "id": "t",
        "prompt": "{{ text }} {{ answer_choices | join('/') }}",
        "response": "{{ answer_choices[label] }}",
    }
    plain = {"templates": [template | {"option_texts": texts}], "options": None, "label": None}
    example = made(Renderer(task(**plain)), {"text": "Goal!", "label": 1, "other": "Sports"})
    assert (example.prompt, example.response) == ("Goal! World/Sports", "Sports")
