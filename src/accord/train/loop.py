"""What the four training loops share, as functions: setting a model up, one optimiser step, precision, state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from accord.data.batches import step_batches
from accord.models.adapters import own_adapters
from accord.models.head import add_rows_alone
from accord.models.load import resolve
from accord.models.quiet import quiet
from accord.models.score import base_of, prepare
from accord.train.configs import TrainConfig
from accord.train.optimiser import AdamW
from accord.train.progress import Display
from accord.train.run import Run

__all__ = [
    "Diverged",
    "Precision",
    "Watch",
    "add_lora",
    "device_of",
    "learning_rate",
    "make_optimiser",
    "optimise",
    "seed_step",
    "set_up",
    "steady",
    "total",
    "trainable",
]

Watch = Callable[[Any, Any, Any], dict[str, float]]
"""(live model, its Template, Precision) -> figures to log, as `eval__name`."""
FLOOR = 0.1  # share of the peak learning rate that cosine and linear schedules end at


class Diverged(ValueError):
    """Loss or gradient is not finite: the run stops, its last checkpoint is good."""


class Precision:
    """Arithmetic of forward passes: fp32, or bf16 by autocast over float32 weights.

    Args:
        wanted: "auto" measures both on the device and takes bf16 where it is at least 1.2 times as fast.
        device: of the model.
    """

    def __init__(self, wanted: str, device: torch.device) -> None:
        self.device = device
        self.name = _fast_precision(device) if wanted == "auto" else wanted

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around every forward pass. Entered once per optimiser step: what autocast casts is cast once in it."""
        if self.name == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
        else:
            yield

    def freeze(self, model: nn.Module) -> nn.Module:
        """Make a model constant, and keep the matrices that autocast would cast each time in bf16 for good.

        The arithmetic stays that of autocast over float32 weights, so a frozen copy scores exactly like its original.
        """
        model.requires_grad_(False).eval()
        if self.name == "bf16":
            keep = getattr(base_of(model), "get_output_embeddings", lambda: None)()
            for module in model.modules():
                if isinstance(module, nn.Linear) and module is not keep and module.out_features > 1:
                    module.to(torch.bfloat16)
            for weight in model.parameters():  # one tensor that stays as loaded would keep the whole file mapped
                if weight.dtype != torch.bfloat16 and weight.device.type == "cpu":
                    weight.data = weight.data.clone()
        return model


def _fast_precision(device: torch.device) -> str:
    """Time a matrix product of each kind: what a chip says of itself does not tell how fast its library is."""
    sizes = (512, 1024, 1024) if device.type == "cpu" else (4096, 4096, 4096)
    products = {
        dtype: (
            torch.ones(sizes[0], sizes[1], dtype=dtype, device=device),
            torch.ones(sizes[1], sizes[2], dtype=dtype, device=device),
        )
        for dtype in (torch.float32, torch.bfloat16)
    }
    seconds = dict.fromkeys(products, math.inf)
    for _ in range(15):  # in turn: on a busy machine five times one and then five times the other compared its moments
        for dtype, (a, b) in products.items():
            start = time.perf_counter()
            (a @ b).sum().item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return "bf16" if seconds[torch.float32] > 1.2 * seconds[torch.bfloat16] else "fp32"


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def seed_step(seed: int, step: int) -> None:
    """Make every random choice of a step (dropout) a function of seed and step, so that resuming needs no state."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


# -- setting up --------------------------------------------------------------------------------------------------------


def add_lora(model: Any, rank: int, seed: int, *, base: str, keep: Sequence[str] = ()) -> Any:
    """Put LoRA adapters (Hu et al. 2021) of a rank on every linear layer of the trunk; alpha = 2 x rank, no dropout.

    `base` is the folder the weights stand in, written into the finished adapter; empty if no folder holds them.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.manual_seed(seed)
    kind = "SEQ_CLS" if keep else "CAUSAL_LM"
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=kind, modules_to_save=list(keep) or None
    )
    with quiet():
        model = get_peft_model(model, config)
    model.peft_config["default"].base_model_name_or_path = base
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):  # autocast casts inputs, once; PEFT would make float32 copies before it
            module.cast_input_dtype_enabled = False
    own_adapters(model)
    return model


