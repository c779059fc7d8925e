"""Tree == one row per response == alone: values and gradients, on five families, whatever the packing."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from accord.models import attention, blocks
from accord.models.attention import NAME
from accord.models.head import Distribution, head_of
from accord.models.score import base_of, prepare, response_scores, response_states, rewards
from accord.trees import Branch, PromptTree, budget_packs, pack
from fakes import FAMILIES, VOCABULARY, tiny_gemma, tiny_llama


def some_trees(seed: int = 0, sizes=((7, (3, 5, 4)), (12, (2,)), (3, (6, 1)), (20, (9, 2, 3, 4)))) -> list[PromptTree]:
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (n,), generator=generator).tolist())

    return [PromptTree(draw(p), tuple(Branch.response(draw(n)) for n in ks)) for p, ks in sizes]


def by_definition(model: nn.Module, trees: list[PromptTree], temperature: float = 1.0) -> list[torch.Tensor]:
    """Each response alone in its own row, through the model's own forward pass and logits."""
    out = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([tree.prompt + branch.tokens])
            logprob_TV = (model(input_ids=ids).logits[0, :-1] / temperature).log_softmax(-1)
            out.append(logprob_TV.gather(-1, ids[0, 1:, None])[len(tree.prompt) - 1 :, 0])
    return out


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_gives_what_each_response_gives_alone(family):
    model = FAMILIES[family]().double()
    trees = some_trees()
    expected = torch.cat(by_definition(model, trees, temperature=0.7))
    weight = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64)
    (expected * weight).sum().backward()
    plain = gradients(model)

    model.zero_grad()
    assert prepare(model) is None
    assert base_of(model).config._attn_implementation == NAME
    scores = response_scores(model, pack(trees), temperature=0.7)
    assert_close(scores.logprob_T, expected, rtol=1e-9, atol=1e-11)
    (scores.logprob_T * weight).sum().backward()
    assert gradients(model).keys() == plain.keys()
    for name, gradient in gradients(model).items():
        # transformers' RMSNorm squares in float32 even in a float64 model, so gradients agree to its rounding.
        bound = 2e-6 * float(plain[name].abs().max()) if "gpt" not in family else 1e-11
        assert_close(gradient, plain[name], rtol=0, atol=bound, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_fallback_and_agree(family):
    model = FAMILIES[family]().double()  # not prepared: its own attention
    trees = some_trees(seed=1)
    scores = response_scores(model, pack(trees))
    assert_close(scores.logprob_T, torch.cat(by_definition(model, trees)), rtol=1e-9, atol=1e-11)


def test_neighbours_and_order_change_nothing():
    model = tiny_llama().double()
    prepare(model)
    trees = some_trees()
    together = response_scores(model, pack(trees)).logprob_T
    turned = response_scores(model, pack(trees[::-1])).logprob_T
    alone = [response_scores(model, pack([tree])).logprob_T for tree in trees]
    assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-12)
    assert_close(turned, torch.cat(alone[::-1]), rtol=1e-10, atol=1e-12)


def test_a_changed_sibling_or_neighbour_leaves_all_others_bit_identical():
    model = tiny_llama()
    prepare(model)
    trees = some_trees()
    before = response_scores(model, pack(trees)).logprob_T
    first = trees[0].branches[0]
    changed = PromptTree(trees[0].prompt, (Branch.response([9] * len(first.tokens)), *trees[0].branches[1:]))
    after = response_scores(model, pack([changed, *trees[1:]])).logprob_T
    size = len(first.tokens)
    assert not torch.equal(before[:size], after[:size])
    assert torch.equal(before[size:], after[size:])


def test_any_split_into_packs_gives_the_same_gradient():
    trees = some_trees()
    whole = None
    for budget in (10_000, 60, 1):
        model = tiny_llama().double()
        prepare(model)
        groups = budget_packs([tree.length for tree in trees], budget)
        assert sorted(i for group in groups for i in group) == list(range(len(trees)))
        for group in groups:
            (response_scores(model, pack([trees[i] for i in group])).logprob_T.sum() / 37).backward()
        total = gradients(model)
        whole = whole or total
        for name, gradient in total.items():
            assert_close(gradient, whole[name], rtol=1e-8, atol=1e-12)


