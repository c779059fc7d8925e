"""What becomes of rows at a length limit, by hand, and the order in which a run sees them."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.batches import (
    corpus_trees,
    demonstration_trees,
    fit,
    preferences,
    prompt_ids,
    step_batches,
    text_trees,
)
from accord.records import Comparison, Demonstration, Feedback, Message, Ranking
from accord.text import Template
from accord.trees import Branch, PromptTree
from fakes import tiny_tokenizer

# ChatML around a user message of n bytes: <|im_start|>user\n + n + <|im_end|>\n<|im_start|>assistant\n
HEADER = 1 + len("user\n") + 1 + 1 + 1 + len("assistant\n")


@pytest.fixture(scope="module")
def template():
    return Template(tiny_tokenizer())


def tree(prompt: int, *responses: int) -> PromptTree:
    return PromptTree(tuple(range(100, 100 + prompt)), tuple(Branch.response((7,) * (n - 1) + (2,)) for n in responses))


def test_a_row_that_fits_is_left_alone():
    whole = tree(20, 5, 10)
    assert fit(whole, 30) is whole
    assert fit(tree(3, 27), 30) == tree(3, 27)  # short prompts are whole prompts


def test_the_oldest_prompt_tokens_go_and_the_end_token_stays():  # field: T5
    cut = fit(tree(40, 5, 10), 30)
    assert cut.prompt == tuple(range(120, 140))
    assert cut.longest == 30
    assert cut.branches == tree(40, 5, 10).branches
    assert [branch.tokens[-1] for branch in cut.branches] == [2, 2]


def test_sixteen_prompt_tokens_or_nothing():
    assert len(fit(tree(40, 14), 30).prompt) == 16
    assert fit(tree(40, 15), 30) is None
    assert fit(tree(5, 40), 30) is None


def test_a_start_token_survives_the_cut():  # field: T4
    assert fit(tree(40, 10), 30, bos_id=100).prompt == (100, *range(121, 140))
    assert fit(tree(40, 10), 30, bos_id=99).prompt == tuple(range(120, 140))
    assert fit(tree(40, 10), 30, bos_id=100).longest == 30


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(8, 64), st.booleans())
def test_what_is_kept_fits_and_ends_as_it_did(prompt, responses, limit, begins):  # field: T5
    given_tree = tree(prompt, *responses)
    kept = fit(given_tree, limit, 100 if begins else None)
    if kept is None:
        assert limit - max(responses) < min(16, prompt)
    else:
        assert kept.longest <= limit
        assert kept.longest == min(limit, given_tree.longest)
        assert kept.branches == given_tree.branches
        assert kept.prompt[1:] == given_tree.prompt[len(given_tree.prompt) - len(kept.prompt) + 1 :]


def test_counts_by_hand(template):  # field: T5
    rows = [
        Demonstration(prompt="a" * 10, response="b" * 9),  # prompt 29, response 10 with its end token: 39
        Demonstration(prompt="a" * 30, response="b" * 9),  # 49 + 10: 19 too many
        Demonstration(prompt="a" * 10, response="b" * 30),  # 31 leaves 9 for a prompt of 29: out
        Demonstration(prompt="a" * 10, response="b" * 9),  # again
        Demonstration(prompt="a" * 10, response="c" * 9),
    ]
    trees, report = demonstration_trees(rows, template, 40)
    assert HEADER == 19
    assert report.as_dict() == {
        "rows": 5, "kept": 4, "cut_prompts": 1, "cut_tokens": 19, "left_out": (3,), "duplicates": 1,
        "tokens": 39 + 40 + 39 + 39, "trained_tokens": 40, "longest": 40,
    }  # fmt: skip
    assert report.kept_rows == [1, 2, 4, 5]
    assert len(trees) == 4
    assert all(one.branches[0].tokens[-1] == template.end_id for one in trees)
    for words in (
        "4 of 5 rows",
        "157 tokens (40 trained on)",
        "1 prompts cut",
        "19 tokens",
        "1 rows left out",
        "1 dup",
    ):
        assert words in report.sentence()
    whole = demonstration_trees(rows[:1], template, 40)[1].sentence()
    assert whole == "1 of 1 rows, 39 tokens (10 trained on), longest 39"


def test_a_conversation_trains_all_turns_and_a_demonstration_the_last(template):
    turns = [("user", "a"), ("assistant", "bc"), ("user", "d"), ("assistant", "efg")]
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    every, _ = demonstration_trees([Demonstration(messages=messages)], template, 200)
    last, _ = demonstration_trees([Demonstration(prompt=messages[:3], response="efg")], template, 200)
    assert sum(every[0].branches[0].scored) == 3 + 4
    assert sum(last[0].branches[0].scored) == 4
    assert last[0].prompt == template.prompt(messages[:3])


def test_preferences_keep_ranks_probability_and_margin_through_a_cut(template):
    rows = [
        Comparison(prompt="a" * 30, chosen="b", rejected="c", probability=0.7, margin=2.0),
        Ranking(prompt="a", responses=("x", "y", "z"), ranks=(2, None, 1)),
        Comparison(prompt="a", chosen="b" * 50, rejected="c"),
    ]
    items, report = preferences(rows, template, 40)
    assert [item.ranks for item in items] == [(1, 2), (2, 0, 1)]
    assert (items[0].probability, items[0].margin) == (0.7, 2.0)
    assert (items[1].probability, items[1].margin) == (None, None)
    assert items[0].tree.longest == 40
    assert (report.left_out, report.cut_prompts, report.cut_tokens) == ((3,), 1, HEADER + 30 + 2 - 40)
    assert report.trained_tokens == 4 + 6


def test_prompts_leave_room_for_what_will_be_sampled(template):
    rows = [(Message(role="user", content="a" * n),) for n in (1, 20, 200)]
    ids, report = prompt_ids(rows, template, 40, 10)
    assert [len(one) for one in ids] == [HEADER + 1, 30, 30]
    assert (report.cut_prompts, report.cut_tokens) == (2, 9 + HEADER + 200 - 30)
    ids, report = prompt_ids(rows, template, 40, 25)
    assert ids == []
    assert report.left_out == (1, 2, 3)


def test_no_rows_is_a_count_of_zero(template):
    assert demonstration_trees([], template, 40)[1].longest == 0


def test_a_row_the_template_refuses_is_named():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template = Template(tiny_tokenizer(refuses + "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"))
    system = (Message(role="system", content="s"), Message(role="user", content="u"))
    rows = [Demonstration(prompt="a", response="b"), Demonstration(prompt=system, response="b")]
    with pytest.raises(ValueError, match=r"row 2 of the data that was read: .*roles \[system, user.*no system"):
        demonstration_trees(rows, template, 40)


# -- order -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
def windows(text: str, template: Template, limit: int) -> list[tuple[int, ...]]:
    trees = text_trees(text, template, limit)
    assert all(len(one.prompt) == 1 and all(one.branches[0].scored) and one.length <= limit for one in trees)
    return [one.prompt + one.branches[0].tokens for one in trees]


@settings(max_examples=60, deadline=None)
@given(st.text("abcé<|im_end|>", min_size=1, max_size=70), st.integers(8, 40))
def test_a_text_is_cut_into_windows_that_overlap_by_what_predicts_the_next(text, limit):
    plain = Template(tiny_tokenizer())
    ids = plain.text(text)
    assert plain.decode(ids) == text  # "<|im_end|>" stays text
    assert 2 not in ids
    found = windows(text, plain, limit)
    joined = [*found[0], *(token for window in found[1:] for token in window[1:])] if found else list(ids)
    assert tuple(joined) == ids
    assert all(before[-1] == after[0] for before, after in pairwise(found))
    assert bool(found) == (len(ids) > 1)


def test_a_tokenizer_s_own_beginning_stands_before_every_window():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.bos_token = "<|endoftext|>"
    begun = Template(tokenizer)
    ids = begun.text("abcdefghij")
    assert len(ids) == 10
    assert windows("abcdefghij", begun, 8) == [(0, *ids[:7]), (0, *ids[7:])]
    assert windows("a", begun, 8) == [(0, ids[0])]  # predicted by the beginning
    named = tiny_tokenizer()
    named.bos_token = "<|im_start|>"  # which the tokenizer does not write: it opens a turn
    assert windows("abcdefghij", Template(named), 8) == [ids[:8], ids[7:]]


def test_a_corpus_counts_its_texts_and_demonstrations(template):
    rows = [
        "abcdefghij",
        Demonstration(prompt="q", response="abc"),
        "a",
        "xy",
        Demonstration(prompt="q", response="b" * 99),
    ]
    trees, report = corpus_trees(rows, template, 60)
    assert (report.texts, report.windows, report.too_short, report.demonstrations.kept) == (3, 2, 1, 1)
    assert report.tokens == sum(tree.length for tree in trees) == 10 + 2 + HEADER + 1 + 4
    assert report.trained_tokens == 9 + 1 + 4
    assert "3 texts in 2 windows" in report.sentence()
    assert "1 texts of one token left out" in report.sentence()
    assert "1 rows left out" in report.sentence()
    assert report.as_dict()["demonstrations"]["left_out"] == (2,)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**40))
def test_each_row_is_seen_exactly_epochs_times(count, batch_size, epochs, seed):  # field: R2
    steps = step_batches(count, batch_size, epochs, seed)
    assert Counter(row for rows in steps for row in rows) == dict.fromkeys(range(count), epochs)
    per_epoch = -(-count // batch_size)
    assert len(steps) == epochs * per_epoch
    for number, rows in enumerate(steps, 1):
        last_of_epoch = number % per_epoch == 0
        assert len(rows) == (count - 1) % batch_size + 1 if last_of_epoch else len(rows) == batch_size
    for epoch in range(epochs):  # an epoch is finished before the next begins
        part = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(row for rows in part for row in rows) == list(range(count))


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    assert step_batches(20, 3, 2, 5) == step_batches(20, 3, 2, 5)
    assert step_batches(20, 3, 1, 5) == step_batches(20, 3, 2, 5)[:7]  # longer training begins the same
    assert step_batches(20, 3, 1, 5) != step_batches(20, 3, 1, 6)
    first, second = step_batches(20, 20, 2, 5)
    assert first != second
    step_batches(3, 1, 1, 2**70)  # any seed will do


def test_what_was_cut_off_teaches_no_end(template):
    rows = [Demonstration(prompt="q", response="ab", finished=mark) for mark in (None, True, False)]
    trees, _ = demonstration_trees(rows, template, 100)
    assert [tree.branches[0].tokens[-1] == template.end_id for tree in trees] == [True, True, False]
    assert [len(tree.branches[0].tokens) for tree in trees] == [3, 3, 2]
    ranking = Ranking(prompt="q", responses=["ab", "cd", ""], ranks=[1, 2, None], finished=[False, True, False])
    [item], _ = preferences([ranking], template, 100)
    assert [branch.tokens[-1] == template.end_id for branch in item.tree.branches] == [False, True, True]


def test_thumbs_are_rankings_of_one(template):
    rows = [Feedback(prompt="q", response="ab", label=label) for label in (True, False)]
    assert [item.ranks for item in preferences(rows, template, 100)[0]] == [(1,), (0,)]
