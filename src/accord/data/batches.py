"""Records -> prompt trees that fit the model, and the order in which a run sees them.

Nothing is cut or left out silently: `Fit` counts it, the run prints it and writes it into its manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch

from accord.records import Comparison, Conversation, Demonstration, Feedback, Ranking
from accord.text import Template
from accord.trees import Branch, PromptTree

__all__ = [
    "CorpusFit",
    "Fit",
    "Preference",
    "corpus_trees",
    "demonstration_trees",
    "fit",
    "preferences",
    "prompt_ids",
    "step_batches",
    "text_trees",
]

FEWEST_PROMPT_TOKENS = 16

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Preference:
    """A tree with its verdict. A comparison is a ranking of two: ranks (1, 2).

    A thumb on a single response is a ranking of one: (1,) is up, (0,), failed, is down.

    Attributes:
        tree: K >= 2 responses; 1 for a thumb.
        ranks: K integers: 1 is best, equal numbers tie, 0 failed (`accord.losses.listwise`).
        probability: P(the first is better), for comparisons with soft targets, else None.
        margin: how much better, in reward units, or None.
        scores: K rewards, where the data has them, or None.
    """

    tree: PromptTree
    ranks: tuple[int, ...]
    probability: float | None = None
    margin: float | None = None
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What became of the rows at a length limit.

    Attributes:
        rows: rows read.
        kept: rows that are used.
        cut_prompts: rows whose prompt lost its oldest tokens; responses and their end tokens are never cut.
        cut_tokens: prompt tokens lost in them.
        left_out: numbers (from 1, bad rows not counted) of the rows whose responses leave no room for a prompt.
        duplicates: rows that repeat an earlier row, token by token; they are kept.
        tokens: tokens of all kept trees, prompts counted once.
        trained_tokens: those of them that are scored.
        longest: tokens of the longest prompt with its longest response, after cutting.
    """

    rows: int
    kept: int
    cut_prompts: int
    cut_tokens: int
    left_out: tuple[int, ...]
    duplicates: int
    tokens: int
    trained_tokens: int
    longest: int

    @property
    def kept_rows(self) -> list[int]:
        """Numbers (from 1) of the rows that are used, in order."""
        return sorted({*range(1, self.rows + 1)} - {*self.left_out})

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def sentence(self) -> str:
        """One line for people."""
        parts = [f"{self.kept} of {self.rows} rows", f"{self.tokens:,} tokens ({self.trained_tokens:,} trained on)"]
        parts.append(f"longest {self.longest}")
        if self.cut_prompts:
            parts.append(f"{self.cut_prompts} prompts cut on the left by {self.cut_tokens:,} tokens in all")
        if self.left_out:
            parts.append(f"{len(self.left_out)} rows left out: response too long for --max-length")
        if self.duplicates:
            parts.append(f"{self.duplicates} duplicates")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class CorpusFit:
    """What became of plain texts and demonstrations at a length limit.

    Attributes:
        texts: plain texts read.
        windows: pieces they were cut into.
        too_short: texts of one token, which nothing predicts; they are left out.
        tokens: tokens of all windows and kept demonstrations.
        trained_tokens: those of them that are scored.
        demonstrations: what became of these.
    """

    texts: int
    windows: int
    too_short: int
    tokens: int
    trained_tokens: int
    demonstrations: Fit

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def sentence(self) -> str:
        """One line for people."""
        parts = [f"{self.texts} texts in {self.windows} windows"] if self.texts else []
        if self.demonstrations.rows:
            parts.append(f"demonstrations: {self.demonstrations.sentence()}")
        parts.append(f"in all {self.tokens:,} tokens ({self.trained_tokens:,} trained on)")
        if self.too_short:
            parts.append(f"{self.too_short} texts of one token left out")
        return ", ".join(parts)


def fit(tree: PromptTree, max_length: int, bos_id: int | None = None) -> PromptTree | None:
    """Cut the oldest prompt tokens so that prompt + longest response <= max_length; None if too little would be left.

    The end of every response stays, because a response without its end teaches a model not to stop; a prompt keeps at
    least 16 tokens (or all it has), and the token `bos_id` if it begins with it.
    """
    room = max_length - (tree.longest - len(tree.prompt))
    if room >= len(tree.prompt):
        return tree
    if room < FEWEST_PROMPT_TOKENS:
        return None
    begin = tree.prompt[:1] if tree.prompt[0] == bos_id else ()
    return PromptTree((*begin, *tree.prompt[len(tree.prompt) - room + len(begin) :]), tree.branches)


def demonstration_trees(
    records: Iterable[Demonstration], template: Template, max_length: int
) -> tuple[list[PromptTree], Fit]:
    """Demonstrations as trees of one branch."""

    def encode(record: Demonstration) -> PromptTree:
        if record.trained == "last":
            said = record.conversation[-1].content
            return template.tree(record.conversation[:-1], [said], finished=[record.finished is not False])
        return template.conversation(record.conversation)

    return _fitted(records, encode, lambda tree: tree, lambda _, tree: tree, (max_length, template.bos_id))


