"""A row and a template -> prompt and response. Everything drawn is a function of seed, task and row."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from string import ascii_uppercase
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta, pass_context
from jinja2 import Template as JinjaTemplate
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from accord.data.draws import draw, share
from accord.data.files import DataError
from accord.data.tasks.task import Task, Template, label_text

__all__ = ["Example", "Renderer", "Row"]

_CUES = (
    "Think it through before you answer.",
    "Reason step by step, then give the answer.",
    "Explain your reasoning first.",
    "Show how you arrive at the answer.",
    "Work it out step by step.",
)
_SENTENCE = re.compile(r"(?s)^\s*(.+?[.!?…。！？][\"')\]]*)(?=\s|$)")  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a source as a task sees it.

    Attributes:
        key: what draws are named by and exemplars are told apart by: file, row, part of it.
        values: the columns and the fields of the task.
        options: the texts to choose from, in the order they are listed in; empty without options.
        right: index of the right one; -1 without options.
        rationale: reasoning before the answer, if there is any.
        references: all right responses, for evaluation.
    """

    key: str
    values: Mapping[str, Any]
    options: tuple[str, ...] = ()
    right: int = -1
    rationale: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Example:
    """What came out of one template for one row; `options` is empty where the prompt does not list them."""

    prompt: str
    response: str
    template: Template
    shots: int = 0
    reasoned: bool = False
    options: tuple[str, ...] = ()


def _first_sentence(text: str) -> str:
    found = _SENTENCE.match(text)
    return found[1] if found else text.strip()


def _between(text: str, start: str = "", end: str = "") -> str:
    """What stands after `start` and before `end`; an empty mark is the edge of the text; nothing if one is missing."""
    head = text.find(start)
    tail = text.find(end, head + len(start)) if end else len(text)
    return "" if head < 0 or tail < 0 else text[head + len(start) : tail].strip()


def _replace_all(text: str, pattern: str, replacement: str = "") -> str:
    return re.sub(pattern, replacement, text)


@pass_context
def _choice(context: Context, values: Sequence[Any]) -> Any:
    """One of a list, by the row's own random numbers."""
    generator: random.Random = context["_draw"]
    return generator.choice(list(values))


@cache
def environment() -> SandboxedEnvironment:
    """Jinja without access to Python's insides; a name that is not there is an error."""
    made = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)
    made.filters |= {
        "choice": _choice,
        "strip": lambda text: str(text).strip(),
        "first_sentence": _first_sentence,
        "between": _between,
        "sub": _replace_all,
    }
    made.globals |= {"choice": _choice}
    return made


@cache
def _compiled(text: str) -> tuple[JinjaTemplate, frozenset[str]]:
    made = environment()
    return made.from_string(text), frozenset(meta.find_undeclared_variables(made.parse(text)))


@cache
def _expression(text: str) -> Callable[..., Any]:
    return environment().compile_expression(text, undefined_to_none=False)


