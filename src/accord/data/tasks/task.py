"""A task: where its rows are, what their columns mean, and the templates that turn a row into an instruction."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["Source", "Task", "Template"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_labels(value: Any) -> Any:
    """YAML reads the label 0 as a number and yes as a truth value; rows are compared with it as text."""
    return {label_text(name): text for name, text in value.items()} if isinstance(value, dict) else value


def label_text(value: Any) -> str:
    """A label as text, the same for a CSV's "1", a number 1 and YAML's 1; truth values are "true" and "false"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Template(_Part):
    """One way to ask. Example: `Template(id="ask", prompt="{{ a }} + {{ b }} =", response="{{ sum }}")`."""

    id: str = Field(min_length=1, description="unique in its task; stands in every row it makes")
    prompt: str = Field(min_length=1, description="Jinja: the user's message")
    response: str = Field(min_length=1, description="Jinja: what the assistant is to say")
    inverted: bool = Field(False, description="the input is asked for and the label given")
    when: str | None = Field(None, description="Jinja expression: rows the template fits; none: all")
    option_texts: tuple[str, ...] | str | None = Field(
        None, description="texts of the labels in this template only, as `answer_choices` (PromptSource)"
    )


class Source(_Part):
    """Where the rows are and how they are divided."""

    path: str | dict[str, str] = Field(description="file under the root folder; or one file per split")
    split: dict[str, Share | str] = Field(
        default_factory=dict,
        description="name -> Jinja expression of its rows, or a share drawn by hash; the rest of shares is train",
    )
    where: str | None = Field(None, description="Jinja expression: rows that belong to the task; none: all")
    each: str | None = Field(None, description="Jinja expression of a list: every entry is a row, as `item`")
    group: str | None = Field(
        None, description="Jinja expression: rows with the same value fall on the same side of a split; none: the row"
    )


class Task(_Part):
    """What a task file says. `templates` are ours, or those of a PromptSource file once it is read."""

    task: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name, also of the files made of it")
    cluster: Names = Field(min_length=1, description="what is held out together; several: the task counts in each")
    exclude_with: Names = Field((), description="clusters that leave the training data when one of these is held out")
    licence: str | None = Field(None, description="of the source, as far as it is known")
    source: Source = Field(description="where the rows are")
    fields: dict[str, str] = Field(
        default_factory=dict, description="name in the templates -> Jinja expression; none: the columns as they are"
    )
    options: Annotated[dict[str, str] | str | None, BeforeValidator(_as_labels)] = Field(
        None, description="label -> its text, or a Jinja expression of the list of texts of a row"
    )
    label: str | None = Field(None, description="Jinja expression: the right label, or the index of the right text")
    options_order: Literal["shuffled", "fixed"] = Field("shuffled", description="order in which options are listed")
    options_style: Literal["dashes", "letters"] = Field("dashes", description="how options are listed")
    rationale: str | None = Field(None, description="Jinja expression: the reasoning before the answer")
    references: str | None = Field(None, description="Jinja expression: a list of all right responses, for evaluation")
    metric: str | None = Field(None, description="how responses are scored, for evaluation")
    templates: tuple[Template, ...] = Field(min_length=1, description="the ways to ask")

    @model_validator(mode="after")
    def _check(self) -> Task:
        ids = [template.id for template in self.templates]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice:
            raise ValueError(f'two templates are called "{twice}"; rename one')
        if self.options is not None and self.label is None:
            raise ValueError("`options` without `label`; say which expression gives the right one")
        return self