def set_up(model: Any, config: TrainConfig, run: Run, display: Display, *, keep: Sequence[str] = ()) -> Any:
    """Adapters, tree attention, precision, checkpointing: a model ready to be trained, and said so in the manifest.

    Args:
        model: a freshly loaded transformers model.
        config: the job's.
        run: facts go to its manifest.
        display: told what was chosen.
        keep: names of modules trained whole beside adapters (the score head of a reward model).
    Returns: the model (PEFT-wrapped with LoRA) and its `Precision`.
    """
    reason = prepare(model)
    if reason:
        display.note(f"one row per response instead of prompt trees: {reason}")
    precision = Precision(run.known("precision") or config.precision, device_of(model))
    if config.gradient_checkpointing:
        with quiet():  # transformers renames the method; the old name still works
            model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.lora_rank:
        precision.freeze(model)
        source = resolve(config.model)
        # Weights with an earlier adapter merged into them stand in no folder: such a run saves the whole model.
        base_name = source.name if source.kind == "hub" else str(source.path)
        model = add_lora(model, config.lora_rank, config.seed, base="" if source.base else base_name, keep=keep)
    else:
        model.requires_grad_(True)
    count = sum(p.numel() for p in trainable(model))
    if not count:
        raise ValueError(f"{config.model}: no parameter of the model is trainable")
    whole = sum(p.numel() for p in model.parameters())
    display.note(
        f"{precision.name} on {precision.device.type}, {count:,} of {whole:,} parameters trained ({count / whole:.1%})"
    )
    run.manifest |= {
        "precision": precision.name,
        "device": str(precision.device),
        "trained_parameters": count,
        "parameters": whole,
        "prompt_trees": reason is None,
    }
    return model, precision


# -- one optimiser step ------------------------------------------------------------------------------------------------


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that ask for a gradient, in the model's order."""
    return [p for p in model.parameters() if p.requires_grad]


def make_optimiser(modules: Sequence[nn.Module], config: TrainConfig, scales: Sequence[float] = ()) -> Any:
    """AdamW (0.9, 0.95), weight decay on matrices only; `scales` multiply the learning rate of each module."""
    groups = [
        {"params": chosen, "weight_decay": decay, "scale": scale}
        for module, scale in zip(modules, scales or [1.0] * len(modules), strict=True)
        for chosen, decay in (
            ([p for p in trainable(module) if p.dim() >= 2], config.weight_decay),
            ([p for p in trainable(module) if p.dim() < 2], 0.0),
        )
        if chosen
    ]
    for module in modules:
        add_rows_alone(module)
    return AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of step 0..total-1: a linear rise over `warmup * total` steps, then the schedule."""
    rise = max(1, round(config.warmup * total)) if config.warmup else 0
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - rise) / max(1, total - rise)
    fall = share if config.schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
    return config.learning_rate * (1 - (1 - FLOOR) * fall)


@record_function("accord.optimiser")
def optimise(optimiser: AdamW, rate: float, max_norm: float, loss: Tensor | float, where: Callable[[], str]) -> float:
    """Scale the gradients, take the step, clear them. Returns the gradient's L2 norm before scaling.

    Raises: Diverged: loss or gradient is not finite; `where()` says at which rows. The weights are untouched.
    """
    norm = optimiser.norm()
    if not (math.isfinite(float(loss)) and math.isfinite(norm)):
        optimiser.zero_grad(set_to_none=True)
        raise Diverged(f"loss {float(loss):.4g}, gradient norm {norm:.4g} at {where()}")
    optimiser.clip(norm, max_norm)
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    optimiser.step()
    torch.clear_autocast_cache()  # its copies of the weights are of what they were
    optimiser.zero_grad(set_to_none=True)
    return norm


def total(parts: Sequence[Tensor]) -> float:
    """Sum of the losses of a step's packs, read when all of them are under way: a GPU is not waited for in between."""
    return sum(part.item() for part in parts)