class Renderer:
    """The templates of one task, ready to be applied.

    Args:
        task: whose templates.
        seed: of every draw.
        options_share: share of rows whose prompts list the options, 0 to 1.
        reasoning_share: share of rows with a rationale whose responses begin with it, 0 to 1.
        max_characters: longest prompt with exemplars; the oldest exemplars go first. The row itself is never cut.

    Raises:
        DataError: a template or expression is no Jinja.
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int = 0,
        options_share: float = 1.0,
        reasoning_share: float = 0.5,
        max_characters: int = 8000,
    ) -> None:
        self.task, self.seed = task, seed
        self._options_share, self._reasoning_share = options_share, reasoning_share
        self._max_characters = max_characters
        for name, text in self._texts():
            try:
                _compiled(text) if name.endswith(("prompt", "response")) else _expression(text)
            except TemplateError as error:
                raise DataError(f"task {task.task}, {name}: no valid Jinja: {error}; correct it") from None

    def _texts(self) -> list[tuple[str, str]]:
        """Every expression and template with its name."""
        task, source = self.task, self.task.source
        named = [(f"fields.{name}", text) for name, text in task.fields.items()]
        named += [(f"source.split.{name}", text) for name, text in source.split.items() if isinstance(text, str)]
        single = {"label": task.label, "rationale": task.rationale, "references": task.references}
        single |= {"source.where": source.where, "source.each": source.each, "source.group": source.group}
        single |= {"options": task.options if isinstance(task.options, str) else None}
        for template in task.templates:
            named += [(f"{template.id}.prompt", template.prompt), (f"{template.id}.response", template.response)]
            single[f"{template.id}.when"] = template.when
        return named + [(name, text) for name, text in single.items() if text is not None]

    # -- rows

    def evaluate(self, name: str, text: str, values: Mapping[str, Any]) -> Any:
        """The value of an expression.

        Raises:
            ValueError: it cannot be had from these values; the message names the expression.
        """
        if text in values:  # a column by its name, as most expressions are
            return values[text]
        try:
            found = _expression(text)(values)
        except Exception as error:  # an expression is somebody's program: whatever it raises is said in one line
            raise ValueError(f"`{name}: {text}` cannot be had: {error}") from None
        if isinstance(found, Undefined):
            raise ValueError(f"`{name}: {text}`: the row has no such value; found {', '.join(map(str, values))}")
        return found

    def row(self, raw: Mapping[str, Any], key: str) -> Row:
        """Read a raw row.

        Raises:
            ValueError: a field, label or option cannot be had.
        """
        task = self.task
        values = dict(raw)
        values |= {name: self.evaluate(f"fields.{name}", text, raw) for name, text in task.fields.items()}
        rationale = str(self.evaluate("rationale", task.rationale, values)).strip() if task.rationale else ""
        references = self.evaluate("references", task.references, values) if task.references else ()
        options, right = self._options(values, key)
        return Row(
            key=key,
            values=values,
            options=options,
            right=right,
            rationale=rationale,
            references=tuple(str(reference) for reference in references),
        )

    def _options(self, values: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], int]:
        """The options in the order of this row, and the place of the right one."""
        task = self.task
        if task.options is None or task.label is None:
            return (), -1
        label = self.evaluate("label", task.label, values)
        if isinstance(task.options, Mapping):
            texts, right = list(task.options.values()), _place(list(task.options), label_text(label), "label")
        else:
            listed = self.evaluate("options", task.options, values)
            texts = [str(text).strip() for text in listed]
            by_index = not isinstance(label, bool) and str(label).isdigit()
            right = _index(int(label), texts) if by_index else _place(texts, str(label).strip(), "label")
        if task.options_order == "fixed":
            return tuple(texts), right
        order = list(range(len(texts)))
        draw(self.seed, "options", task.task, key).shuffle(order)
        return tuple(texts[place] for place in order), order.index(right)

    # -- templates

    def fitting(self, row: Row) -> list[Template]:
        """The templates whose `when` holds for a row."""
        return [
            template
            for template in self.task.templates
            if template.when is None or self.evaluate(f"{template.id}.when", template.when, row.values)
        ]

    def example(self, template: Template, row: Row, exemplars: Sequence[Row] = ()) -> Example:
        """Apply a template to a row, after the same template applied to exemplars.

        Raises:
            ValueError: the template needs what the row does not have, or renders nothing.
        """
        listed = share(self.seed, "listed", self.task.task, row.key) < self._options_share
        reasoned = (
            bool(row.rationale)
            and not template.inverted
            and share(self.seed, "reasoned", self.task.task, row.key) < self._reasoning_share
        )
        prompt, response = self._render(template, row, listed=listed, reasoned=reasoned)
        shots = []
        room = self._max_characters - len(prompt)
        question = self._question(template, row, row.key) if exemplars else ""
        for exemplar in reversed(exemplars):
            if reasoned and not exemplar.rationale:
                continue
            if self._question(template, exemplar, row.key) == question:
                continue  # another row with the same text: it would give the answer away
            shot = "\n".join(self._render(template, exemplar, listed=listed, reasoned=reasoned))
            room -= len(shot) + 2
            if room < 0:
                break
            shots.append(shot)
        return Example(
            prompt="\n\n".join([*reversed(shots), prompt]),
            response=response,
            template=template,
            shots=len(shots),
            reasoned=reasoned,
            options=row.options if listed and "OPTIONS" in _compiled(template.prompt)[1] else (),
        )

    def _question(self, template: Template, row: Row, key: str) -> str:
        """The prompt as it is whatever was drawn for the row: of two rows with the same text it is the same."""
        options = tuple(sorted(row.options))
        right = options.index(row.options[row.right]) if options else -1
        plain = replace(row, key=key, options=options, right=right)
        return self._render(template, plain, listed=True, reasoned=False)[0]

    def _render(self, template: Template, row: Row, *, listed: bool, reasoned: bool) -> tuple[str, str]:
        values = dict(row.values)
        generator = draw(self.seed, "choice", self.task.task, row.key, template.id)
        lettered = listed and self.task.options_style == "letters" and "OPTIONS" in _compiled(template.prompt)[1]
        if row.options:
            shown = [_lettered(place, text) for place, text in enumerate(row.options)] if lettered else row.options
            marks = shown if lettered else [f"- {text}" for text in shown]
            values |= {"options": list(row.options), "option": shown[row.right]}
            values["OPTIONS"] = "\n".join(["OPTIONS:", *marks]) if listed else ""
        values |= {"_draw": generator}
        if template.option_texts is not None:
            values["answer_choices"] = self._answer_choices(template.option_texts, values)
        prompt = self._text(template, "prompt", values)
        response = self._text(template, "response", values)
        if reasoned:
            cue = draw(self.seed, "cue", self.task.task, row.key).choice(_CUES)
            return f"{cue}\n{prompt}", f"{_closed(row.rationale)} So the answer is {response.rstrip('.')}."
        return prompt, response

    def _answer_choices(self, texts: tuple[str, ...] | str, values: Mapping[str, Any]) -> list[str]:
        if not isinstance(texts, str):
            return list(texts)
        return [text.strip() for text in _compiled(texts)[0].render(values).split("|||")]

    def _text(self, template: Template, part: str, values: Mapping[str, Any]) -> str:
        source = template.prompt if part == "prompt" else template.response
        compiled, names = _compiled(source)
        try:
            text = compiled.render(values).strip()
        except Exception as error:  # as above: the template is somebody's program
            raise ValueError(f'template "{template.id}", {part}: {error}; correct the template or `fields`') from None
        if not text:
            blank = [name for name in sorted(names) if not str(values.get(name, "")).strip()]
            why = f"`{'`, `'.join(blank)}` is empty in this row" if blank else "it writes nothing for this row"
            raise ValueError(
                f'template "{template.id}" renders an empty {part}: {why}; '
                "add `when` to the template, `where` to the source, or remove the row"
            )
        return text


def _place(texts: Sequence[str], wanted: str, name: str) -> int:
    try:
        return list(texts).index(wanted)
    except ValueError:
        raise ValueError(f"`{name}` is {wanted!r}; expected one of {', '.join(map(repr, texts))}") from None


def _index(place: int, texts: Sequence[str]) -> int:
    if place >= len(texts):
        raise ValueError(f"`label` is {place}; expected an index into {len(texts)} options, from 0")
    return place


def _lettered(place: int, text: str) -> str:
    return f"({ascii_uppercase[place]}) {text}" if place < 26 else text


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
