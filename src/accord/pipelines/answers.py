"""What models answer to prompts: from a file of responses, or asked of a model now, row by row on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accord.pipelines.evaluation import Items, data_facts, key_of, measured, model_facts
from accord.pipelines.judged import prompt_hash
from accord.protocols import Generate, Sampling
from accord.records import Conversation
from accord.train.progress import Display

__all__ = ["Answers", "ask", "is_file", "read_answers"]

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One response of a model to each of some prompts.

    Attributes:
        name: of the model, or of the file.
        prompts: by hash, in order.
        texts: response by hash of its prompt; one that could not be had is not there.
        models: facts of the model, for results.
        data: facts of the file, for results.
    """

    name: str
    prompts: dict[str, Conversation]
    texts: dict[str, str]
    models: list[dict[str, Any]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)


def is_file(name: str) -> bool:
    """Whether a name is that of a file of responses rather than a model."""
    return name.endswith(ENDINGS)


def read_answers(path: Path) -> Answers:
    """Responses of one model: response sets (the first of each is read), or prompts with their response.

    Raises:
        DataError: the file cannot be used, or a row is bad.
    """
    from accord.data import files
    from accord.data.readers import read

    files.check_path(path)
    first = next((row for _, row in files.rows(path)), None)
    prompts: dict[str, Conversation] = {}
    texts: dict[str, str] = {}
    if isinstance(first, dict) and "responses" in first:
        sets = read(path, "response_set")
        facts, pairs = sets.files, [(one.prompt, one.responses[0].text) for one in sets.records]
    else:
        said = read(path, "demonstration")
        facts, pairs = said.files, [(one.conversation[:-1], one.conversation[-1].content) for one in said.records]
    for prompt, text in pairs:
        at = prompt_hash(prompt)
        prompts.setdefault(at, prompt)
        texts.setdefault(at, text)
    data = [data_facts(one.file, one.rows, one.sha256) for one in facts]
    return Answers(name=path.name.partition(".")[0], prompts=prompts, texts=texts, data=data)


def ask(
    model: Generate, name: str, prompts: Sequence[Conversation], sampling: Sampling, items: Items, display: Display
) -> tuple[list[str], Answers]:
    """One response to each prompt; returns the keys of the rows as well."""
    keys = [key_of(model.name, [turn.model_dump() for turn in prompt], vars(sampling)) for prompt in prompts]

    def work(chosen: Sequence[int]) -> list[dict[str, Any]]:
        replies = model([prompts[at] for at in chosen], 1, sampling)
        return [
            {"model": model.name, "response": reply.text, "finish": reply.finish, "tokens": reply.new_tokens}
            | ({"error": reply.error or "no reply"} if reply.finish == "error" else {})
            for (reply,) in replies
        ]

    rows = measured(items, keys, work, display, f"responses of {name}")
    hashes = [prompt_hash(prompt) for prompt in prompts]
    return keys, Answers(
        name=name,
        prompts=dict(zip(hashes, prompts, strict=True)),
        texts={at: row["response"] for at, row in zip(hashes, rows, strict=True) if "error" not in row},
        models=[model_facts(name, *_name_and_revision(model.name))],
    )


def _name_and_revision(name: str) -> tuple[str, str | None]:
    """`runs/dpo @ 3f2a` is the model runs/dpo at revision 3f2a."""
    model, found, revision = name.rpartition(" @ ")
    return (model, revision) if found else (name, None)
