"""What the loops share: schedule, step, precision, dropout, settings that are read, weights that move."""

import ast
import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import accord
from accord.losses.likelihood import nll
from accord.models.load import new_reward_model
from accord.models.score import prepare, response_scores, rewards
from accord.train import loop, policy, preference, reward, sft
from accord.train.configs import DpoConfig, PpoConfig, RewardConfig, SftConfig
from accord.train.loop import Precision, add_lora
from accord.train.methods import METHODS, method
from accord.train.progress import Quiet
from accord.trees import Branch, PromptTree, pack
from fakes import FAMILIES, VOCABULARY, tiny_gpt2, tiny_llama, tiny_tokenizer
from train.data import comparisons, demonstrations, metrics, prompts, write

CPU = torch.device("cpu")
FAST = {"precision": "fp32", "learning_rate": 1e-3, "max_length": 128, "batch_size": 4}
JOBS = {
    "sft": (SftConfig, sft, demonstrations, {}),
    "reward": (RewardConfig, reward, comparisons, {}),
    "dpo": (DpoConfig, preference, comparisons, {}),
    "ppo": (PpoConfig, policy, prompts, {"reward": "train.data:many_a", "max_new_tokens": 5, "samples": 2}),
}


def config_of(job: str, model: Path, folder: Path, count: int = 12, **extra):
    kind, _, make, own = JOBS[job]
    data = folder / f"{job}-{count}.jsonl"
    if not data.exists():
        make(data, count)
    return kind(**{"model": str(model), "data": [data], "out": folder / "run", **FAST, **own, **extra})


def start(job: str, config) -> Path:
    return JOBS[job][1].run(config, Quiet())


def some_trees() -> list[PromptTree]:
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (n,), generator=generator).tolist())

    return [PromptTree(draw(p), tuple(Branch.response(draw(n)) for n in ks)) for p, ks in ((7, (3, 5)), (12, (2, 9)))]


# -- schedule and step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.8875, 0.775, 0.6625, 0.55, 0.4375, 0.325, 0.2125]),
        ("cosine", [0.5, 1, 1, 0.96574, 0.86820, 0.72221, 0.55, 0.37779, 0.23180, 0.13426]),
    ],
)
def test_learning_rates_of_ten_steps(schedule, expected):
    config = SftConfig(model="m", data=["d"], out="o", learning_rate=2.0, warmup=0.2, schedule=schedule)
    found = [loop.learning_rate(step, 10, config) / 2.0 for step in range(10)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_without_warmup_the_first_step_has_the_peak_rate():
    config = SftConfig(model="m", data=["d"], out="o", learning_rate=2.0, warmup=0.0)
    assert loop.learning_rate(0, 1, config) == 2.0


def test_a_step_scales_long_gradients_and_each_group_s_rate():
    layers = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    config = SftConfig(model="m", data=["d"], out="o", weight_decay=0.1)
    optimiser = loop.make_optimiser(layers, config, [1.0, 50.0])
    for layer, gradient in zip(layers, ([3.0, 0.0], [0.0, 4.0]), strict=True):
        layer.weight.grad = torch.tensor([gradient])
    assert loop.optimise(optimiser, 0.01, 1.0, 0.5, lambda: "") == pytest.approx(5.0)  # all together, before scaling
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.01, 0.5])
    assert all(layer.weight.grad is None for layer in layers)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    groups = loop.make_optimiser([model], SftConfig(model="m", data=["d"], out="o", weight_decay=0.1)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.1), (3, 0.0)]


def test_a_step_s_random_choices_are_its_own():
    draws = []
    for step in (3, 4, 3):
        loop.seed_step(11, step)
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[2] != draws[1]
    loop.seed_step(2**62, 10**6)  # any seed will do


def test_evaluations_and_checkpoints_fall_due_at_the_end_too():
    assert [loop.due(step, 4, 10) for step in range(10)] == [False] * 3 + [True] + [False] * 3 + [True, False, True]


# -- precision ---------------------------------------------------------------------------------------------------------