def steady(model: nn.Module) -> nn.Module:
    """Ready for gradients with dropout off: log-probabilities kept from before and those of now are of one function.

    transformers recomputes activations (gradient checkpointing) only where a module is in training mode: those stay.
    """
    for module in model.modules():
        module.training = bool(getattr(module, "gradient_checkpointing", False))
    return model


def states(**parts: Any) -> dict[str, Any]:
    """State of modules (what is trained of them) and optimisers, by name, for a checkpoint."""
    return {name: _state(part) for name, part in parts.items()}


def load_states(state: dict[str, Any], **parts: Any) -> None:
    """The reverse of `states`, in place."""
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            part.load_state_dict(state[name], strict=False)
        else:
            part.load_state_dict(state[name])


def _state(part: Any) -> Any:
    if not isinstance(part, nn.Module):
        return part.state_dict()
    names = {name for name, p in part.named_parameters() if p.requires_grad}
    return {name: value for name, value in part.state_dict().items() if name in names}


# -- around the loop ---------------------------------------------------------------------------------------------------


def plan(count: int, config: TrainConfig) -> list[list[int]]:
    """Indices of the rows of every optimiser step of the run."""
    return step_batches(count, config.batch_size, config.epochs, config.seed)[: config.max_steps]


def resume(run: Run, **parts: Any) -> int:
    """Load the newest checkpoint into the parts; returns the number of steps behind it, 0 for a new run."""
    state = run.restore()
    if state is None:
        return 0
    load_states(state, **parts)
    return int(state["step"])


def due(step: int, every: int, total: int) -> bool:
    """True after every `every`-th step and after the last one."""
    return (step + 1) % every == 0 or step + 1 == total


def kept(step: int, every: int, total: int) -> bool:
    """True after every `every`-th step but the last, whose model is the finished one; never if `every` is 0."""
    return every > 0 and (step + 1) % every == 0 and step + 1 < total


def epoch(plan: Sequence[Sequence[int]], step: int, rows: int) -> float:
    """Passes over the data after a step."""
    return sum(len(chosen) for chosen in plan[: step + 1]) / rows


def place(run: Run, step: int, rows: Sequence[int]) -> Callable[[], str]:
    """Where a step stands, in words, for an error; `rows` are numbers from 1 in the data as it was read."""

    def words() -> str:
        good = sorted((run.folder / "checkpoints").glob("step-*.pt"))
        last = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
        return (
            f"step {step + 1} (rows {', '.join(map(str, rows))} of the data that was read, from 1); the weights were "
            f"not changed by it, {last}; lower --learning-rate, or look at these rows with `accord data inspect`"
        )

    return words


def check_moved(norm: float, config: TrainConfig) -> None:
    """A first step without gradient trains nothing: an error, not a healthy run."""
    if norm == 0:
        raise ValueError(
            f"the gradient of the first step is exactly 0: nothing of {config.model} would be trained; "
            "are all responses of a prompt equal or tied, or are the weights frozen?"
        )


def steps_of(
    start: int, total: int, config: TrainConfig, run: Run, precision: Precision, display: Display
) -> Iterator[int]:
    """Numbers of the steps that are left; with `profile` the time of some of them is measured."""
    steps = range(start, total)
    if not config.profile:
        return iter(steps)
    from accord.train.profile import window_of  # imports the profiler

    return window_of(steps, config, run, precision, display)


@contextmanager
def showing(display: Display) -> Iterator[None]:
    """End the display however the job ends."""
    try:
        yield
    finally:
        display.end()
