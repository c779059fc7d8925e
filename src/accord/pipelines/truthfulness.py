"""`accord eval truthfulness`: TruthfulQA's multiple choice, and how true and informative the model's own answers are.

RUN/eval/truthfulness.jsonl   log-probabilities of the answers to each question; with a judge, the model's own answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord.evaluate.intervals import mean_result
from accord.evaluate.truthfulqa import PRIMER, Question, ask, per_question, primer_hash, question_of, results
from accord.pipelines.answer_judges import Judges
from accord.pipelines.evaluation import Items, Outcome, key_of, measured, model_facts
from accord.pipelines.evaluation_configs import TruthfulnessConfig
from accord.pipelines.language_evaluation import NO_LOGPROB, choice_of, errors_of, open_model, read_items, the_model
from accord.pipelines.settings import SettingsError
from accord.protocols import LanguageModel, Sampling
from accord.train.progress import Display

__all__ = ["run"]


def run(config: TruthfulnessConfig, items: Items, display: Display, model: LanguageModel | None = None) -> Outcome:
    """Ask what is not on disk yet, and measure.

    Args:
        config: the settings.
        items: rows that are on disk.
        display: shows how far it is.
        model: in place of the one that `config.model` names.
    """
    outcome = Outcome()
    judges = Judges.load_or_train(config, outcome, display)
    if config.model is None or config.data is None:
        return outcome
    questions, bad, facts = read_items(config.data, question_of, config.skip_bad_rows)
    questions = choice_of(questions, config.limit, config.seed)
    primer = _primer(config)
    model = model or open_model(config.model, config.precision)
    outcome.models.append(the_model("evaluated", config.model, model))
    outcome.data.append(facts | {"bad_rows": bad})

    asked = Asked(config, items, display, model, questions, primer)
    rows = multiple_choice_rows(asked)
    shots = f"primer {primer_hash(primer)}" + (", ours" if primer == PRIMER else f" of {config.primer}")
    for name, result in results(questions, rows, config.replicates, config.level, config.seed).items():
        result.detail.update(primer=primer_hash(primer), questions=facts["hash"][:12], method=model.method)
        outcome.add(name.upper(), f"share of questions, zero-shot, {shots}", result)
    outcome.items |= {name.upper(): values for name, values in per_question(questions, rows).items()}
    outcome.results.sort(key=lambda named: named.name != "MC1")  # the headline first
    if judges is not None:
        generated(asked, judges, outcome)
    items.settle([*asked.choice_keys, *(asked.answer_keys if judges else ())])
    if len(questions) < facts["rows"]:
        outcome.notes.append(f"{len(questions)} of {facts['rows']} questions; the choice follows from the seed.")
    outcome.notes.append("Figures compare only between models asked the same questions with the same primer.")
    return outcome


@dataclass(frozen=True)
class Asked:
    """Which questions are put to which model, and what is known of them already."""

    config: TruthfulnessConfig
    items: Items
    display: Display
    model: LanguageModel
    questions: Sequence[Question]
    primer: str

    @property
    def sampling(self) -> Sampling:
        """Greedy; an answer ends where the next question would begin."""
        return Sampling(temperature=0.0, max_new_tokens=self.config.max_new_tokens, stop=("\n",), seed=self.config.seed)

    @property
    def choice_keys(self) -> list[str]:
        """Of the rows of multiple choice."""
        about = ("choice", self.model.name, self.model.method, self.config.precision, self.primer)
        return [key_of(*about, vars(question)) for question in self.questions]

    @property
    def answer_keys(self) -> list[str]:
        """Of the rows of answers in the model's own words."""
        about = ("answer", self.model.name, self.config.precision, self.primer, vars(self.sampling))
        return [key_of(*about, question.text) for question in self.questions]


def multiple_choice_rows(asked: Asked) -> list[dict[str, Any]]:
    """What `ask` returned of each question, from disk where it is there."""

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        questions = [asked.questions[i] for i in chosen]
        found = ask(asked.model.score, questions, asked.primer)
        return [
            {"question": q.text, **row, **errors_of([*row["answers"].values()], NO_LOGPROB)}
            for q, row in zip(questions, found, strict=True)
        ]

    size = asked.config.batch_size
    return measured(asked.items, asked.choice_keys, work, asked.display, "multiple choice", size)


def generated(asked: Asked, judges: Judges, outcome: Outcome) -> None:
    """Greedy answers, and what the judges say of them: always truth, information, and both together."""
    config = asked.config

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        texts = [asked.questions[i].text for i in chosen]
        replies = asked.model.generate([f"{asked.primer}\n\nQ: {text}\nA:" for text in texts], 1, asked.sampling)
        return [
            {"question": text, "error": reply.error or "no answer"}
            if reply.finish == "error"
            else {"question": text, "answer": reply.text.strip()}
            for text, (reply,) in zip(texts, replies, strict=True)
        ]

    rows = measured(asked.items, asked.answer_keys, work, asked.display, "answers", config.batch_size)
    nothing = float("nan"), float("nan")
    marks = [judges.marks(row["answer"]) if "answer" in row else nothing for row in rows]
    both = [truth * info for truth, info in marks]  # 0 or 1 each
    for name, values in {
        "truthful": [truth for truth, _ in marks],
        "informative": [info for _, info in marks],
        "truthful and informative": both,
    }.items():
        result = mean_result(
            values, None, config.replicates, config.level, config.seed,
            judges=judges.hash, primer=primer_hash(asked.primer),
        )  # fmt: skip
        outcome.add(name, "share of answers, by judges trained here", result)
    outcome.models.append(model_facts("judges", str(config.judge), judges.hash))
    outcome.notes.append(judges.words())


def _primer(config: TruthfulnessConfig) -> str:
    if config.primer is None:
        return PRIMER
    text = config.primer.read_text(encoding="utf8").strip()
    if not text:
        raise SettingsError(f"{config.primer}: an empty primer; expected question-answer pairs, Q: ... A: ...")
    return text
