import pytest

from accord.data.files import DataError
from accord.data.tasks import read_tasks, shipped
from accord.data.tasks.files import read_task

TASK = """\
task: colours
cluster: quiz
source: {path: colours.jsonl}
templates:
  - {id: ask, prompt: "{{ thing }}?", response: "{{ colour }}"}
"""


def written(tmp_path, text, name="task.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf8")
    return path


def test_a_task_file_says_what_it_says(tmp_path):
    task = read_task(written(tmp_path, TASK))
    assert (task.task, task.cluster, task.source.path) == ("colours", ("quiz",), "colours.jsonl")
    assert [template.id for template in task.templates] == ["ask"]


def test_labels_are_text_whatever_yaml_makes_of_them(tmp_path):
    options = TASK + 'label: colour\noptions: {0: red, true: green, "2": blue}\n'
    assert read_task(written(tmp_path, options)).options == {"0": "red", "true": "green", "2": "blue"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TASK.replace("prompt:", "promt:"), r"line 5: unknown key `templates\[0\].promt`; did you mean `prompt`\?"),
        (TASK.replace("cluster", "clutser"), r"line 2: unknown key `clutser`; did you mean `cluster`\?"),
        (TASK.replace("path", "paht"), r"line 3: .*source"),
        (TASK + "task: again\n", r'line 6: "task" is given twice'),
        (
            TASK.replace("  - {id: ask", "  - {id: ask, prompt: a, response: b}\n  - {id: ask"),
            "two templates are called",
        ),
        (TASK + "options: {a: b}\n", "`options` without `label`"),
        (TASK.replace("task: colours\n", ""), "line 1: `task` is missing"),
        ("task: [", "no valid YAML"),
        ("- a\n", "expected `name: value` lines"),
    ],
)
def test_a_wrong_task_file_is_told_by_line(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        read_task(written(tmp_path, wrong))


def test_names_files_and_folders(tmp_path):
    written(tmp_path, TASK, "b.yaml")
    assert [task.task for task in read_tasks([tmp_path, "rte"])] == ["colours", "rte"]
    assert len(read_tasks(["all"])) == len(shipped())
    with pytest.raises(DataError, match='did you mean "snli"'):
        read_tasks(["snil"])
    written(tmp_path, TASK, "c.yaml")
    with pytest.raises(DataError, match="a second task"):
        read_tasks([tmp_path])


PROMPTSOURCE = """\
dataset: ag_news
templates:
  918267e0: !Template
    answer_choices: World ||| Sports
    id: 918267e0
    jinja: 'Which section? {{ text }}

      |||

      {{ answer_choices[label] }}'
    metadata: !TemplateMetadata
      choices_in_prompt: true
      original_task: true
    name: section
    reference: ''
  b401b0ee: !Template
    answer_choices: null
    id: b401b0ee
    jinja: 'Write about {{ choice(["sea", "land"]) }}. ||| {{ text }}'
    metadata: !TemplateMetadata
      original_task: false
    name: write
    reference: ''
"""


def test_templates_of_promptsource(tmp_path):
    written(tmp_path, PROMPTSOURCE, "templates.yaml")
    text = "task: news\ncluster: topic\nsource: {path: a.jsonl}\ntemplates: templates.yaml\n"
    section, write = read_task(written(tmp_path, text)).templates
    assert (section.id, section.inverted, section.option_texts) == ("section", False, "World ||| Sports")
    assert section.prompt == "Which section? {{ text }}"
    assert section.response == "{{ answer_choices[label] }}"
    assert (write.id, write.inverted) == ("write", True)


def test_what_is_no_promptsource_file_is_told(tmp_path):
    written(tmp_path, "templates:\n  a: {jinja: 'no target'}\n", "templates.yaml")
    text = "task: news\ncluster: topic\nsource: {path: a.jsonl}\ntemplates: templates.yaml\n"
    with pytest.raises(DataError, match=r"template a has no `jinja: prompt \|\|\| target`"):
        read_task(written(tmp_path, text))
