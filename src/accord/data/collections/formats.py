"""The table of formats, what tells them apart, and reading whole files of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from accord.data import files, formats
from accord.data.collections.annotation_tools import argilla, is_argilla, is_label_studio, label_studio
from accord.data.collections.collected import Collected, Opinion, Row
from accord.data.collections.logs import chat_log, is_log
from accord.data.collections.published import alpaca_annotation, alpaca_outputs, content_id, oasst, ultrafeedback
from accord.data.files import Broken, DataError
from accord.data.readers import BadRow
from accord.records import Judgment, Model, Person, Response, ResponseSet, describe

__all__ = ["FORMATS", "CollectionFile", "Format", "read_collection"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way to write judged data.

    Attributes:
        help: what it is, for `--help` and the documentation.
        matches: whether a row looks like it.
        read: a row -> what was judged.
    """

    help: str
    matches: Callable[[Row], bool]
    read: Callable[[Row], Iterator[Collected]]


@dataclass(frozen=True, kw_only=True)
class CollectionFile:
    """What the files held.

    Attributes:
        rows: in the order of the files.
        formats: rows by format.
        bad_rows: set aside, with the reason.
        sha256: of each file as stored.
    """

    rows: tuple[Collected, ...]
    formats: Mapping[str, int]
    bad_rows: tuple[BadRow, ...]
    sha256: Mapping[str, str]


def _own(row: Row) -> Iterator[Collected]:
    """The records of Accord and what `accord.data` reads as them: HH-RLHF, ShareGPT, Alpaca, TRL's formats."""
    kind = _kind(row)
    # An export says in `meta` where a row comes from, which a judgment, a record of ours alone, has no place for.
    record, _ = formats.parse({k: v for k, v in row.items() if k != "meta"} if kind == "judgment" else row, kind)
    if isinstance(record, Judgment):
        yield Collected(record=None, judgments=(record,))
    else:
        group = (row.get("meta") or {}).get("group") if isinstance(row.get("meta"), Mapping) else row.get("subset")
        yield Collected(record=record, group=group if isinstance(group, str) else None)


def _kind(row: Row) -> formats.Kind:
    if "annotator" in row and "response_set" in row:
        return "judgment"
    if "responses" in row and "ranks" not in row:
        return "response_set"
    return "preference" if "ranks" in row or "rejected" in row else "demonstration"


def _opinion(row: Row) -> Iterator[Collected]:
    """A judgment of any kind of task, as `accord feedback export --as judgments` writes it."""
    record = Opinion(
        annotator=_annotator(row["annotator"]),
        response_set=str(row["response_set"]),
        payload=_named_payload(row),
        display_order=tuple(row.get("display_order") or ()),
        guideline=str(row.get("guideline") or "unknown"),
        **_times(row),
    )
    yield Collected(record=None, judgments=(record,))


def _annotator(value: Any) -> Person | Model:
    if isinstance(value, str):
        return Person(id=value)
    return (Model if value.get("kind") == "model" else Person).model_validate(value)


def _times(row: Row) -> dict[str, Any]:
    """By the record that has the rules for them."""
    blank = {"annotator": {"kind": "person", "id": "p"}, "response_set": "s", "display_order": ["a"], "ranks": {"a": 1}}
    times = {"submitted_at": row.get("submitted_at"), "shown_at": row.get("shown_at")}
    checked = Judgment.model_validate({**blank, **times, "guideline": "g"})
    return {"submitted_at": checked.submitted_at, "shown_at": checked.shown_at}


def _named_payload(row: Row) -> Mapping[str, Any]:
    payload = row["payload"] if "payload" in row else row["meta"]["payload"]
    if not isinstance(payload, Mapping):
        raise ValueError(f"`payload`: found {type(payload).__name__}; expected an object; correct the row")
    words = row.get("words") or (row.get("meta") or {}).get("words")
    if words and not set(payload) & {"text", "reason", "tried"}:
        name = "text" if {"skip", "text"} & set(payload) or len(payload) <= 1 else "reason"
        return {**payload, name: words}
    return dict(payload)


def _is_opinion(row: Row) -> bool:
    has = "payload" in row or (isinstance(row.get("meta"), Mapping) and "payload" in row["meta"])
    return "annotator" in row and "response_set" in row and "ranks" not in row and has


def _log(row: Row) -> Iterator[Collected]:
    """A chat: its last response to what came before, or what was asked where nobody answered."""
    log = chat_log(row, "")
    name = log.id or content_id(*(turn.content for turn in log.messages))
    last = max((n for n, turn in enumerate(log.messages) if turn.role == "assistant"), default=None)
    if not last:
        raise ValueError("the conversation has no response of a model after a prompt; expected one; remove the row")
    said = Response(id="logged", text=log.messages[last].content, model=log.model)
    record = ResponseSet(id=name, prompt=log.messages[:last], responses=(said,))
    yield Collected(record=record, language=log.language)


