"""Prompt trees and packs: indices by hand, properties over random trees, budgets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from accord.trees import Branch, PromptTree, budget_packs, pack

IDS = st.lists(st.integers(0, 99), min_size=1, max_size=6).map(tuple)
TREES = st.lists(
    st.builds(PromptTree, IDS, st.lists(IDS.map(Branch.response), min_size=1, max_size=4).map(tuple)), min_size=1
)


def test_a_pack_by_hand():
    """ "2+2=" with "4" and "5", then a prompt of one token with a response of which the first token is not scored."""
    trees = [
        PromptTree((20, 21, 20, 22), (Branch.response((24, 2)), Branch.response((25, 2)))),
        PromptTree((7,), (Branch((8, 9, 2), (False, True, True)),)),
    ]
    batch = pack(trees)
    assert batch.token_T.tolist() == [20, 21, 20, 22, 24, 2, 25, 2, 7, 8, 9, 2]
    assert batch.position_T.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 0, 1, 2, 3]
    assert batch.tree_T.tolist() == [0] * 8 + [1] * 4
    assert batch.branch_T.tolist() == [-1, -1, -1, -1, 0, 0, 1, 1, -1, 0, 0, 0]
    assert batch.response_T.tolist() == [-1, -1, -1, -1, 0, 0, 1, 1, -1, 2, 2, 2]
    assert batch.parent_T.tolist() == [-1, 0, 1, 2, 3, 4, 3, 6, -1, 8, 9, 10]
    assert batch.scored_T.int().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1]
    assert batch.end_N.tolist() == [5, 7, 11]
    assert batch.tree_N.tolist() == [0, 0, 1]
    assert batch.slot_N.tolist() == [0, 1, 0]
    assert batch.scored_index.tolist() == [4, 5, 6, 7, 10, 11]
    assert batch.scored_response.tolist() == [0, 0, 1, 1, 2, 2]
    assert (batch.count, batch.width) == (3, 2)
    assert [tree.length for tree in trees] == [8, 4]
    assert [tree.longest for tree in trees] == [6, 4]


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_following_parents_from_an_end_spells_prompt_and_response(trees):
    batch = pack(trees)
    rows = [tree.prompt + branch.tokens for tree in trees for branch in tree.branches]
    assert batch.count == len(rows)
    for n, row in enumerate(rows):
        at, path = int(batch.end_N[n]), []
        while at >= 0:
            assert int(batch.response_T[at]) in (n, -1)
            assert int(batch.position_T[at]) == len(row) - 1 - len(path)
            path.append(int(batch.token_T[at]))
            at = int(batch.parent_T[at])
        assert tuple(reversed(path)) == row
    assert batch.token_T.numel() == sum(tree.length for tree in trees)


def test_values_by_tree_keep_their_graph_and_ragged_places_the_fill():
    batch = pack(
        [
            PromptTree((1,), tuple(Branch.response((k,)) for k in (2, 3))),
            PromptTree((1,), tuple(Branch.response((k,)) for k in (4, 5, 6))),
        ]
    )
    value_N = torch.arange(1.0, 6.0, requires_grad=True)
    table_BK = batch.by_tree(value_N, -9.0)
    assert table_BK.tolist() == [[1.0, 2.0, -9.0], [3.0, 4.0, 5.0]]
    (table_BK * torch.tensor([[1.0, 2, 100], [3, 4, 5]])).sum().backward()
    assert_close(value_N.grad, torch.tensor([1.0, 2, 3, 4, 5]))


def test_a_pack_on_another_device_has_everything_there():
    batch = pack([PromptTree((1, 2), (Branch.response((3,)),))]).to("meta")
    assert {batch.token_T.device.type, batch.end_N.device.type, batch.scored_T.device.type} == {"meta"}
    assert batch.trees[0].prompt == (1, 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 80))
def test_budget_packs_hold_each_item_once_and_the_budget(lengths, budget):  # field: M5
    groups = budget_packs(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert group
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
    flat = [lengths[i] for group in groups for i in group]
    assert flat == sorted(lengths, reverse=True)  # like length together


def test_budget_packs_by_hand():
    assert budget_packs([3, 9, 4, 5, 4], 9) == [[1], [3, 2], [4, 0]]
    assert budget_packs([20, 1, 1], 9) == [[0], [1, 2]]  # too long for the budget: alone, not dropped
    assert budget_packs([], 9) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Branch((1, 2), (True,)), "2 tokens and 1 marks"),
        (lambda: Branch((1, 2), (False, False)), "no token to train on"),  # field: T2
        (lambda: Branch.response(()), "no token to train on"),
        (lambda: PromptTree((), (Branch.response((1,)),)), "at least one prompt token"),
        (lambda: PromptTree((1,), ()), "at least one response"),
        (lambda: pack([]), "nothing to pack"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_pack_for_another_device_is_counted_before_it_goes():
    """Where numbers of tokens would be waited for, all that depends on them is there already."""
    batch = pack([PromptTree((1, 2), (Branch.response((3, 4)), Branch((5, 6, 7), (True, False, True))))])
    assert batch.length_N.tolist() == [2, 2]
    assert "scored_index" not in vars(batch.to("cpu"))
    moved = batch.to("meta")
    assert {"scored_index", "scored_response", "length_N"} <= vars(moved).keys()
    assert all(getattr(moved, name).device.type == "meta" for name in ("token_T", "end_N", "length_N"))
    assert moved.scored_index.shape == (4,)
