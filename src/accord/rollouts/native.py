"""The native sampler: any transformers causal language model, its own attention, a key-value cache.

A prompt is computed once and its cache repeated for its K samples. Rows that finish leave the batch. Of each step only
the last position's logits exist, and only the drawn token's log-probability is kept, so memory does not grow with
response length x vocabulary. P prompts of a batch, R rows (a prompt's samples are rows), T columns, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from accord.rollouts import Rollout, Sampling
from accord.rollouts.cache import RowCache
from accord.rollouts.decoder import Decoder, decoder_of
from accord.rollouts.draw import draw, row_uniforms

__all__ = ["NativeSampler"]


@dataclass(kw_only=True, eq=False)
class _Row:
    """A response being sampled; `prompt` and `sample` are its place in the answer, `length` counts prompt tokens."""

    prompt: int
    sample: int
    length: int
    uniforms: list[float]
    tokens: list[int] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    sampling_logprob: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

    def rollout(self) -> Rollout:
        assert self.finish is not None
        return Rollout(
            tokens=tuple(self.tokens),
            logprob=tuple(self.logprob),
            sampling_logprob=tuple(self.sampling_logprob),
            finish=self.finish,
        )


@dataclass(kw_only=True)
class _Batch:
    """Rows being decoded side by side: the logits of their next token and the cache behind them."""

    rows: list[_Row]
    logit_RV: Tensor
    mask_RT: Tensor
    cache: RowCache

    def repeated(self, index: Sequence[int], rows: list[_Row]) -> _Batch:
        """Return `rows` behind these rows of `self`, each of which may be named more than once."""
        index_R = torch.tensor(index, device=self.mask_RT.device)
        return _Batch(
            rows=rows,
            logit_RV=self.logit_RV[index_R],
            mask_RT=self.mask_RT[index_R],
            cache=self.cache.repeated(index_R),
        )

    def retire(self) -> None:
        """Drop finished rows: the last unfinished ones move into their places, so little is copied.

        Kernels are made for a number of rows, and making them takes as long as computing some idle rows: of 17 to 20
        rows that go on, 20 are kept.
        """
        alive = sum(row.finish is None for row in self.rows)
        step = 2 ** max(0, alive.bit_length() - 3)
        count = -(-alive // step) * step
        if count >= len(self.rows):
            return
        holes = [i for i, row in enumerate(self.rows[:count]) if row.finish is not None]
        movers = [i for i, row in enumerate(self.rows) if i >= count and row.finish is None]
        holes = holes[: len(movers)]  # what finished and is not replaced stays, idle
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        device = self.mask_RT.device
        holes_H, movers_H = torch.tensor(holes, device=device).long(), torch.tensor(movers, device=device).long()
        self.rows = self.rows[:count]
        self.mask_RT[holes_H] = self.mask_RT[movers_H]
        self.mask_RT = self.mask_RT[:count]
        self.cache.retire(holes_H, movers_H, count)


class NativeSampler:
    """Samples from a causal language model in this process."""

    def __init__(
        self,
        model: nn.Module,
        *,
        end_ids: Sequence[int],
        tokenizer: Any = None,
        max_rows: int = 64,
        autocast: Callable[[], AbstractContextManager[Any]] | None = None,
        progress: Callable[[int, int], None] | None = None,
        plain: bool = False,
    ) -> None:
        """Keep the model; its weights are read anew at each call.

        Args:
            model: a transformers causal language model, PEFT-wrapped or not.
            end_ids: tokens that end a response; none means every response has `max_new_tokens`.
            tokenizer: needed for stop strings only.
            max_rows: rows decoded at once at most. More is faster until memory or the matrix units are full.
            autocast: entered once around all forward passes of a call, for example
                `lambda: torch.autocast("cpu", torch.bfloat16)`. Each weight is cast once a call, and the numbers are
                those a training pass under the same autocast computes. (A bfloat16 copy of the model would be no
                faster, would differ from the trainer in its norms and residual sums, and could be stale.)
            progress: called with (finished rows, all rows) whenever rows finish.
            plain: decode by the model's own forward pass, also where `accord.rollouts.decoder` knows the family; tests
                hold both equal.
        """
        if max_rows < 1:
            raise ValueError(f"sampler: `max_rows` is {max_rows}; write 1 or more")
        self.model: Any = model
        self.end_ids = frozenset(end_ids)
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.autocast = autocast or nullcontext
        self.progress = progress or (lambda done, total: None)
        self._accepted = _forward_parameters(model)
        self._decoder: Decoder | None = None  # while a call lasts: weights may change between calls
        self._decodes: bool | None = False if plain else None  # whether it can decode the model; None: not yet tried

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Rollout]]:
        """Return `sampling.samples` rollouts for each prompt, in the order of the prompts.

        Args:
            prompts: token ids.
            sampling: how.
            streams: which random numbers each prompt gets, any integers >= 0; none: its place among the prompts.
        """
        self._check(prompts, sampling)
        rows_BK = [
            [_new_row(stream, k, len(prompt), sampling) for k in range(sampling.samples)]
            for stream, prompt in zip(streams or range(len(prompts)), prompts, strict=True)
        ]
        # Longest first: prompts of one batch are padded little, and memory that is too small shows at once.
        order = sorted(range(len(prompts)), key=lambda b: -len(prompts[b]))
        at_once = max(1, self.max_rows // sampling.samples)
        with self._sampling_mode(), self._decoding(min(self.max_rows, len(prompts) * sampling.samples)):
            for start in range(0, len(order), at_once):
                chosen = order[start : start + at_once]
                self._sample_batch([prompts[b] for b in chosen], [rows_BK[b] for b in chosen], sampling)
                done = min(start + at_once, len(order)) * sampling.samples
                self.progress(done, len(order) * sampling.samples)
        return [[row.rollout() for row in rows_K] for rows_K in rows_BK]

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Yield the tokens of one response as they are sampled, the end token included; `samples` is not read.

        The tokens are those that `sample([prompt], sampling)` gives as its first rollout; in bfloat16 only as far as
        rounding lets them be, because `sample` may decode by other kernels.
        """
        self._check([prompt], sampling)
        with self._sampling_mode():
            batch = self._prefill([prompt], [_new_row(0, 0, len(prompt), sampling)])
        # The mode is left before each yield: whoever reads may train or sample in between.
        while True:
            with self._sampling_mode():
                self._draw(batch, sampling)
            yield batch.rows[0].tokens[-1]
            if batch.rows[0].finish is not None:
                return
            with self._sampling_mode():
                self._forward(batch)

    def _sample_batch(self, prompts: list[Sequence[int]], rows_PK: list[list[_Row]], sampling: Sampling) -> None:
        prompt_batch = self._prefill(prompts, [rows_K[0] for rows_K in rows_PK])
        rows = [(p, row) for p, rows_K in enumerate(rows_PK) for row in rows_K]
        for start in range(0, len(rows), self.max_rows):
            part = rows[start : start + self.max_rows]
            self._decode(prompt_batch.repeated([p for p, _ in part], [row for _, row in part]), sampling)

    def _decode(self, batch: _Batch, sampling: Sampling) -> None:
        while True:
            self._draw(batch, sampling)
            if all(row.finish is not None for row in batch.rows):
                return
            batch.retire()
            self._forward(batch)

    def _prefill(self, prompts: Sequence[Sequence[int]], rows: list[_Row]) -> _Batch:
        """Compute the prompts side by side, padded on the left so that all end in the same column."""
        width = max(map(len, prompts))
        device = next(self.model.parameters()).device
        token_PT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask_PT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        position_PT = (mask_PT.cumsum(-1) - 1).clamp(min=0)
        cache = RowCache()
        return _Batch(
            rows=rows, logit_RV=self._logits(token_PT, position_PT, mask_PT, cache), mask_RT=mask_PT, cache=cache
        )

    def _forward(self, batch: _Batch) -> None:
        """Compute the logits behind the last drawn tokens."""
        device = batch.mask_RT.device
        token_R = torch.tensor([row.tokens[-1] for row in batch.rows], device=device)
        position_R = torch.tensor([row.length + len(row.tokens) - 1 for row in batch.rows], device=device)
        batch.mask_RT = torch.nn.functional.pad(batch.mask_RT, (0, 1), value=1)
        if self._decoder is not None:
            batch.logit_RV = self._decoder.step(token_R, position_R, batch.mask_RT, batch.cache)
        else:
            batch.logit_RV = self._logits(token_R[:, None], position_R[:, None], batch.mask_RT, batch.cache)

    def _logits(self, token_RT: Tensor, position_RT: Tensor, mask_RT: Tensor, cache: RowCache) -> Tensor:
        inputs = {
            "input_ids": token_RT,
            "attention_mask": mask_RT,
            "position_ids": position_RT,
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        return self.model(**{name: value for name, value in inputs.items() if name in self._accepted}).logits[:, -1]

    def _draw(self, batch: _Batch, sampling: Sampling) -> None:
        """Append a token to each row that goes on, all at the same step, and note whether that finishes it."""
        step = max(len(row.tokens) for row in batch.rows)
        uniform_R = torch.tensor([row.uniforms[step] for row in batch.rows], dtype=torch.float64)
        forbidden = sorted(self.end_ids) if step < sampling.min_new_tokens else ()
        present_R = [row.tokens for row in batch.rows]
        drawn = draw(batch.logit_RV, uniform_R.to(batch.logit_RV.device), sampling, forbidden, present_R)
        columns = zip(*(tensor.tolist() for tensor in drawn), strict=True)
        for row, (token, logprob, sampling_logprob) in zip(batch.rows, columns, strict=True):
            if row.finish is not None:
                continue
            row.tokens.append(token)
            row.logprob.append(logprob)
            row.sampling_logprob.append(sampling_logprob)
            if token in self.end_ids or self._stopped(row, sampling.stop):
                row.finish = "stop"
            elif len(row.tokens) == sampling.max_new_tokens:
                row.finish = "length"

    def _stopped(self, row: _Row, stop: tuple[str, ...]) -> bool:
        if not stop:
            return False
        # Every token holds a byte at least, so a string that the last token completed lies within this tail.
        tail = max(len(text.encode()) for text in stop) + 4
        text = self.tokenizer.decode(row.tokens[-tail:], clean_up_tokenization_spaces=False)
        return any(string in text for string in stop)

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        if sampling.stop and self.tokenizer is None:
            raise ValueError(f"sampling: `stop` is {sampling.stop}, and the sampler has no tokenizer; give it one")
        config = self.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        for b, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"sampling: prompt {b} is empty; give it one token at least, such as the start token")
            unknown = [token for token in prompt if not 0 <= token < config.vocab_size]
            if unknown:
                raise ValueError(
                    f"sampling: prompt {b} has token {unknown[0]}, and the model knows 0 to {config.vocab_size - 1}; "
                    "tokenise it with the model's own tokenizer"
                )
            if limit is not None and len(prompt) + sampling.max_new_tokens > limit:
                raise ValueError(
                    f"sampling: prompt {b} has {len(prompt)} tokens and `max_new_tokens` is {sampling.max_new_tokens}, "
                    f"more than the model's {limit} positions; shorten the prompt or lower `max_new_tokens`"
                )

    @contextmanager
    def _sampling_mode(self) -> Iterator[None]:
        """Evaluation mode without gradients, under autocast; each module and weight gets its own flag back."""
        training = [module for module in self.model.modules() if module.training]
        # Autocast keeps its cast copy of a weight only if the weight asks for a gradient, and casts a frozen one (LoRA,
        # a reference) anew at each step. No gradient is computed here, so asking for one costs nothing.
        frozen = [weight for weight in self.model.parameters() if _is_frozen(weight)]
        with ExitStack() as stack:
            stack.callback(_set_training, training)
            stack.callback(_ask_gradient, frozen, False)
            # In an outer autocast the cast weights would outlive this call, and be stale after an optimiser step.
            stack.callback(torch.clear_autocast_cache)
            self.model.eval()
            _ask_gradient(frozen, True)
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.autocast())
            yield

    @contextmanager
    def _decoding(self, rows: int) -> Iterator[None]:
        """Lay the weights out for decoding while a call lasts, where the model's family is known."""
        if self._decodes is not False:
            weight = next(self.model.parameters())
            device, dtype = weight.device.type, weight.dtype
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
            # What adapters do can change between calls, so with them it is tried each time.
            tried = self._decodes is not None and not hasattr(self.model, "peft_config")
            make = Decoder if tried else decoder_of
            self._decoder = make(self.model, dtype, rows)
            self._decodes = self._decoder is not None
        try:
            yield
        finally:
            self._decoder = None


def _new_row(prompt: int, sample: int, length: int, sampling: Sampling) -> _Row:
    uniforms = row_uniforms(sampling.seed, prompt, sample, sampling.max_new_tokens)
    return _Row(prompt=prompt, sample=sample, length=length, uniforms=uniforms)


def _set_training(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True


def _is_frozen(weight: Tensor) -> bool:
    return weight.is_floating_point() and not weight.requires_grad


def _ask_gradient(weights: list[Tensor], ask: bool) -> None:
    for weight in weights:
        weight.requires_grad_(ask)


def _forward_parameters(model: Any) -> frozenset[str]:
    """Return the names that the forward pass of the model inside any PEFT wrapper takes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(base.forward).parameters)