def test_a_sliding_window_spans_prompt_and_response():
    model = tiny_gemma(window=4).double()
    assert prepare(model) is None
    trees = some_trees(sizes=((15, (9, 7)),))
    assert_close(
        response_scores(model, pack(trees)).logprob_T, torch.cat(by_definition(model, trees)), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packed", [True, False])
def test_the_exact_kl_to_another_model_is_that_of_the_logits(family, packed):
    model, other = FAMILIES[family]().double(), FAMILIES[family](seed=3).double()
    for one in (model, other):
        assert not packed or prepare(one) is None
    trees = some_trees()
    batch = pack(trees)
    with torch.no_grad():
        distribution = Distribution(response_states(other, batch), head_of(other))
        found = response_scores(model, batch, temperature=0.7, other=distribution)
        expected = []
        for tree in trees:
            for branch in tree.branches:
                ids = torch.tensor([tree.prompt + branch.tokens])
                rows = slice(len(tree.prompt) - 1, -1)
                p, q = ((m(input_ids=ids).logits[0, rows] / 0.7).log_softmax(-1) for m in (model, other))
                expected.append((p.exp() * (p - q)).sum(-1))
    assert_close(found.kl_T, torch.cat(expected), rtol=1e-8, atol=1e-10)
    assert float(found.kl_T.min()) > 1e-4
    assert response_scores(model, batch).kl_T is None


def test_entropy_is_that_of_the_whole_distribution_and_differentiable():
    model = tiny_llama().double()
    prepare(model)
    trees = some_trees(sizes=((5, (4,)),))
    got = response_scores(model, pack(trees), temperature=1.3, entropy=True)
    ids = torch.tensor([trees[0].prompt + trees[0].branches[0].tokens])
    logprob_TV = (model(input_ids=ids).logits[0, 4:-1] / 1.3).log_softmax(-1)
    expected = -(logprob_TV.exp() * logprob_TV).sum(-1)
    assert_close(got.entropy_T, expected, rtol=1e-9, atol=1e-11)
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    (expected * weight).sum().backward()
    plain = gradients(model)
    model.zero_grad()
    (got.entropy_T * weight).sum().backward()
    for name, gradient in gradients(model).items():
        assert_close(gradient, plain[name], rtol=1e-7, atol=1e-11)


def test_only_states_that_predict_response_tokens_reach_the_head(monkeypatch):
    from accord.models import head

    model = tiny_llama()
    prepare(model)
    rows: list[int] = []
    plain = head.Head.raw
    monkeypatch.setattr(head, "GROUP_BYTES", 3 * 4 * VOCABULARY)  # three tokens a product
    monkeypatch.setattr(head.Head, "raw", lambda self, x: rows.append(len(x)) or plain(self, x))
    trees = some_trees()
    scores = response_scores(model, pack(trees))
    assert sum(rows) == scores.logprob_T.numel() == sum(len(b.tokens) for t in trees for b in t.branches)
    assert max(rows) == 3
    rows.clear()
    scores.logprob_T.sum().backward()
    assert sum(rows) == scores.logprob_T.numel()
    assert max(rows) == 3


def test_a_reward_is_read_at_the_last_token_of_its_response():
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = tiny_llama().config
    config.num_labels, config.pad_token_id = 1, 3
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    trees = some_trees()
    rows = [torch.tensor([t.prompt + b.tokens]) for t in trees for b in t.branches]
    expected = torch.cat([model(input_ids=row).logits[0] for row in rows])
    assert prepare(model) is None
    assert_close(rewards(model, pack(trees)), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_all_ways_of_attention_give_the_same(family, dtype, monkeypatch):
    """Block by block, small trees side by side or not, and torch's kernel: values and gradients."""
    model, trees, found = FAMILIES[family]().to(dtype), some_trees(), {}
    assert prepare(model) is None or dtype == torch.bfloat16
    for way, size in (("fused", 1), ("side by side", 160), ("runs", 8)):
        monkeypatch.setattr(blocks, "SIZE", size)
        monkeypatch.setattr(blocks, "SMALL", size)
        monkeypatch.setattr(attention, "_in_blocks", lambda *_, way=way: way != "fused")
        model.zero_grad()
        logprob_T = response_scores(model, pack(trees)).logprob_T
        logprob_T.sum().backward()
        found[way] = logprob_T.detach(), gradients(model)
    tight = dtype == torch.float64
    for way in ("side by side", "runs"):
        assert_close(found[way][0], found["fused"][0], rtol=0, atol=1e-9 if tight else 0.05)
        for name, gradient in found["fused"][1].items():
            bound = (1e-9 if tight else 0.05) * float(gradient.abs().max().clamp_min(1))
            assert_close(found[way][1][name], gradient, rtol=0, atol=bound)
