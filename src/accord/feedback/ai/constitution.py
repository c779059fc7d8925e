"""Constitutions: principles by which a model criticises, revises and compares, from a YAML file.

    version: 1
    name: accord-default
    principles:
      - {id: no-harm, tags: [harmless], critique: "...", revision: "...", comparison: "..."}
    few_shot: {critique: [], comparison: []}

Bai et al. 2022 (arXiv:2212.08073). A principle without `critique` and `revision` serves the comparison stage only, one
without `comparison` the critique stage only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from accord.records import Conversation

__all__ = [
    "ComparisonExample",
    "Constitution",
    "CritiqueExample",
    "FewShot",
    "Principle",
    "few_not_preachy",
    "load_constitution",
]

PREACHY_LIMIT = 0.2
"""Least share of the principles in use that should work against preaching and needless refusal (tag `not-preachy`)."""


class _Strict(BaseModel, frozen=True, extra="forbid"):
    pass


class Principle(_Strict):
    """One principle. At least one stage: `critique` with `revision`, or `comparison`."""

    id: str = Field(pattern=r"^[\w-]+$", description="unique in its constitution; goes into every row")
    tags: tuple[str, ...] = Field(default=(), description="such as harmless, honest, helpful, not-preachy")
    critique: str | None = Field(default=None, min_length=1, description="what a critique of the last reply looks for")
    revision: str | None = Field(default=None, min_length=1, description="how the last reply is then rewritten")
    comparison: str | None = Field(default=None, min_length=1, description="question that one of two replies answers")

    @model_validator(mode="after")
    def _check(self) -> Principle:
        if (self.critique is None) != (self.revision is None):
            missing = "revision" if self.revision is None else "critique"
            raise ValueError(f"principle `{self.id}` has no `{missing}`; expected both or neither; add it")
        if self.critique is None and self.comparison is None:
            raise ValueError(f"principle `{self.id}` serves no stage; add `critique` and `revision`, or `comparison`")
        return self


class CritiqueExample(_Strict):
    """A worked critique and revision, shown before the conversation that is at issue."""

    principle: str | None = Field(default=None, description="id of the principle it follows; none: its own words")
    conversation: Conversation = Field(min_length=2, description="ends with the reply that is criticised")
    critique_request: str | None = Field(default=None, description="own words where no principle is named")
    critique: str = Field(min_length=1)
    revision_request: str | None = Field(default=None)
    revision: str = Field(min_length=1)


class ComparisonExample(_Strict):
    """A worked comparison, shown before the pair at issue; each gets a sampled principle unless it names one."""

    principle: str | None = Field(default=None, description="id of the principle it follows; none: one is sampled")
    conversation: Conversation = Field(min_length=1)
    first: str = Field(min_length=1)
    second: str = Field(min_length=1)
    answer: Literal["A", "B"] = Field(description="which reply is better: (A) the first, (B) the second")
    reasoning: str | None = Field(default=None, description="shown with chain of thought")


class FewShot(_Strict):
    """Worked examples for both stages."""

    critique: tuple[CritiqueExample, ...] = ()
    comparison: tuple[ComparisonExample, ...] = ()


class Constitution(_Strict):
    """Principles and worked examples.

    Attributes beside the fields: `fingerprint`, the start of a SHA-256 over all of it.
    """

    version: Literal[1]
    name: str = Field(min_length=1)
    principles: tuple[Principle, ...] = Field(min_length=1)
    few_shot: FewShot = FewShot()

    @model_validator(mode="after")
    def _check(self) -> Constitution:
        twice = [name for name, count in Counter(one.id for one in self.principles).items() if count > 1]
        if twice:
            raise ValueError(f"two principles have the id `{twice[0]}`; ids must be unique; rename one")
        known = {one.id for one in self.principles}
        examples: list[CritiqueExample | ComparisonExample] = [*self.few_shot.critique, *self.few_shot.comparison]
        for example in examples:
            if example.principle is not None and example.principle not in known:
                raise ValueError(f"an example names the principle `{example.principle}`, which is missing; add it")
        for shown in self.few_shot.critique:
            if shown.principle is None and None in (shown.critique_request, shown.revision_request):
                raise ValueError("an example of a critique needs a `principle`, or both of its requests; add one")
        return self

    @property
    def fingerprint(self) -> str:
        """Start of a SHA-256 over principles and examples: other words, another value."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def serving(self, stage: Literal["critique", "comparison"]) -> tuple[Principle, ...]:
        """The principles of a stage. Raises: ValueError: there is none."""
        found = tuple(one for one in self.principles if getattr(one, stage) is not None)
        if not found:
            raise ValueError(
                f"constitution {self.name}: no principle has a `{stage}`; add one to at least one principle"
            )
        return found

    def principle(self, identity: str) -> Principle:
        """The principle with an id."""
        return next(one for one in self.principles if one.id == identity)


def few_not_preachy(principles: Sequence[Principle]) -> str | None:
    """A warning where too few principles work against preaching; None where enough do."""
    share = sum("not-preachy" in one.tags for one in principles) / len(principles)
    if share >= PREACHY_LIMIT:
        return None
    return (
        f"{share:.0%} of the principles carry the tag not-preachy; below {PREACHY_LIMIT:.0%} a constitution mostly "
        "forbids, and trains refusal"
    )


def load_constitution(spec: str = "default") -> Constitution:
    """Load a constitution.

    Args:
        spec: "default" for the one shipped, the path of a YAML file, or `anthropic:FOLDER` for the published principles
            and examples (sl_principles.jsonl, rl_principles.jsonl, sl_fewshot.jsonl, rl_fewshot.jsonl in a folder).

    Raises:
        ValueError: not such a file; one line with the principle and what is wrong.
        OSError: the file cannot be read.
    """
    if spec == "default":
        return _parse(resources.files(__package__).joinpath("constitution.yaml").read_text(encoding="utf-8"), spec)
    if spec.startswith("anthropic:"):
        from accord.feedback.ai.published import published_constitution

        return _checked(published_constitution(Path(spec.removeprefix("anthropic:"))), spec)
    return _parse(Path(spec).read_text(encoding="utf-8"), spec)


def _parse(text: str, name: str) -> Constitution:
    try:
        return _checked(yaml.safe_load(text), name)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None


def _checked(content: Any, name: str) -> Constitution:
    if not isinstance(content, dict):
        raise ValueError(f"{name}: found {type(content).__name__}; expected version, name and principles")
    try:
        return Constitution.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{name}: {_complaint(error, content)}") from None


def _complaint(error: ValidationError, content: dict[str, Any]) -> str:
    """The first problem with the id of its principle."""
    first = error.errors(include_url=False)[0]
    place, message = list(first["loc"]), first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, place))
    if place[:1] == ["principles"] and len(place) > 1:
        listed = content["principles"][place[1]]
        identity = listed.get("id") if isinstance(listed, dict) else None
        where = f"principle {identity or int(place[1]) + 1}" + "".join(f", `{part}`" for part in place[2:])
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(place[-1]))}"
    return f"{where}: {message}" if where else message


def _nearest(name: str) -> str:
    import difflib

    known = [*Principle.model_fields, *Constitution.model_fields, *ComparisonExample.model_fields]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else "; remove it"
