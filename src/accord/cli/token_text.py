"""Tokens as coloured text: what is trained on, what is only read, what was cut; special tokens spelled out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from rich.text import Text

from accord.cli.console import printable

__all__ = ["MARKS", "STYLES", "Mark", "legend", "token_text"]

Mark: TypeAlias = Literal["trained", "given", "cut"]

STYLES: dict[Mark, tuple[str, str]] = {
    "trained": ("bold white on dark_green", "bold white on green4"),
    "given": ("dim", "dim"),
    "cut": ("red strike", "red strike"),
}
"""Two alternating styles per mark, so that token borders show where the background does."""

MARKS: dict[Mark, tuple[str, str]] = {"trained": ("⟦", "⟧"), "given": ("", ""), "cut": ("~", "~")}
"""Around runs of tokens where there are no colours."""

SPECIAL = {"trained": "bold yellow on dark_green", "given": "magenta", "cut": "red strike"}
LONGEST_CHARACTER = 8


def token_text(tokenizer: Any, tokens: Sequence[int], marks: Sequence[Mark], *, colour: bool) -> Text:
    """Tokens in order as one text.

    Args:
        tokenizer: a transformers tokenizer.
        tokens: vocabulary ids.
        marks: one per token.
        colour: styles; without, trained tokens stand in ⟦ ⟧ and cut ones in ~ ~.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    text = Text()
    before: Mark | None = None
    for number, (ids, mark, piece) in enumerate(_pieces(tokenizer, tokens, marks)):
        if not colour and mark != before:
            text.append(MARKS[before][1] if before else "").append(MARKS[mark][0])
        style = SPECIAL[mark] if ids[0] in special else STYLES[mark][number % 2]
        text.append(printable(piece), style if colour else "")
        before = mark
    if not colour and before:
        text.append(MARKS[before][1])
    if text.plain.endswith("\n"):
        text.right_crop(1)
    return text


def legend(*, colour: bool) -> Text:
    """What the colours, or the brackets, mean."""
    words: tuple[tuple[Mark, str], ...] = (("trained", "trained on"), ("given", "read only"), ("cut", "cut off"))
    if not colour:
        return Text("  ".join(f"{MARKS[mark][0]}{word}{MARKS[mark][1]}" for mark, word in words))
    special = Text(" special token ", SPECIAL["given"])
    return Text(" ").join([*(Text(f" {word} ", STYLES[mark][0]) for mark, word in words), special])


def _pieces(tokenizer: Any, tokens: Sequence[int], marks: Sequence[Mark]) -> Iterator[tuple[list[int], Mark, str]]:
    """Groups of tokens with their text: mostly one token, several where a character is spread over them.

    The text of a group is what it adds to the group before it, because some tokenizers drop the space a text begins
    with.
    """
    context: list[int] = []
    start = 0
    while start < len(tokens):
        end = start + 1
        piece = _added(tokenizer, context, tokens[start:end])
        while "\ufffd" in piece and end < min(len(tokens), start + LONGEST_CHARACTER) and marks[end] == marks[start]:
            end += 1
            piece = _added(tokenizer, context, tokens[start:end])
        context = list(tokens[start:end])
        yield context, marks[start], piece
        start = end


def _added(tokenizer: Any, context: Sequence[int], tokens: Sequence[int]) -> str:
    before, whole = (
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in (context, [*context, *tokens])
    )
    if whole.startswith(before):
        return str(whole[len(before) :])
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
