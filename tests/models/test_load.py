"""Models by name: every kind of name, silence, one-line errors, adapters, reward models."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM
from transformers.utils import logging

from accord.models import cache
from accord.models.load import load_policy, load_reward_model, load_tokenizer, new_reward_model, resolve
from accord.models.quiet import quiet
from accord.records import Message
from accord.text import Template
from fakes import FAMILIES, tiny_llama, tiny_tokenizer

IDS = torch.tensor([[10, 20, 30, 40, 2]])


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "tiny")


def save_adapter(base, folder, *, task="CAUSAL_LM", seed=1):
    """A LoRA with weights that are not zero, saved as PEFT saves it."""
    make = load_policy if task == "CAUSAL_LM" else new_reward_model
    model, _ = make(str(base), device="cpu")
    keep = ["score"] if task == "SEQ_CLS" else None
    adapted = get_peft_model(
        model, LoraConfig(task_type=task, r=2, target_modules=["q_proj", "v_proj"], modules_to_save=keep)
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder)
    return adapted.eval()


# -- policies ----------------------------------------------------------------------------------------------------------


def test_a_folder_loads_silently_and_whole(tiny_folder, capfd, caplog):
    model, tokenizer = load_policy(str(tiny_folder), device="cpu")
    theirs = tiny_llama(hidden=64)
    assert_close(model(IDS).logits, theirs(IDS).logits)
    assert not model.training
    assert model.config.use_cache == theirs.config.use_cache
    assert model.dtype == torch.float32
    assert tokenizer.eos_token_id == 2
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_silence_ends_with_the_block_whatever_happens_in_it():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()

    def fail_inside():
        with quiet():
            assert logging.get_verbosity() == logging.CRITICAL
            assert not logging.is_progress_bar_enabled()
            warnings.warn("advice", stacklevel=1)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_the_dtype_is_the_one_asked_for(tiny_folder):
    assert load_policy(str(tiny_folder), dtype=torch.bfloat16, device="cpu")[0].dtype == torch.bfloat16


def test_a_run_means_its_model(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "manifest.json").write_text("{}")
    source = resolve(str(tmp_path / "run"))
    assert (source.kind, source.path) == ("run", tmp_path / "run" / "model")
    assert source.fingerprint == resolve(str(tiny_folder)).fingerprint


def test_a_relative_folder_becomes_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert resolve("tiny").path == folder


def spoil_config(folder):
    (folder / "config.json").write_text("{")


def spoil_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def lose_weights(folder):
    (folder / "model.safetensors").unlink()


def lose_config(folder):
    (folder / "config.json").unlink()


def lose_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def lose_a_layer(folder):
    change_config(folder, num_hidden_layers=3)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def become_a_reward_model(folder):
    model, _ = new_reward_model(str(folder), device="cpu")
    model.save_pretrained(folder)


def become_bert(folder):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(folder)


def become_an_unfinished_run(folder):
    shutil.rmtree(folder)
    (folder / "checkpoints").mkdir(parents=True)


def become_an_adapter_without_base(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "no/where"}')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "tiny: no such file or folder"),
        (spoil_config, "config.json: not valid JSON"),
        (spoil_weights, "cannot be loaded from .*SafetensorError"),
        (lose_weights, "no weights in it"),
        (lose_config, "no config.json in it, so it is no model folder"),
        (lose_tokenizer, "no tokenizer can be loaded"),
        (lose_a_layer, "9 of its tensors are not in .*layers.2.*CausalLM model, saved whole"),
        (become_a_reward_model, "LlamaForSequenceClassification, which is not a causal language model"),
        (become_bert, "BertForMaskedLM, which is not a causal"),
        (become_an_unfinished_run, "this run has no model/ yet; give the command that started it again"),
        (become_an_adapter_without_base, "adapter whose base model cannot be found: no/where: .*go online once"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, spoil, said, capfd):
    spoil(folder)
    capfd.readouterr()
    with pytest.raises(ValueError, match=said) as caught:
        load_policy(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smolm2-135m", 'did you mean "smollm2-135m"'),
        ("nothing", "no such folder; a model is a folder, a .gguf file, org/name on the hub"),
        ("some/model.gguf", "no such file or folder"),
        ("org/name", "the hub cannot be reached .* go online once"),
        (__file__, "a file, but not a .gguf one"),
    ],
)
def test_a_name_that_means_nothing(name, said):
    with pytest.raises(ValueError, match=said):
        resolve(name)


def test_a_repository_of_the_hub_comes_from_its_cache(tiny_folder, tmp_path, monkeypatch):
    hub = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_folder, hub / "snapshots" / ("a" * 40))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    source = resolve("org/tiny")
    assert source.kind == "hub"
    assert source.path == hub / "snapshots" / ("a" * 40)
    assert source.fingerprint == resolve(str(tiny_folder)).fingerprint


# -- fingerprints ------------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_weights(folder):
    before = resolve(str(folder)).fingerprint
    assert resolve(str(folder)).fingerprint == before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # the same size
    weights.write_bytes(content)
    assert resolve(str(folder)).fingerprint != before


def test_the_fingerprint_follows_the_configuration(folder):
    before = resolve(str(folder)).fingerprint
    change_config(folder, rms_norm_eps=1e-3)
    assert resolve(str(folder)).fingerprint != before


def test_a_file_that_has_settled_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = cache.file_sha256(file)
    os.utime(file, (1000, 1000))
    cache.file_sha256(file)
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert cache.file_sha256(file) == first
    with pytest.raises(TypeError):
        cache.file_sha256(file, trust_remembered=False)


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, tiny_folder, monkeypatch):
    before = resolve(str(tiny_folder)).fingerprint
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "occupied"))
    assert resolve(str(tiny_folder)).fingerprint == before


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_an_adapter_is_merged_into_its_base(folder, tmp_path):
    theirs = save_adapter(folder, tmp_path / "adapter")
    model, tokenizer = load_policy(str(tmp_path / "adapter"), device="cpu")
    assert_close(model(IDS).logits, theirs(IDS).logits)
    assert not torch.allclose(model(IDS).logits, load_policy(str(folder), device="cpu")[0](IDS).logits, atol=1e-3)
    assert not hasattr(model, "peft_config")
    assert tokenizer.eos_token_id == 2
    source = resolve(str(tmp_path / "adapter"))
    assert source.base is not None
    assert source.base.path == folder
    assert source.fingerprint != source.base.fingerprint


def test_an_adapter_kept_apart_can_be_trained_on(folder, tmp_path):
    theirs = save_adapter(folder, tmp_path / "adapter")
    model, _ = load_policy(str(tmp_path / "adapter"), device="cpu", merge=False)
    assert_close(model(IDS).logits, theirs(IDS).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 8
    assert all("lora_" in name for name in trained)


def test_the_fingerprint_of_an_adapter_follows_its_base(folder, tmp_path):
    save_adapter(folder, tmp_path / "adapter")
    before = resolve(str(tmp_path / "adapter")).fingerprint
    change_config(folder, rms_norm_eps=1e-3)
    assert resolve(str(tmp_path / "adapter")).fingerprint != before


def test_an_adapter_finds_a_base_that_is_converted_here_too(folder, tmp_path):
    save_adapter(folder, tmp_path / "adapter")
    here = tmp_path / "cache" / "models" / "tiny-0123456789ab"
    shutil.copytree(folder, here)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"/home/someone/.cache/accord/models/{here.name}"
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert resolve(str(tmp_path / "adapter")).base.path == here


def test_an_adapter_on_itself_is_refused(folder, tmp_path):
    save_adapter(folder, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="an adapter on another adapter"):
        resolve(str(tmp_path / "adapter"))


def test_an_adapter_of_the_other_kind_is_refused(folder, tmp_path):
    save_adapter(folder, tmp_path / "policy")
    save_adapter(folder, tmp_path / "judge", task="SEQ_CLS")
    with pytest.raises(ValueError, match="this adapter is a reward model"):
        load_policy(str(tmp_path / "judge"))
    with pytest.raises(ValueError, match="this adapter is a policy; train a reward model on it"):
        load_reward_model(str(tmp_path / "policy"))


def test_an_adapter_for_another_architecture_is_refused(folder, tmp_path):
    save_adapter(folder, tmp_path / "adapter")
    change_config(folder, intermediate_size=64, hidden_size=32)
    tiny_llama(hidden=32).save_pretrained(folder)
    with pytest.raises(ValueError, match="the adapter cannot be put on") as caught:
        load_policy(str(tmp_path / "adapter"), device="cpu")
    assert "\n" not in str(caught.value)


# -- reward models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_reward_model_keeps_the_trunk(family, tmp_path):
    policy = FAMILIES[family]()
    policy.save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    model, tokenizer = new_reward_model(str(tmp_path / "m"), seed=3, device="cpu")
    hidden_D = policy.base_model(IDS).last_hidden_state[0, -1]
    assert_close(model(IDS).logits[0, 0], hidden_D @ model.score.weight[0])
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id
    model.save_pretrained(tmp_path / "r")
    tokenizer.save_pretrained(tmp_path / "r")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "r")
    assert_close(plain(IDS).logits, model(IDS).logits)
    ours, _ = load_reward_model(str(tmp_path / "r"), device="cpu")
    assert_close(ours(IDS).logits, model(IDS).logits)


def test_the_head_follows_its_seed_alone(tiny_folder):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, again, other = (new_reward_model(str(tiny_folder), seed=seed, device="cpu")[0] for seed in (1, 1, 2))
    assert torch.equal(one.score.weight, again.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.score.weight.std().item() == pytest.approx((1 / 65) ** 0.5, rel=0.3)


def test_the_score_is_read_at_the_end_token_whatever_the_padding(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token  # as SmolLM2 has it
    tokenizer.save_pretrained(folder)
    model, tokenizer = new_reward_model(str(folder), device="cpu")
    ends = Template(tokenizer).end_ids
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.pad_token_id not in ends
    messages = (Message(role="user", content="hi"),)
    short = Template(tokenizer).prompt(messages) + Template(tokenizer).response("yes")
    long = Template(tokenizer).prompt(messages) + Template(tokenizer).response("no, never")
    rows = [*short, *[tokenizer.pad_token_id] * (len(long) - len(short))], list(long)
    batch = torch.tensor(rows)
    score_B = model(batch, attention_mask=(batch != tokenizer.pad_token_id).long()).logits[:, 0]
    hidden_D = model.base_model(torch.tensor([short])).last_hidden_state[0, -1]
    assert_close(score_B[0], hidden_D @ model.score.weight[0])
    assert_close(score_B[1], model(torch.tensor([long])).logits[0, 0])


def test_a_reward_adapter_comes_back_with_its_head(folder, tmp_path):
    theirs = save_adapter(folder, tmp_path / "judge", task="SEQ_CLS")
    model, _ = load_reward_model(str(tmp_path / "judge"), device="cpu")
    assert_close(model(IDS).logits, theirs(IDS).logits)
    assert type(model.score) is torch.nn.Linear
    kept, _ = load_reward_model(str(tmp_path / "judge"), device="cpu", merge=False)
    assert_close(kept(IDS).logits, theirs(IDS).logits)
    assert any(parameter.requires_grad for parameter in kept.parameters())


def test_a_policy_is_no_reward_model(tiny_folder):
    with pytest.raises(ValueError, match="LlamaForCausalLM, which is not a reward model; make one"):
        load_reward_model(str(tiny_folder))


def test_a_classifier_of_two_labels_is_no_reward_model(folder):
    from transformers import LlamaForSequenceClassification

    config = tiny_llama(hidden=64).config
    config.num_labels = 2
    LlamaForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(ValueError, match="a classifier of 2 labels; a reward model has one"):
        load_reward_model(str(folder))


# -- the real ones -----------------------------------------------------------------------------------------------------


@pytest.mark.realmodel
def test_smollm2_answers_and_stops_at_its_end_of_turn(monkeypatch):
    monkeypatch.delenv("ACCORD_CACHE")
    model, tokenizer = load_policy("smollm2-135m", device="cpu")
    prompt = Template(tokenizer).prompt((Message(role="user", content="What is gravity?"),))
    written = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
    assert "Gravity is a fundamental" in tokenizer.decode(written)
    assert Template(tokenizer).end_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert model.generation_config.eos_token_id == 2
    assert load_tokenizer("smollm2-135m")("12345 3.14").input_ids == [33, 34, 35, 36, 37, 216, 35, 30, 33, 36]
