"""Every objective of `accord train dpo`: its value written out, its gradient, what it learns, what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from accord.data.batches import Preference
from accord.models.score import response_scores
from accord.train import preference
from accord.train.configs import DpoConfig
from accord.train.methods import METHODS
from accord.train.objectives import OBJECTIVES, labels_of
from accord.train.pairs import PairTotals, ranks_of
from accord.train.progress import Quiet
from accord.train.unpaired import mismatched_trees
from accord.trees import Branch, PromptTree, pack
from fakes import tiny_llama
from train.data import WORDS, metrics, write
from train.test_exact_accumulation import BASE, BUDGETS, check_same, gradient, model_of, ragged

RANKS = [(1, 2), (2, 1, 2, 0), (1, 1), (3, 1, 2), (1, 2)]
SCORES = [(1.0, 0.5), (0.0, 2.0, 0.0, -1.0), (1.0, 1.0), (-2.0, 0.5, 0.1), (0.3, 0.2)]
LOSSES = list(OBJECTIVES)


def items_of(loss: str, reference: bool = True) -> list[preference.Item]:
    """Five ranked trees with made-up reference log-probabilities and mismatched responses."""
    trees = ragged([[3, 9], [4, 1, 12, 2], [5, 5], [1, 2, 3], [20, 2]])
    generator = torch.Generator().manual_seed(3)
    rankings = [Preference(tree=t, ranks=r, scores=s) for t, r, s in zip(trees, RANKS, SCORES, strict=True)]
    strangers = mismatched_trees(rankings, 1000, None)
    made = []
    for item, stranger in zip(rankings, strangers, strict=True):
        noise = (torch.rand(len(item.ranks) + 1, generator=generator) * 2 - 1).tolist()
        lengths = [len(branch.tokens) for branch in item.tree.branches]
        row = tuple(-5.5 * n + x for n, x in zip(lengths, noise, strict=False)) if reference else (0.0,) * len(lengths)
        pair = (stranger, -5.7 * len(stranger.branches[0].tokens) + noise[-1])
        made.append(preference.Item(preference=item, reference=row, mismatched=pair if loss == "kto" else None))
    return made


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def pair_loss(loss: str, c: DpoConfig, w: dict, l: dict) -> float:  # noqa: E741 - winner and loser
    """The published formula of a pair; w and l have p (log-probability), r (reference), n (tokens)."""
    gap = (w["p"] - w["r"]) - (l["p"] - l["r"])
    mean_w, mean_l = w["p"] / w["n"], l["p"] / l["n"]
    if loss in ("dpo", "cdpo", "robust"):
        z, e = c.beta * gap, c.label_smoothing or 0.0
        if loss == "robust":
            return ((1 - e) * softplus(-z) - e * softplus(z)) / (1 - 2 * e)
        return (1 - e) * softplus(-z) + e * softplus(z)
    if loss == "ipo":
        if c.reduction == "mean":
            gap = (w["p"] - w["r"]) / w["n"] - (l["p"] - l["r"]) / l["n"]
        return (gap - 1 / (2 * c.beta)) ** 2
    if loss == "hinge":
        return max(0.0, 1 - c.beta * gap)
    if loss == "slic":
        return max(0.0, c.delta - w["p"] + l["p"]) - c.regularisation * w["p"]
    if loss == "dpo-length":
        return softplus(-(c.beta * gap + (1 if c.form == "derived" else -1) * c.alpha * (w["n"] - l["n"])))
    if loss == "simpo":
        return softplus(-(c.beta * (mean_w - mean_l) - c.gamma))
    assert loss == "orpo"
    odds = [m - math.log1p(-math.exp(m)) for m in (mean_w, mean_l)]
    return -mean_w + c.coefficient * softplus(-(odds[0] - odds[1]))


def list_loss(loss: str, c: DpoConfig, responses: list[dict], ranks: tuple, scores: tuple) -> float:
    """Place by place: the one that is there against all that are worse."""
    better = [[a >= 1 and (b > a or b == 0) for b in ranks] for a in ranks]
    s = [x["p"] / x["n"] if loss == "pro" else c.beta * (x["p"] - x["r"]) for x in responses]
    terms = {}
    for k, row in enumerate(better):
        worse = [i for i, is_worse in enumerate(row) if is_worse]
        if not worse:
            continue
        sharp = dict.fromkeys([k, *worse], 1.0)
        if c.temperatures:
            sharp = {i: max(scores[k] - scores[i], 0.0) for i in worse}
            sharp[k] = max(sharp.values())
        terms[k] = math.log(sum(math.exp(g * s[i]) for i, g in sharp.items())) - sharp[k] * s[k]
    best = [i for i, rank in enumerate(ranks) if rank == min(r for r in ranks if r >= 1)]
    if loss == "info-nce":
        firsts = [terms[k] for k in best if k in terms]
        return sum(firsts) / max(1, len(firsts))
    total = sum(terms.values())
    return total + c.sft_weight * -sum(s[k] for k in best) / len(best) if loss == "pro" else total


def kto_loss(c: DpoConfig, responses: list[dict], ranks: tuple, z0: float) -> float:
    losses = []
    for i, a in enumerate(ranks):
        wins = sum(
            (a >= 1 and (b > a or b == 0)) - (b >= 1 and (a > b or a == 0)) for j, b in enumerate(ranks) if j != i
        )
        ratio = responses[i]["p"] - responses[i]["r"]
        if wins:
            weight = c.desirable_weight if wins > 0 else c.undesirable_weight
            losses.append(weight / (1 + math.exp(c.beta * (ratio - z0) * (1 if wins > 0 else -1))))
    return sum(losses) / max(1, len(losses))


@torch.no_grad()
def alone(model, tree: PromptTree) -> list[dict]:
    """Each response scored without its siblings."""
    return [
        {
            "p": float(response_scores(model, pack([PromptTree(tree.prompt, (branch,))])).logprob_T.sum()),
            "n": len(branch.tokens),
        }
        for branch in tree.branches
    ]


CASES = [(loss, {}) for loss in LOSSES] + [
    ("ipo", {"reduction": "mean"}), ("dpo-length", {"form": "printed", "alpha": 0.3}), ("dpo-length", {"alpha": -0.2}),
    ("pro", {"temperatures": True, "sft_weight": 0.3}), ("slic", {"regularisation": 0.1, "delta": 3.0}),
    ("kto", {"desirable_weight": 1.3, "undesirable_weight": 0.4}), ("simpo", {"gamma": 0.2, "beta": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "settings"), CASES, ids=lambda value: str(value))
def test_value_and_gradient(loss, settings):  # field: G1, K2, M4
    config = DpoConfig(**BASE, loss=loss, **settings)
    items = items_of(loss, OBJECTIVES[loss].reference)
    results = {}
    for budget in BUDGETS:
        model = model_of()
        value, totals = preference.accumulate(model, items, config.model_copy(update={"micro_tokens": budget}))
        results[budget] = (value, gradient(model), totals.means())
    check_same(results)

    model = model_of()
    drifts = [alone(model, i.mismatched[0])[0]["p"] - i.mismatched[1] for i in items if i.mismatched]
    z0 = max(0.0, sum(drifts) / len(drifts)) if drifts else 0.0
    by_tree = []
    for item in items:
        ranks = item.preference.ranks
        responses = [x | {"r": r} for x, r in zip(alone(model, item.tree), item.reference, strict=True)]
        if loss == "kto":
            by_tree.append(kto_loss(config, responses, ranks, z0))
        elif loss in ("info-nce", "plackett-luce", "pro"):
            by_tree.append(list_loss(loss, config, responses, ranks, item.preference.scores))
        else:
            pairs = [
                pair_loss(loss, config, responses[i], responses[j])
                for i, a in enumerate(ranks) for j, b in enumerate(ranks) if a >= 1 and (b > a or b == 0)
            ]  # fmt: skip
            by_tree.append(sum(pairs) / max(1, len(pairs)))
    assert results[16][0] == pytest.approx(sum(by_tree) / len(by_tree), rel=1e-5)
    if loss == "kto":
        assert totals.means()["kl__reference_point"] == pytest.approx(z0, rel=1e-5)
        assert z0 > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_value(loss):
    """Central differences along a random direction of one weight matrix."""
    config, items = DpoConfig(**BASE, loss=loss), items_of(loss, OBJECTIVES[loss].reference)
    model = model_of()
    preference.accumulate(model, items, config)
    weight = model.model.layers[1].mlp.down_proj.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5), dtype=weight.dtype)
    slope, ends = float((weight.grad * direction).sum()), []
    point = preference.point_of(model, items, config, PairTotals())  # constant: no gradient flows through it
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * 1e-4 * direction
            ends.append(float(preference.loss_of(model, items, config, PairTotals(), point)) / len(items))
            weight -= sign * 1e-4 * direction
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "kto"])
def test_dropped_failures_do_not_count(loss):
    """With `failed: drop` a ranking with a failed response has the loss of the ranking without it."""
    items = items_of(loss, OBJECTIVES[loss].reference)[1:2]
    kept = [k for k, rank in enumerate(items[0].preference.ranks) if rank]
    less = replace(
        items[0],
        preference=Preference(
            tree=PromptTree(items[0].tree.prompt, tuple(items[0].tree.branches[k] for k in kept)),
            ranks=tuple(items[0].preference.ranks[k] for k in kept),
        ),
        reference=tuple(items[0].reference[k] for k in kept),
    )
    drop, last = (DpoConfig(**BASE, loss=loss, failed=word) for word in ("drop", "last"))
    dropped, without, counted = (
        preference.accumulate(model_of(), rows, config)[0]
        for rows, config in ((items, drop), ([less], last), (items, last))
    )
    assert dropped == pytest.approx(without, rel=1e-6)
    assert abs(counted - without) > 1e-3


def test_two_responses_make_the_lists_into_pairs():
    items = [item for item in items_of("dpo") if len(item.reference) == 2]
    losses = {
        name: preference.accumulate(model_of(), items, DpoConfig(**BASE, loss=name, **settings))[0]
        for name, settings in {"dpo": {}, "plackett-luce": {}, "info-nce": {}, "pro": {"sft_weight": 0.0}}.items()
    }
    assert losses["plackett-luce"] == pytest.approx(losses["dpo"], rel=1e-7)
    assert losses["info-nce"] == pytest.approx(losses["dpo"], rel=1e-7)
    # PRO's scores are means: Bradley-Terry on those
    model, by_tree = model_of(), []
    for item in items:
        x = [a["p"] / a["n"] for a in alone(model, item.tree)]
        a, b = item.preference.ranks
        by_tree.append(0.0 if a == b else softplus(-(x[0] - x[1])))
    assert losses["pro"] == pytest.approx(sum(by_tree) / len(by_tree), rel=1e-5)


def test_a_certain_soft_target_is_dpo_and_a_flipped_one_its_mirror():
    items = items_of("dpo")[:1]
    plain = preference.accumulate(model_of(), items, DpoConfig(**BASE))[0]

    def soft(p: float) -> float:
        rows = [replace(items[0], preference=replace(items[0].preference, probability=p))]
        return preference.accumulate(model_of(), rows, DpoConfig(**BASE))[0]

    assert soft(1.0) == pytest.approx(plain, rel=1e-9)
    assert soft(0.0) != pytest.approx(plain, rel=1e-3)
    assert soft(0.3) == pytest.approx(0.3 * soft(1.0) + 0.7 * soft(0.0), rel=1e-6)


# -- KTO ---------------------------------------------------------------------------------------------------------------


def test_who_is_up_and_who_is_down_by_hand():
    trees = [PromptTree((1,), tuple(Branch.response((k + 4,)) for k in range(n))) for n in (4, 2, 1, 1, 3)]
    ranks = [(1, 2, 2, 3), (1, 1), (1,), (0,), (2, 0, 1)]
    items = [Preference(tree=tree, ranks=rank) for tree, rank in zip(trees, ranks, strict=True)]
    batch = pack(trees)
    label_N = labels_of(ranks_of(batch, items), batch, "last")
    assert label_N.tolist() == [1, 0, 0, -1, 0, 0, 1, -1, 0, -1, 1]
    assert labels_of(ranks_of(batch, items), batch, "drop").tolist()[-3:] == [-1, 0, 1]


def test_a_mismatched_response_answers_the_next_other_prompt():
    prompts = [(1,), (1,), (2,), (3,), (1,)]
    items = [
        Preference(tree=PromptTree(prompt, (Branch.response((10 + i,)),)), ranks=(1,))
        for i, prompt in enumerate(prompts)
    ]
    trees = mismatched_trees(items, 100, None)
    assert [(tree.prompt, tree.branches[0].tokens) for tree in trees] == [
        ((1,), (12,)), ((1,), (12,)), ((2,), (13,)), ((3,), (14,)), ((1,), (12,)),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="all 2 rows of the training or of the held-out data have the same prompt"):
        mismatched_trees(items[:2], 100, None)


# -- learning ----------------------------------------------------------------------------------------------------------


def preferences_file(path, words, kind):
    """ "a" is liked, "m" is fair, "z" is not; lengths say nothing."""
    rows = []
    for i, word in enumerate(words):
        a, m, z = ("a" * (1 + i % 3), "m" * (1 + (i + 1) % 3), "z" * (1 + (i + 2) % 3))
        if kind == "feedback":
            rows += [{"prompt": word, "completion": text, "label": text is a} for text in (a, z)]
        else:
            rows.append({"prompt": word, "responses": [m, a, z], "ranks": [2, 1, None if i % 3 == 0 else 3]})
    return write(path, rows)


@pytest.mark.parametrize("lora", [0, 8])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_the_order_on_prompts_it_has_not_seen(tiny_folder, tmp_path, loss, lora):
    kind = "feedback" if loss == "kto" else "rankings"
    data = preferences_file(tmp_path / "train.jsonl", WORDS[:6] * 5, kind)
    lengths = [(i, j) for i in (1, 2, 3) for j in (1, 2, 3)]
    pairs = [{"prompt": word, "chosen": "a" * i, "rejected": "z" * j} for word in WORDS[6:] for i, j in lengths]
    held = write(tmp_path / "held.jsonl", pairs)
    config = DpoConfig(
        model=str(tiny_folder), data=[data], eval_data=[held], out=tmp_path / "run", loss=loss, batch_size=6, epochs=8,
        eval_every=4, lora_rank=lora, learning_rate=3e-3, precision="fp32", max_length=128, micro_tokens=512,
    )  # fmt: skip
    rows = metrics(preference.run(config, Quiet()))
    # SLiC compares sums over tokens, in which a long good response loses to a short bad one for long.
    assert rows[-1]["eval/accuracy_tie_half"] >= (0.7 if loss == "slic" else 0.9)
    assert rows[-1]["eval/longer_wins_accuracy"] == 0.5
    assert rows[-1]["loss"] < rows[0]["loss"]
    if loss == "kto":
        assert rows[-1]["reward/desirable"] > rows[0]["reward/desirable"] - 0.5
        assert rows[-1]["eval/reward/desirable"] > rows[-1]["eval/reward/undesirable"]
    if OBJECTIVES[loss].reference:
        assert rows[0]["reward/chosen" if loss != "kto" else "reward/desirable"] == pytest.approx(0.0, abs=1e-5)


# -- settings and data -------------------------------------------------------------------------------------------------


def test_each_objective_is_in_the_table_of_methods_and_back():
    assert [entry.name for entry in METHODS if entry.job == "dpo"] == LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_a_setting_is_read_or_refused(loss):  # field: S1
    """Each setting of the family: changed, it changes the loss, or is refused by name."""
    other = {
        "beta": 0.77, "label_smoothing": 0.21, "reduction": "mean", "alpha": 0.5, "form": "printed", "delta": 9.0,
        "regularisation": 0.3, "gamma": 0.4, "coefficient": 0.8, "desirable_weight": 0.3, "undesirable_weight": 2.0,
        "sft_weight": 0.9, "temperatures": True,
    }  # fmt: skip
    every = {name for entry in METHODS if entry.job == "dpo" for name in entry.reads}
    assert every == other.keys()
    items = items_of(loss, OBJECTIVES[loss].reference)
    before = preference.accumulate(model_of(), items, DpoConfig(**BASE, loss=loss))[0]
    reads = next(entry.reads for entry in METHODS if (entry.job, entry.name) == ("dpo", loss))
    for name, value in other.items():
        if name in reads:
            after = preference.accumulate(model_of(), items, DpoConfig(**BASE, loss=loss, **{name: value}))[0]
            assert abs(after - before) > 1e-6, name
        else:
            with pytest.raises(ValidationError, match=f'"{name}" is not read with loss {loss}'):
                DpoConfig(**BASE, loss=loss, **{name: value})


@pytest.mark.parametrize(
    ("row", "loss", "words"),
    [
        ({"margin": 1.0}, "dpo", "`margin`, which no direct preference loss reads"),
        ({"probability": 0.7}, "ipo", "`probability`, which --loss ipo does not read; use --loss dpo or cdpo"),
        ({}, "pro", "1 of 1 rows have no `scores`"),
    ],
)
def test_data_that_is_not_read_is_refused(tiny_folder, tmp_path, row, loss, words):
    data = write(tmp_path / "data.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b", **row}])
    extra = {"temperatures": True} if loss == "pro" else {}
    config = DpoConfig(model=str(tiny_folder), data=[data], out=tmp_path / "run", loss=loss, precision="fp32", **extra)
    with pytest.raises(ValueError, match=words):
        preference.run(config, Quiet())


@pytest.mark.parametrize("settings", [{"loss": "dpo"}, {"loss": "pro", "sft_weight": 0.0}])
def test_failures_alone_teach_nothing_when_they_are_dropped(tiny_folder, tmp_path, settings):
    rows = [{"prompt": word, "responses": ["a", "z"], "ranks": [1, None]} for word in WORDS]
    data = write(tmp_path / "data.jsonl", rows)
    config = DpoConfig(model=str(tiny_folder), data=[data], out=tmp_path / "run", failed="drop", **settings)
    with pytest.raises(ValueError, match="no pair to learn from"):
        preference.run(config, Quiet())


def test_thumbs_without_weight_teach_nothing(tiny_folder, tmp_path):
    data = write(tmp_path / "data.jsonl", [{"prompt": w, "response": "a", "label": True} for w in WORDS])
    config = DpoConfig(model=str(tiny_folder), data=[data], out=tmp_path / "run", loss="kto", desirable_weight=0.0)
    with pytest.raises(ValueError, match="8 responses with thumbs up of weight 0, 0 with thumbs down"):
        preference.run(config, Quiet())


def test_a_first_step_with_nothing_to_learn_is_no_error(tiny_folder, tmp_path):
    """Ties for KTO, and a pair that is already won for a hinge, have loss 0 and no gradient."""
    ties = [{"prompt": word, "responses": ["a", "z"], "ranks": [1, 1]} for word in WORDS[:7]]
    data = write(tmp_path / "ties.jsonl", [*ties, {"prompt": "mn", "responses": ["a", "z"], "ranks": [1, 2]}])
    base = {"model": str(tiny_folder), "precision": "fp32", "batch_size": 1}
    rows = metrics(preference.run(DpoConfig(**base, data=[data], out=tmp_path / "kto", loss="kto"), Quiet()))
    assert sum(row["grad_norm"] > 0 for row in rows) == 1
    won = write(tmp_path / "won.jsonl", [{"prompt": w, "chosen": "a", "rejected": "z" * 30} for w in WORDS])
    slic = DpoConfig(**base, data=[won], out=tmp_path / "slic", loss="slic", regularisation=0.0, delta=0.1)
    assert metrics(preference.run(slic, Quiet()))[0]["grad_norm"] == 0


# -- the reference -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """How many trees the reference was asked for, call by call."""
    counts = []
    from accord.train import reference

    real = reference.all_sequence_logprobs

    def count(model, trees, *rest):
        counts.append(len(trees))
        return real(model, trees, *rest)

    monkeypatch.setattr(reference, "all_sequence_logprobs", count)
    return counts


def test_the_reference_is_asked_once_for_all_runs_on_the_same_content(tiny_folder, tmp_path, monkeypatch, asked):
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    data = preferences_file(tmp_path / "a.jsonl", WORDS, "rankings")
    base = {"model": str(tiny_folder), "precision": "fp32", "max_steps": 1, "batch_size": 4}

    def start(name, file=data, **settings):
        folder = preference.run(DpoConfig(**(base | {"data": [file], "out": tmp_path / name} | settings)), Quiet())
        return metrics(folder)[0]["loss"]

    first = start("one")
    assert asked == [8]
    copied = tmp_path / "elsewhere.jsonl"
    copied.write_bytes(data.read_bytes())
    assert start("two", copied) == first  # another name of the same content
    start("three", beta=0.5, learning_rate=1e-3)
    start("four", loss="ipo")
    start("five", loss="simpo")  # has no reference
    assert asked == [8]
    start("six", max_length=20)  # prompts are cut: other tokens
    assert asked == [8, 8]
    start("seven", file=preferences_file(tmp_path / "b.jsonl", WORDS[:4], "rankings"))
    assert asked == [8, 8, 4]
    for path in (tmp_path / "cache" / "reference").iterdir():
        path.write_bytes(b"half a fi")
    assert start("eight") == first  # a damaged file is made again
    assert asked == [8, 8, 4, 8]
    moved = tiny_llama(seed=5, hidden=64)
    moved.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_bytes((tiny_folder / name).read_bytes())
    start("nine", model=str(tmp_path / "model"))
    assert asked == [8, 8, 4, 8, 8]


def test_a_reference_cache_that_cannot_be_written_is_no_reason_to_stop(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "file"))
    data = preferences_file(tmp_path / "a.jsonl", WORDS, "rankings")
    config = DpoConfig(model=str(tiny_folder), data=[data], out=tmp_path / "run", precision="fp32", max_steps=1)
    preference.run(config, Quiet())
