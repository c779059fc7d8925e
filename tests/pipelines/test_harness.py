"""lm-evaluation-harness asks a scripted model, where it is installed: a task of our own, so that nothing is fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from accord.pipelines.evaluation import perform
from accord.pipelines.evaluation_configs import TasksConfig
from accord.pipelines.harness import harness_rows
from accord.pipelines.settings import SettingsError
from accord.pipelines.tasks import run
from accord.protocols import Reply
from accord.train.progress import Quiet
from fakes import Scripted


def write_task(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"ask": f"Is {i} even?", "options": ["yes", "no"], "answer": i % 2} for i in range(6)]
    (folder / "even.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "even.yaml").write_text(
        f"task: even\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'even.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: 'Q: {{ask}}\\nA:'\n"
        "doc_to_choice: '{{options}}'\ndoc_to_target: answer\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


def yes(prompt: Any, texts: Any) -> list[float]:
    """Thinks " yes" likelier, whatever is asked."""
    return [-1.0 if text == " yes" else -2.0 for text in texts]


def test_without_the_harness_the_error_says_what_to_install(tmp_path: Path) -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        with pytest.raises(SettingsError, match="pip install lm-eval"):
            harness_rows(Scripted(yes), "even", folder=None, limit=None, batch=4, advance=lambda done, total: None)
    else:
        pytest.skip("lm-eval is installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the harness and its dependencies
def test_a_task_of_the_harness_becomes_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = write_task(tmp_path / "tasks")
    config = TasksConfig(models=("m",), lm_eval=("even",), lm_eval_path=folder, replicates=0)
    model = Scripted(yes)
    job = lambda c, items, d: run(c, items, d, [model])  # noqa: E731
    outcome = perform("tasks", config, tmp_path / "run", job, Quiet())
    found = {named.of: named for named in outcome.results}
    assert found["task even, acc"].result.value == 0.5
    assert found["task even, acc"].result.n == 6
    asked = len(model.asked)
    perform("tasks", config, tmp_path / "run", job, Quiet())
    assert len(model.asked) == asked  # the second call reads what is on disk


def play_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of the harness as a task needs: two options a document, or a written answer, counted right or wrong."""

    def request(doc: int, *args: Any) -> SimpleNamespace:
        return SimpleNamespace(args=args, task_name="even", doc_id=doc)

    def evaluate(model: Any, **_: Any) -> dict[str, Any]:
        asked = [request(doc, f"Q{doc}", option) for doc in range(3) for option in (" yes", " no")]
        said = [value for value, _ in model.loglikelihood(asked)]
        right = [float(said[2 * doc] > said[2 * doc + 1]) for doc in range(3)]
        texts = model.generate_until([request(doc, f"W{doc}", {"until": ["\n"]}) for doc in (3, 4)])
        right += [float(text == "yes") for text in texts]
        samples = [{"doc_id": doc, "metrics": ["acc"], "acc": one} for doc, one in enumerate(right)]
        return {"samples": {"even": samples}}

    manager = SimpleNamespace(all_tasks=["even"])
    for name, content in {
        "lm_eval": {},
        "lm_eval.evaluator": {"simple_evaluate": evaluate},
        "lm_eval.tasks": {"TaskManager": lambda **_: manager},
        "lm_eval.api": {},
        "lm_eval.api.model": {"LM": object},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


class Failing(Scripted):
    """Has no log-probability for one option, and no reply to one question."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, texts=None: [-1.0 if texts[0] == " yes" else -2.0] if texts else "yes")
        self.failing = True

    def score(self, prompts: Any, continuations: Any) -> Any:
        found = super().score(prompts, continuations)
        return [[None] if self.failing and prompt == "Q1" else row for prompt, row in zip(prompts, found, strict=True)]

    def generate(self, prompts: Any, count: int, sampling: Any) -> Any:
        if self.failing and prompts == ["W4"]:
            return [[Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=0.0, error="gone")]]
        return super().generate(prompts, count, sampling)


def test_what_the_model_could_not_answer_is_unscored_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_harness(monkeypatch)
    config, model = TasksConfig(models=("m",), lm_eval=("even",), replicates=0), Failing()
    job = lambda c, items, d: run(c, items, d, [model])  # noqa: E731
    found = {one.of: one.result for one in perform("tasks", config, tmp_path, job, Quiet()).results}["task even, acc"]
    assert (found.value, found.n, found.n_unscored) == (1.0, 3, 2)
    model.failing = False
    found = {one.of: one.result for one in perform("tasks", config, tmp_path, job, Quiet()).results}["task even, acc"]
    assert (found.value, found.n, found.n_unscored) == (1.0, 5, 0)  # asked again, not kept as it was


def test_settings_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match="nothing to ask"):
        TasksConfig(models=("m",))
    with pytest.raises(ValueError, match="only with lm_eval"):
        TasksConfig(models=("m",), data=(Path("x.jsonl"),), lm_eval_path=Path())