def test_the_faster_arithmetic_is_taken_and_a_wish_is_a_wish(monkeypatch):  # field: I3
    monkeypatch.setattr(loop, "_fast_precision", lambda device: "bf16")
    assert [Precision(wanted, CPU).name for wanted in ("auto", "fp32", "bf16")] == ["bf16", "fp32", "bf16"]
    monkeypatch.undo()
    assert Precision("auto", CPU).name in ("fp32", "bf16")
    with Precision("fp32", CPU).forward():
        assert not torch.is_autocast_enabled("cpu")
    with Precision("bf16", CPU).forward():
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def with_biases(model):
    """A new model's biases are zeros, which round to themselves."""
    generator = torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data = torch.randn(p.shape, generator=generator)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_copy_scores_as_its_original_bit_for_bit(family):
    model = with_biases(FAMILIES[family]())
    frozen = copy.deepcopy(model)
    precision = Precision("bf16", CPU)
    for one in (model, frozen):
        assert prepare(one) is None
    precision.freeze(frozen)
    assert not any(p.requires_grad for p in frozen.parameters())
    batch = pack(some_trees())
    with precision.forward():
        ours = response_scores(model, batch, temperature=0.7).logprob_T
        with torch.no_grad():
            theirs = response_scores(frozen, batch, temperature=0.7).logprob_T
    assert torch.equal(ours.detach(), theirs)
    adapted = with_biases(FAMILIES[family]())
    prepare(adapted)
    adapted = add_lora(precision.freeze(adapted), 4, 0, base="")
    with precision.forward(), torch.no_grad():
        assert torch.equal(response_scores(adapted, batch, temperature=0.7).logprob_T, theirs)  # B starts at 0
        with adapted.disable_adapter():
            assert torch.equal(response_scores(adapted, batch, temperature=0.7).logprob_T, theirs)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


def test_a_frozen_reward_model_scores_as_its_original_bit_for_bit(tiny_folder):
    precision, batch = Precision("bf16", CPU), pack(some_trees())
    scores = []
    for freeze in (False, True):
        model, _ = new_reward_model(str(tiny_folder), seed=1)
        prepare(model)
        if freeze:
            precision.freeze(model)
            assert model.score.weight.dtype == torch.float32
        with precision.forward(), torch.no_grad():
            scores.append(rewards(model, batch))
    assert torch.equal(*scores)
    assert scores[0].dtype == torch.float32


# -- dropout and checkpointing -----------------------------------------------------------------------------------------