def _is_tree(row: Row) -> bool:
    return "message_tree_id" in row and isinstance(row.get("prompt"), Mapping)


FORMATS: Mapping[str, Format] = {
    "oasst": Format(help="OpenAssistant's trees; rank 0 is best", matches=_is_tree, read=oasst),
    "ultrafeedback": Format(
        help="UltraFeedback with its completions",
        matches=lambda row: "instruction" in row and isinstance(row.get("completions"), list),
        read=ultrafeedback,
    ),
    "alpaca-eval": Format(
        help="AlpacaEval's annotations.json",
        matches=lambda row: {"output_1", "output_2", "instruction"} <= row.keys(),
        read=alpaca_annotation,
    ),
    "alpaca-outputs": Format(
        help="AlpacaEval's model_outputs.json, of any number of models",
        matches=lambda row: {"instruction", "output", "generator"} <= row.keys(),
        read=lambda row: alpaca_outputs([(1, row)]),
    ),
    "label-studio": Format(help="Label Studio's JSON export", matches=is_label_studio, read=label_studio),
    "argilla": Format(help="Argilla's records as JSON", matches=is_argilla, read=argilla),
    "judgments": Format(
        help="judgments of any kind of task, as `accord feedback export --as judgments` writes them",
        matches=_is_opinion,
        read=_opinion,
    ),
    "chat": Format(
        help="chat logs: ShareGPT, WildChat; the last response is what is judged", matches=is_log, read=_log
    ),
    "records": Format(
        help="demonstrations, response sets, comparisons, rankings, judgments; HH-RLHF, TRL, Alpaca",
        matches=lambda row: True,
        read=_own,
    ),
}


def read_collection(
    paths: Sequence[str | Path],
    format: str = "auto",
    *,
    skip_bad_rows: bool = False,
    seen: Callable[[int], object] = lambda count: None,
) -> CollectionFile:
    """Read judged data.

    Args:
        paths: .jsonl(.gz), .json or .parquet files, or folders of `datasets`, in this order.
        format: a key of `FORMATS`; "auto": the first that a row looks like.
        skip_bad_rows: set bad rows aside in `bad_rows` instead of raising at the first.
        seen: called with the number of rows read so far, for a progress bar.

    Raises:
        DataError: an unknown format, a file is missing or damaged, a row is bad, or no row is good.
    """
    if format != "auto" and format not in FORMATS:
        raise DataError(f"unknown format {format!r}; expected auto or one of {', '.join(FORMATS)}")
    rows: list[Collected] = []
    outputs: list[tuple[int, Row]] = []  # AlpacaEval's: a set has a row per model, in any order
    counts: Counter[str] = Counter()
    bad: list[BadRow] = []
    total = 0
    for path in map(Path, paths):
        files.check_path(path)
        for number, row in files.rows(path):
            total += 1
            seen(total)
            try:
                name, found = _read_row(row, format)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                message = _message(error)
                if not skip_bad_rows:
                    hint = "(or set such rows aside: --skip-bad-rows)"
                    raise DataError(f"{path}, row {number}: {message} {hint}") from None
                raw = row.text if isinstance(row, Broken) else row
                bad.append(BadRow(file=str(path), row=number, message=message, raw=raw))
                continue
            counts[name] += 1
            if name == "alpaca-outputs":
                outputs.append((number, row))
            else:
                rows += [replace(one, file=str(path), row=number) for one in found]
    rows += [replace(one, file=str(paths[-1]), row=total) for one in alpaca_outputs(outputs)]
    if not rows:
        first = f"; row {bad[0].row}: {bad[0].message}" if bad else ""
        raise DataError(f"{', '.join(map(str, paths))}: no good row of {total}{first}")
    hashes = {str(path): files.sha256(Path(path)) for path in paths}
    return CollectionFile(rows=tuple(rows), formats=dict(counts), bad_rows=tuple(bad), sha256=hashes)


def _read_row(row: Any, format: str) -> tuple[str, list[Collected]]:
    if isinstance(row, Broken):
        raise ValueError(row.message)
    if not isinstance(row, Mapping):
        raise ValueError(f"found {type(row).__name__}; expected an object; correct the row")
    name = format if format != "auto" else next(name for name, known in FORMATS.items() if known.matches(row))
    return name, list(FORMATS[name].read(row))


def _message(error: Exception) -> str:
    """What is wrong, for whoever mends the row: shapes nobody foresaw come as KeyError or TypeError."""
    if isinstance(error, ValidationError):
        return describe(error)
    if isinstance(error, KeyError):
        return f"`{error.args[0]}` is missing; expected it in this format; add it"
    if isinstance(error, ValueError):
        return str(error)
    return f"the row is not built like its format ({error}); compare it with a row that can be read"