def text_trees(text: str, template: Template, max_length: int) -> list[PromptTree]:
    """A plain text as windows of at most `max_length` tokens, each a tree of one branch whose prompt is one token.

    That token is the one the tokenizer begins a text with, or, where it has none, the last token of the window before:
    so every token of the text is scored once, but for the very first one where nothing predicts it.
    """
    ids, begin, step = template.text(text), template.text_begin_id, max_length - 1
    if begin is not None:
        return [PromptTree((begin,), (Branch.response(ids[at : at + step]),)) for at in range(0, len(ids), step)]
    return [
        PromptTree(ids[at : at + 1], (Branch.response(ids[at + 1 : at + 1 + step]),))
        for at in range(0, len(ids) - 1, step)
    ]


def corpus_trees(
    records: Iterable[str | Demonstration], template: Template, max_length: int
) -> tuple[list[PromptTree], CorpusFit]:
    """Plain texts and demonstrations, mixed, as trees of one branch; the windows of all texts come first."""
    records = list(records)
    windows_of = [text_trees(one, template, max_length) for one in records if isinstance(one, str)]
    windows = [window for windows in windows_of for window in windows]
    kept, fitted = demonstration_trees([one for one in records if not isinstance(one, str)], template, max_length)
    report = CorpusFit(
        texts=len(windows_of),
        windows=len(windows),
        too_short=sum(not windows for windows in windows_of),
        tokens=fitted.tokens + sum(tree.length for tree in windows),
        trained_tokens=fitted.trained_tokens + sum(len(tree.branches[0].tokens) for tree in windows),
        demonstrations=fitted,
    )
    return windows + kept, report


def preferences(
    records: Iterable[Comparison | Feedback | Ranking], template: Template, max_length: int
) -> tuple[list[Preference], Fit]:
    """Comparisons, rankings and thumbs as trees of K branches with ranks."""

    def encode(record: Comparison | Feedback | Ranking) -> Preference:
        if isinstance(record, Feedback):
            return Preference(tree=template.tree(record.prompt, [record.response]), ranks=(int(record.label),))
        if isinstance(record, Comparison):
            tree = template.tree(record.prompt, [record.chosen, record.rejected])
            return Preference(tree=tree, ranks=(1, 2), probability=record.probability, margin=record.margin)
        tree = template.tree(record.prompt, record.responses, finished=record.finished)
        return Preference(tree=tree, ranks=tuple(record.ranks_as_ids()), scores=record.scores)

    def cut(item: Preference, tree: PromptTree) -> Preference:
        return replace(item, tree=tree)

    return _fitted(records, encode, lambda item: item.tree, cut, (max_length, template.bos_id))


def prompt_ids(
    prompts: Iterable[Conversation], template: Template, max_length: int, max_new_tokens: int
) -> tuple[list[tuple[int, ...]], Fit]:
    """Prompts with room for a response of `max_new_tokens`; `fit` counts the response as if it had that length."""
    dummy = Branch.response((template.end_id,) * max_new_tokens)
    trees, report = _fitted(
        prompts,
        lambda prompt: PromptTree(template.prompt(prompt), (dummy,)),
        lambda tree: tree,
        lambda _, tree: tree,
        (max_length, template.bos_id),
    )
    return [tree.prompt for tree in trees], report


def step_batches(count: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """The rows of every optimiser step of a run: each epoch a permutation of its own, the last batch as short as it is.

    A function of its arguments alone, so a resumed run continues at a step, not at a guess about the data.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(count, generator=generator).tolist()
        steps += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return steps


def _fitted(
    records: Iterable[Any],
    encode: Callable[[Any], Item],
    tree_of: Callable[[Item], PromptTree],
    with_tree: Callable[[Item, PromptTree], Item],
    limits: tuple[int, int | None],
) -> tuple[list[Item], Fit]:
    kept: list[Item] = []
    trees: list[PromptTree] = []
    left_out: list[int] = []
    cuts: list[int] = []
    rows = 0
    for rows, record in enumerate(records, start=1):
        try:
            item = encode(record)
        except ValueError as error:
            raise ValueError(f"row {rows} of the data that was read: {error}") from error
        tree = fit(tree_of(item), *limits)
        if tree is None:
            left_out.append(rows)
            continue
        cuts.append(len(tree_of(item).prompt) - len(tree.prompt))
        trees.append(tree)
        kept.append(with_tree(item, tree))
    report = Fit(
        rows=rows,
        kept=len(kept),
        cut_prompts=sum(cut > 0 for cut in cuts),
        cut_tokens=sum(cuts),
        left_out=tuple(left_out),
        duplicates=sum(times - 1 for times in Counter(map(_key, trees)).values()),
        tokens=sum(tree.length for tree in trees),
        trained_tokens=sum(sum(branch.scored) for tree in trees for branch in tree.branches),
        longest=max((tree.longest for tree in trees), default=0),
    )
    return kept, report


def _key(tree: PromptTree) -> int:
    return hash((tree.prompt, tuple(branch.tokens for branch in tree.branches)))