def test_steady_models_have_no_dropout_and_still_recompute(monkeypatch):
    trees, results = some_trees(), []
    for checkpointing in (False, True):
        model = tiny_gpt2()
        prepare(model)
        if checkpointing:
            from accord.models.quiet import quiet

            with quiet():
                model.gradient_checkpointing_enable({"use_reentrant": False})
        loop.steady(model)
        calls = []
        model.transformer.h[0].ln_1.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        logprob_T = response_scores(model, pack(trees)).logprob_T
        nll(logprob_T, torch.ones_like(logprob_T, dtype=torch.bool), token_count=5).backward()
        assert len(calls) == (2 if checkpointing else 1)
        results.append((logprob_T.detach(), [p.grad for p in model.parameters()]))
    with torch.no_grad():
        assert torch.equal(response_scores(model.eval(), pack(trees)).logprob_T, results[0][0])
    assert torch.equal(results[0][0], results[1][0])
    for plain, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert_close(plain, recomputed)


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    """As GPT-2 is published: dropout everywhere, and 64 positions in place of 1,024."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    model = tiny_gpt2()
    model.transformer.wpe = nn.Embedding(64, 32)
    model.config.n_positions = 64
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_with_dropout_starts_dpo_and_ppo_at_the_reference(gpt2_folder, tmp_path, checkpointing):  # field: S5
    extra = {"gradient_checkpointing": checkpointing, "max_steps": 1, "max_length": 64}
    first = metrics(start("dpo", config_of("dpo", gpt2_folder, tmp_path, out=tmp_path / "dpo", **extra)))[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["accuracy_tie_half"] == 0.5
    first = metrics(start("ppo", config_of("ppo", gpt2_folder, tmp_path, out=tmp_path / "ppo", **extra)))[0]
    assert first["kl/reference"] == 0
    assert first["kl/old"] == pytest.approx(0, abs=1e-9)
    assert first["clip_fraction"] == 0
    assert first["sampler/gap"] < 1e-5


def test_the_model_s_own_limit_bounds_rows_and_is_counted(gpt2_folder, tmp_path):  # field: T5
    data = write(
        tmp_path / "long.jsonl", [{"prompt": "a" * 90, "response": "bc"}, {"prompt": "a", "response": "b" * 60}] * 2
    )
    notes = []

    class Notes(Quiet):
        def note(self, text):
            notes.append(text)

    config = SftConfig(model=str(gpt2_folder), data=[data], eval_data=[data], out=tmp_path / "run", **FAST)
    folder = sft.run(config, Notes())
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("data_fit", "eval_data_fit"):
        fitted = manifest[name]
        assert (fitted["rows"], fitted["kept"], fitted["left_out"]) == (4, 2, [2, 4])
        assert (fitted["cut_prompts"], fitted["cut_tokens"], fitted["longest"]) == (2, 2 * (109 + 3 - 64), 64)
        assert fitted["duplicates"] == 1
    said = "\n".join(notes)
    assert "the model has 64 positions" in said
    assert "data: 2 of 4 rows" in said
    assert "eval_data: 2 of 4 rows" in said
    assert "2 rows left out" in said


# -- every weight, every setting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("job", JOBS)
def test_after_three_steps_every_trainable_tensor_has_moved_and_no_other(job, lora, tiny_folder, tmp_path, monkeypatch):
    """field: S2"""
    before, live = {}, []

    def named():
        return [(f"{i}.{name}", p) for i, part in enumerate(live) for name, p in part.named_parameters()]

    make, step = loop.make_optimiser, loop.optimise

    def remember(modules, *rest):
        live.extend(modules)
        before.update({name: p.detach().clone() for name, p in named()})
        return make(modules, *rest)

    checked = []

    def look(*arguments):
        norm = step(*arguments)
        checked.append(norm)
        if len(checked) == 3:
            for name, p in named():
                moved = not torch.equal(p, before[name])
                assert moved == p.requires_grad, f"{name} has {'moved' if moved else 'not moved'}"
        return norm

    monkeypatch.setattr(loop, "make_optimiser", remember)
    monkeypatch.setattr(loop, "optimise", look)
    extra = {"reward": "train.test_loop:count_a"} if job == "ppo" else {}
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    folder = start(job, config_of(job, tiny_folder, tmp_path, lora_rank=lora, max_steps=3, weight_decay=0.01, **extra))
    assert len(checked) == 3
    assert min(checked) > 0
    trained = sum(p.requires_grad for _, p in named()) if not lora else None
    assert trained is None or trained == len(before)
    manifest = json.loads((folder / "manifest.json").read_text())
    share = manifest["trained_parameters"] / manifest["parameters"]
    assert share == 1 if not lora else 0 < share < 0.5


def count_a(conversations):
    """Any difference will do: a random model says "a" too seldom for `many_a` to tell its responses apart."""
    return [sum(map(ord, c[-1].content)) % 7 for c in conversations]


@pytest.mark.parametrize(("job", "module"), [("sft", sft), ("reward", reward), ("dpo", preference)])
def test_a_first_step_without_gradient_is_an_error(job, module, tiny_folder, tmp_path, monkeypatch):  # field: S2
    plain = module.accumulate

    def detached(model, *rest):
        with torch.no_grad():
            monkeypatch.setattr(torch.autograd, "backward", lambda *_: None)
            return plain(model, *rest)

    monkeypatch.setattr(module, "accumulate", detached)
    with pytest.raises(
        ValueError, match=r"gradient of the first step is exactly 0: nothing of .*tiny would be trained"
    ):
        start(job, config_of(job, tiny_folder, tmp_path))


@pytest.mark.parametrize("job", ["reward", "dpo"])
def test_a_first_step_of_ties_alone_is_no_error(job, tiny_folder, tmp_path):
    rows = [{"prompt": "q", "responses": ["a", "b"], "ranks": [1, 1]} for _ in range(11)]
    data = write(tmp_path / "ties.jsonl", [*rows, {"prompt": "q", "responses": ["a", "z"], "ranks": [1, 2]}])
    folder = start(job, config_of(job, tiny_folder, tmp_path, data=[data], batch_size=1))
    rows = metrics(folder)
    assert rows[0]["grad_norm"] == 0
    assert "accuracy_strict" not in rows[0]
    assert sum(row["grad_norm"] > 0 for row in rows) == 1
    ties = write(tmp_path / "only.jsonl", [{"prompt": "q", "responses": ["a", "b"], "ranks": [1, 1]}])
    with pytest.raises(ValueError, match="no pair to learn from"):
        start(job, config_of(job, tiny_folder, tmp_path, data=[ties], out=tmp_path / "none"))


@pytest.mark.parametrize(("job", "name"), [(entry.job, entry.name) for entry in METHODS])
def test_every_setting_of_a_method_is_read_by_it(job, name, tiny_folder, tmp_path):  # field: S1
    kind, module, *_ = JOBS[job]
    seen: set[str] = set()

    class Spy(kind):
        def __getattribute__(self, name):
            if name in kind.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    held = {
        "eval_data": [config_of(job, tiny_folder, tmp_path).data[0]],
        "max_steps": 2,
        "gradient_checkpointing": True,
    }
    if kind.choice is not None:
        held |= {kind.choice: name}
    if job == "ppo" and name != "trpo":
        held |= {"ptx_data": [demonstrations(tmp_path / "text.jsonl", 4)], "ptx_coefficient": 1.0, "ptx_batch_size": 2}
    config = Spy(**config_of(job, tiny_folder, tmp_path, **held).model_dump())
    seen.clear()
    assert config.model_dump()
    assert not seen  # writing the configuration down is not reading a setting
    module.run(config, Quiet())
    foreign = {setting for entry in METHODS if entry.job == job for setting in entry.reads} - method(
        job, name
    ).reads.keys()
    unread = kind.model_fields.keys() - seen - foreign
    assert unread <= ({"ptx_coefficient", "ptx_batch_size", "gradient_checkpointing"} if name == "trpo" else set())


def foreign_assignments(source: str) -> list[str]:
    """Lines that set an attribute of something imported from elsewhere."""
    tree = ast.parse(source)
    foreign: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] != "accord"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "accord":
            foreign |= {alias.asname or alias.name for alias in node.names}

    def root(node: ast.expr) -> str | None:
        while isinstance(node, ast.Attribute):
            node = node.value
        return node.id if isinstance(node, ast.Name) else None

    found = []
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
            patched = [t for t in targets if isinstance(t, ast.Attribute) and root(t) in foreign]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            patched = [node] if root(node.args[0]) in foreign else []
        else:
            continue
        found += [f"line {node.lineno}: {ast.unparse(node)}" for _ in patched]
    return sorted(found)


def test_no_library_is_patched():  # field: I2
    assert foreign_assignments("import torch.nn as nn\nnn.Linear.forward = print\nx = 3\nx.y = 4") == [
        "line 2: nn.Linear.forward = print"
    ]
    assert foreign_assignments("from transformers import A as B\nsetattr(B, 'c', 1)\ndel B.d") == [
        "line 2: setattr(B, 'c', 1)", "line 3: del B.d",
    ]  # fmt: skip
    assert foreign_assignments("from accord import trees\ntrees.x = 1\nimport os\nos.environ['A'] = 'b'") == []
    files = sorted(Path(accord.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    for file in files:
        assert foreign_assignments(file.read_text(encoding="utf8")) == [], file


def test_ppo_takes_no_more_steps_than_asked(tiny_folder, tmp_path, monkeypatch):  # field: S1
    """Four updates to a rollout, at most six steps: a whole rollout and half of one."""
    taken = []
    step = loop.optimise
    monkeypatch.setattr(loop, "optimise", lambda *a: taken.append(1) or step(*a))
    config = config_of("ppo", tiny_folder, tmp_path, count=24, max_steps=6, eval_every=4, save_every=1)
    config = config.model_copy(update={"eval_data": config.data})
    rows = metrics(start("ppo", config))
    assert len(taken) == 6
    assert [row["step"] for row in rows] == [4, 6]
    assert [row["updates"] for row in rows] == [4, 2]
    assert all("eval/reward/mean" in row for row in rows)  # the last step is evaluated, whatever its number


def test_adapters_are_put_on_by_seed():
    first, again, other = (add_lora(tiny_llama(), 4, seed, base="") for seed in (0, 0, 1))
    weights = [next(p for n, p in m.named_parameters() if "lora_A" in n) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("fp32", "bf16", "chosen"), [(2.0, 1.0, "bf16"), (1.0, 2.0, "fp32"), (1.1, 1.0, "fp32")])
def test_auto_takes_the_arithmetic_that_is_clearly_faster(fp32, bf16, chosen, monkeypatch):
    """Products in turn by a clock that says so; a first one that waits for the machine decides nothing."""
    lengths = itertools.chain([9.0, 9.0], itertools.cycle([fp32, bf16]))
    ends = itertools.chain.from_iterable((0.0, length) for length in lengths)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(ends))
    assert Precision("auto", torch.device("cpu")).name == chosen
