"""Prompt trees: a prompt once, K responses hanging from it; and the pack of several trees a model reads at once.

Everything in alignment is a prompt and K responses: K = 1 in supervised fine-tuning, 2 in a comparison, 4 to 9 in a
ranking, K samples in reinforcement learning. Prompt tokens are stored and computed once for all K.

Dimensions: B trees, N responses of all trees together, T tokens of the pack, S tokens of its longest tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

__all__ = ["Branch", "PromptTree", "TreeBatch", "budget_packs", "pack"]


@dataclass(frozen=True)
class Branch:
    """One response. "4" with its end token is `Branch((28, 2), (True, True))`.

    Attributes:
        tokens: vocabulary ids, the end token included if the response has one.
        scored: True where a loss or score may look. All of a plain response; in a conversation of several turns the
            tokens of the assistant's turns, not those of the user in between.
    """

    tokens: tuple[int, ...]
    scored: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.scored):
            raise ValueError(f"a branch has {len(self.tokens)} tokens and {len(self.scored)} marks; one mark per token")
        if not any(self.scored):
            raise ValueError("a response has no token to train on or to score: it is empty, or its mask is all False")

    @classmethod
    def response(cls, tokens: Iterable[int]) -> Branch:
        """A response of which every token counts."""
        ids = tuple(tokens)
        return cls(ids, (True,) * len(ids))


@dataclass(frozen=True)
class PromptTree:
    """A prompt and its K >= 1 responses. "2+2=" with "4" and "5" is one tree: the prompt once, two branches.

    Attributes:
        prompt: vocabulary ids, at least one (the first response token is predicted from the last of them).
        branches: the responses; their order is the order of everything computed from the tree.
    """

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a prompt tree needs at least one prompt token: nothing predicts the first response token")
        if not self.branches:
            raise ValueError("a prompt tree needs at least one response")

    @property
    def length(self) -> int:
        """Tokens of the tree, the prompt counted once."""
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest response: the sequence length a model sees."""
        return len(self.prompt) + max(len(branch.tokens) for branch in self.branches)


@dataclass(frozen=True, kw_only=True)
class TreeBatch:
    """B trees side by side, no padding. "2+2=" with responses "4" and "5" has T = 4 + 2 + 2 (end tokens included).

    Attributes:
        token_T: int64 vocabulary ids.
        position_T: int64, 0.. in the prompt; every branch goes on where the prompt ended.
        tree_T: int64, 0..B-1.
        branch_T: int64, -1 in the prompt, else 0..K-1 within its tree.
        response_T: int64, -1 in the prompt, else 0..N-1 within the pack.
        parent_T: int64 index of the token before; of a branch's first token the prompt's last; -1 for a prompt's first.
        scored_T: bool, True where a loss may look; the end token of a response is scored.
        end_N: int64 index of the last token of each response.
        tree_N: int64, the tree each response belongs to.
        slot_N: int64, 0..K-1, its place there.
        trees: the trees as given, for the fallback of one row per response.
    """

    token_T: Tensor
    position_T: Tensor
    tree_T: Tensor
    branch_T: Tensor
    response_T: Tensor
    parent_T: Tensor
    scored_T: Tensor
    end_N: Tensor
    tree_N: Tensor
    slot_N: Tensor
    trees: tuple[PromptTree, ...] = field(repr=False)

    @property
    def count(self) -> int:
        """N, the number of responses."""
        return int(self.end_N.numel())

    @property
    def width(self) -> int:
        """The largest K of the pack."""
        return max(len(tree.branches) for tree in self.trees)

    @cached_property
    def scored_index(self) -> Tensor:
        """(scored tokens,) int64 indices into T, in order."""
        return self.scored_T.nonzero().squeeze(-1)

    @cached_property
    def scored_response(self) -> Tensor:
        """(scored tokens,) int64, the response each scored token belongs to."""
        return self.response_T[self.scored_index]

    @cached_property
    def length_N(self) -> Tensor:
        """(N,) int64, scored tokens of each response."""
        return torch.bincount(self.scored_response, minlength=self.count)

    def to(self, device: torch.device | str) -> TreeBatch:
        """The same pack on another device.

        Nothing waits: whoever asks a GPU for a number of tokens waits for all that it was given to do, and it is idle
        until the host has laid out the next pack. So the indices are counted here, and copied in their turn.
        """
        device = torch.device(device)
        moved = TreeBatch(**{name: _sent(getattr(self, name), device) for name in _TENSORS}, trees=self.trees)
        if device.type != "cpu":
            vars(moved).update({name: _sent(getattr(self, name), device) for name in _COUNTED})
        return moved

    def by_tree(self, value_N: Tensor, fill: float | int) -> Tensor:
        """Lay one value per response out as (B, K) with `fill` where a tree has fewer responses; keeps the graph."""
        table_BK = value_N.new_full((len(self.trees), self.width), fill)
        return table_BK.index_put((self.tree_N, self.slot_N), value_N)


_COUNTED = ("scored_index", "scored_response", "length_N")
_TENSORS = tuple(f.name for f in fields(TreeBatch) if f.name != "trees")


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=device.type != "cpu")  # a CPU would read what has not arrived


@record_function("accord.data")
def pack(trees: Sequence[PromptTree]) -> TreeBatch:
    """Put trees side by side. O(tokens); everything about who sees whom follows from the indices made here."""
    if not trees:
        raise ValueError("nothing to pack: no trees were given")
    segments, size = [], list[int]()  # prompts and branches, in order: (position of the first token, token before, ...)
    token, scored = list[int](), list[bool]()
    count = 0
    for b, tree in enumerate(trees):
        segments.append((0, -1, b, -1, -1))
        size.append(len(tree.prompt))
        token += tree.prompt
        scored += [False] * len(tree.prompt)
        last = len(token) - 1
        for k, branch in enumerate(tree.branches):
            segments.append((len(tree.prompt), last, b, k, count))
            size.append(len(branch.tokens))
            token += branch.tokens
            scored += branch.scored
            count += 1
    # By numpy: some 20 calls on a few thousand numbers.
    segment_SF, size_S = (np.array(rows, dtype=np.int64) for rows in (segments, size))
    index_T = np.arange(len(token))
    start_T, before_T, tree_T, branch_T, response_T = np.ascontiguousarray(np.repeat(segment_SF, size_S, 0).T)
    offset_T = index_T - np.repeat(size_S.cumsum() - size_S, size_S)
    is_response_S = segment_SF[:, 4] >= 0
    return TreeBatch(
        token_T=torch.tensor(token, dtype=torch.int64),
        position_T=torch.from_numpy(start_T + offset_T),
        tree_T=torch.from_numpy(tree_T),
        branch_T=torch.from_numpy(branch_T),
        response_T=torch.from_numpy(response_T),
        parent_T=torch.from_numpy(np.where(offset_T == 0, before_T, index_T - 1)),
        scored_T=torch.tensor(scored, dtype=torch.bool),
        end_N=torch.from_numpy(size_S.cumsum()[is_response_S] - 1),
        tree_N=torch.from_numpy(segment_SF[is_response_S, 2]),
        slot_N=torch.from_numpy(segment_SF[is_response_S, 3]),
        trees=tuple(trees),
    )


def budget_packs(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split items into groups of at most `budget` tokens, items of like length together, longest first.

    An item longer than the budget has a group of its own: nothing is dropped here. Any split gives the same gradient,
    because losses are divided by the counts of the whole optimiser step; only memory and speed change.
    """
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not groups or lengths[index] > room:
            groups.append([])
            room = budget
        groups[-1].append(index)
        room -= lengths[index]
    return groups
