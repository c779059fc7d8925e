"""One timed run of TRL, by the interpreter of its own environment: python peer_trl.py SPEC.json.

Nothing of Accord is imported here. Seconds run from the loaded model to the end of the last optimiser step.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from itertools import pairwise
from typing import Any

import gauge
import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback


def common(folder: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Arguments of every TRL trainer."""
    size, gpu = spec["size"], spec.get("device") == "cuda"
    batch = size.get("batch_size", 8)
    at_once = min(batch, size.get("peer_batch", batch))
    return {
        "output_dir": folder,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": batch // at_once,
        "num_train_epochs": 1,
        "learning_rate": size.get("learning_rate", 1e-6),
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta2": 0.95,
        "optim": "adamw_torch_fused",
        "bf16": True,
        "use_cpu": not gpu,
        "tf32": gpu or None,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "seed": 0,
    }


def in_order(kind: type) -> type:
    """The trainer with its rows in the order given; it times DPO's reference passes."""

    class InOrder(kind):  # type: ignore[misc, valid-type]
        reference_seconds = 0.0

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            start = gauge.now()
            rows = super()._precompute_ref_logps(*args, **kwargs)
            self.reference_seconds = gauge.now() - start
            return rows

    return InOrder


def said(text: str, role: str) -> list[dict[str, str]]:
    """One message."""
    return [{"role": role, "content": text}]


def adapters(spec: dict[str, Any], head: bool = False) -> Any:
    """LoRA as Accord has it: every linear layer of the trunk, alpha twice the rank, no dropout; none without a rank."""
    from peft import LoraConfig

    rank = spec["size"].get("lora_rank")
    kind = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if head else {"task_type": "CAUSAL_LM"}
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", **kind) if rank else None


def trained(spec: dict[str, Any]) -> torch.dtype:
    """Of the weights a model is trained with: what stays frozen under adapters is smaller and faster in bf16."""
    return torch.bfloat16 if "lora_rank" in spec["size"] else torch.float32


def offline(spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """SFT, reward model and DPO."""
    import trl

    rows, job = spec["texts"], spec["job"].removesuffix("-lora")
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    arguments = common(folder, spec) | {"max_length": 1024, "use_liger_kernel": spec.get("liger", False)}
    if job == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(spec["model"], num_labels=1, dtype=torch.float32)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=trained(spec))
    model.to(spec.get("device", "cpu"))  # the other side's clock starts with the model in its place, too
    start, steps = gauge.now(), Steps()
    prompts = [said(row["prompt"], "user") for row in rows]
    replies = [[said(text, "assistant") for text in row["responses"]] for row in rows]
    if job == "sft":
        data = {"prompt": prompts, "completion": [reply[0] for reply in replies]}
        config, kind = trl.SFTConfig(**arguments, completion_only_loss=True), trl.SFTTrainer
    else:
        data = {"prompt": prompts, "chosen": [r[0] for r in replies], "rejected": [r[1] for r in replies]}
        if job == "reward":
            config, kind = trl.RewardConfig(**arguments), trl.RewardTrainer
        else:
            config, kind = trl.DPOConfig(**arguments, beta=0.1, precompute_ref_log_probs=True), trl.DPOTrainer
    trainer = in_order(kind)(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer,
        callbacks=[steps],
        peft_config=adapters(spec),
    )
    trainer.train()
    return {
        "seconds": gauge.now() - start,
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        "step_seconds": steps.seconds(),
        "reference_seconds": trainer.reference_seconds,
    }


class Steps(TrainerCallback):
    """When training began, and when each optimiser step (of PPO, each rollout with its steps) ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(gauge.now())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(gauge.now())

    def seconds(self) -> list[float]:
        """What each took."""
        return [after - before for before, after in pairwise(self.times)]


def online(spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """RLOO and GRPO: two rollouts of one step each, the second timed."""
    import trl

    size = spec["size"]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    reward = AutoModelForSequenceClassification.from_pretrained(spec["reward"], num_labels=1, dtype=torch.float32)
    # TRL's own sampler repeats each prompt K times, so the trainer is used as it is; nothing is shuffled.
    whole = size["rows"] * size["samples"]
    at_once = min(whole, size.get("peer_batch", whole))
    arguments = common(folder, spec) | {
        "shuffle_dataset": False,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": whole // at_once,
        "num_generations": size["samples"],
        "max_completion_length": size["new_tokens"],
        "beta": 0.05,
        "temperature": 1.0,
    }
    name = {"rloo": "RLOO", "grpo": "GRPO"}[spec["job"]]
    steps = Steps()
    trainer = getattr(trl, f"{name}Trainer")(
        model=model,
        reward_funcs=reward,
        args=getattr(trl, f"{name}Config")(**arguments),
        train_dataset=Dataset.from_dict({"prompt": [said(row, "user") for row in spec["prompts"]]}),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    trainer.train()
    return {"seconds": steps.seconds()[-1], "losses": [], "rollout_seconds": steps.seconds()}


def ppo(spec: dict[str, Any], folder: str) -> dict[str, Any]:
    """PPO of trl.experimental: two rollouts, the second timed."""
    from peft import get_peft_model
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    size = spec["size"]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"], padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # The trainer makes an Accelerator of its own that does not read `bf16` from its arguments. What is not trained runs
    # outside its autocast: in bf16 it is faster and smaller, as on the other side.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    frozen = torch.bfloat16
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(spec["model"], dtype=dtype) for dtype in (trained(spec), frozen)
    )
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(spec["reward"], num_labels=1, dtype=dtype)
        for dtype in (frozen, trained(spec))
    )
    if adapted := adapters(spec, head=True):
        reference, value = None, get_peft_model(value, adapted)  # the reference is the policy without its adapters
    ids = [
        {"input_ids": tokenizer.apply_chat_template(said(row, "user"), add_generation_prompt=True, return_dict=False)}
        for row in spec["prompts"]
    ]
    arguments = common(folder, spec) | {
        # One optimiser step per mini-batch, as on the other side.
        "per_device_train_batch_size": size["rows"],
        "gradient_accumulation_steps": 1,
        "num_mini_batches": size["minibatches"],
        "num_ppo_epochs": size["epochs"],
        "total_episodes": 2 * size["rows"],
        "response_length": size["new_tokens"],
        "local_rollout_forward_batch_size": min(size["rows"], size.get("peer_batch", size["rows"])),
        "temperature": 1.0,
        "num_sample_generations": 0,
        "kl_coef": 0.05,
    }
    steps = Steps()
    trainer = PPOTrainer(
        args=PPOConfig(**arguments),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list(ids),
        eval_dataset=Dataset.from_list(ids[:2]),
        callbacks=[steps],
        peft_config=adapters(spec),
    )
    trainer.train()
    return {"seconds": steps.seconds()[-1], "losses": [], "rollout_seconds": steps.seconds()}


def main() -> None:
    """Run what the specification says."""
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    torch.set_num_threads(spec["threads"])
    run = {"ppo": ppo, "ppo-shared": ppo, "ppo-lora": ppo, "rloo": online, "grpo": online}.get(spec["job"], offline)
    with tempfile.TemporaryDirectory() as folder:
        result = run(spec, folder)
    result |= gauge.memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
