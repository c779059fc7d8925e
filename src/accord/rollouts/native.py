"""The native sampler: any transformers causal language model, its own attention, a key-value cache.

A prompt is computed once and its cache repeated for its K samples. Rows that finish leave the batch, and rows that wait
take their places (continuous batching; Yu et al. 2022, Orca). Of each step only the last position's logits exist, and
only the drawn token's log-probability is kept, so memory does not grow with response length x vocabulary. P prompts
computed together, R rows (a prompt's samples are rows), T columns, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from accord.models.linear import library_products
from accord.rollouts import Rollout, Sampling
from accord.rollouts.batch import Batch, Row, Waiting, new_row
from accord.rollouts.cache import ROOM, ROOM_OF_GRAPHS, RowCache
from accord.rollouts.decoder import Decoder, decoder_of
from accord.rollouts.draw import draw, sent
from accord.rollouts.graphs import Graphs, GraphStep
from accord.rollouts.places import ROWS, rows_with_room

__all__ = ["NativeSampler"]

PROMPT_TOKENS = 2**16  # of prompts computed together, padding included: their states stand beside each other


class NativeSampler:
    """Samples from a causal language model in this process."""

    def __init__(
        self,
        model: nn.Module,
        *,
        end_ids: Sequence[int],
        tokenizer: Any = None,
        max_rows: int | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] | None = None,
        progress: Callable[[int, int], None] | None = None,
        plain: bool = False,
    ) -> None:
        """Keep the model; its weights are read anew at each call.

        Args:
            model: a transformers causal language model, PEFT-wrapped or not.
            end_ids: tokens that end a response; none means every response has `max_new_tokens`.
            tokenizer: needed for stop strings only.
            max_rows: rows decoded at once at most. More is faster until memory or the matrix units are full. None: 64
                on a CPU; on a GPU as many as find room with their caches in a quarter of its free memory, at most 256.
            autocast: entered once around all forward passes of a call, for example
                `lambda: torch.autocast("cpu", torch.bfloat16)`. Each weight is cast once a call, and the numbers are
                those a training pass under the same autocast computes. (A bfloat16 copy of the model would be no
                faster, would differ from the trainer in its norms and residual sums, and could be stale.)
            progress: called with (finished rows, all rows) whenever rows finish.
            plain: decode by the model's own forward pass, also where `accord.rollouts.decoder` knows the family; tests
                hold both equal.
        """
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"sampler: `max_rows` is {max_rows}; write 1 or more")
        self.model: Any = model
        self.end_ids = frozenset(end_ids)
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self._places = max_rows or ROWS  # of the call that runs
        self.autocast = autocast or nullcontext
        self.progress = progress or (lambda done, total: None)
        self._accepted = _forward_parameters(model)
        self._decoder: Decoder | None = None  # while a call lasts: weights may change between calls
        self._decodes: bool | None = False if plain else None  # whether it can decode the model; None: not yet tried
        self._step: Callable[[Tensor, Tensor, Tensor, RowCache], Tensor] | None = None  # the decoder's
        self._graphs: Graphs | None = None  # on a GPU, from the first call that decodes on
        self._room = ROOM

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
            [new_row(stream, k, len(prompt), sampling) for k in range(sampling.samples)]
            for stream, prompt in zip(streams or range(len(prompts)), prompts, strict=True)
        ]
        # Longest first: prompts of one pass are padded little, and memory that is too small shows at once.
        order = deque(sorted(range(len(prompts)), key=lambda b: -len(prompts[b])))
        total = len(prompts) * sampling.samples
        self._places = self.max_rows or rows_with_room(self.model, max(map(len, prompts), default=0), sampling)
        with self._sampling_mode(), self._decoding(sampling):
            batch = waiting = None
            done = 0
            while done < total:
                batch, waiting = self._fill(batch, waiting, order, prompts, rows_BK)
                finished = self._draw(batch, sampling)
                if finished:
                    done += finished
                    self.progress(done, total)
                    batch.retire(seldom=isinstance(self._step, GraphStep))
                if batch.rows and done < total:
                    self._forward(batch)
        return [[row.rollout() for row in rows_K] for rows_K in rows_BK]

    def _fill(
        self,
        batch: Batch | None,
        waiting: Waiting | None,
        order: deque[int],
        prompts: Sequence[Sequence[int]],
        rows_BK: Sequence[Sequence[Row]],
    ) -> tuple[Batch, Waiting | None]:
        """Give free places to rows that wait; a prompt is computed once for its samples, whenever they get theirs.

        Rows that join cost a copy of the cache, a third of a step, and a pass over their prompts, which is the better
        the more there are: so a quarter of the places has to be free.
        """
        while waiting is not None or order:
            alive = 0 if batch is None else sum(row.finish is None for row in batch.rows)
            free = self._places - alive
            if alive and free < max(1, self._places // 4):
                break
            if waiting is None:
                count = min(free // max(1, len(rows_BK[order[0]])), PROMPT_TOKENS // len(prompts[order[0]]))
                count = max(1, count)
                chosen = [order.popleft() for _ in range(min(count, len(order)))]
                computed = self._prefill([prompts[b] for b in chosen], [rows_BK[b][0] for b in chosen])
                waiting = Waiting(prompts=computed, rows=[(p, row) for p, b in enumerate(chosen) for row in rows_BK[b]])
            new = waiting.take(free)
            waiting = waiting if waiting.rows else None
            if batch is None or not alive:
                batch = new
            else:
                batch.join(new)
        assert batch is not None
        return batch, waiting

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Yield the tokens of one response as they are sampled, the end token included; `samples` is not read.

        The tokens are those that `sample([prompt], sampling)` gives as its first rollout; in bfloat16 only as far as
        rounding lets them be, because `sample` may decode by other kernels.
        """
        self._check([prompt], sampling)
        with self._sampling_mode():
            batch = self._prefill([prompt], [new_row(0, 0, len(prompt), sampling)])
        # The mode is left before each yield: whoever reads may train or sample in between.
        while True:
            with self._sampling_mode():
                self._draw(batch, sampling)
            yield batch.rows[0].tokens[-1]
            if batch.rows[0].finish is not None:
                return
            with self._sampling_mode():
                self._forward(batch)

    def _prefill(self, prompts: Sequence[Sequence[int]], rows: list[Row]) -> Batch:
        """Compute the prompts; in the cache they are padded on the left, so that all end in the same column."""
        if self._decoder is not None and self._graphs is None and min(map(len, prompts)) > 1:
            logit_PV, mask_PT, cache = self._decoder.prefill(prompts)
            return Batch(rows=rows, logit_RV=logit_PV, mask_RT=mask_PT, cache=cache)
        width = max(map(len, prompts))
        device = next(self.model.parameters()).device
        token_PT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask_PT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        position_PT = (mask_PT.cumsum(-1) - 1).clamp(min=0)
        cache = RowCache(room=self._room)
        return Batch(
            rows=rows, logit_RV=self._logits(token_PT, position_PT, mask_PT, cache), mask_RT=mask_PT, cache=cache
        )

    def _forward(self, batch: Batch) -> None:
        """Compute the logits behind the last drawn tokens."""
        device = batch.mask_RT.device
        tokens = [row.tokens[-1] for row in batch.rows]
        token_R, position_R = sent([tokens, [row.length + len(row.tokens) - 1 for row in batch.rows]], device)
        batch.mask_RT = torch.nn.functional.pad(batch.mask_RT, (0, 1), value=1)
        if self._step is not None:
            batch.logit_RV = self._step(token_R, position_R, batch.mask_RT, batch.cache)
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

    def _draw(self, batch: Batch, sampling: Sampling) -> int:
        """Append a token to each row that goes on, and note whether that finishes it; how many it finishes."""
        last = sampling.max_new_tokens - 1  # rows that have finished are drawn for and not heard
        uniforms = [row.uniforms[min(len(row.tokens), last)] for row in batch.rows]
        uniform_R = sent(uniforms, batch.logit_RV.device, torch.float64)
        ends = sorted(self.end_ids)
        forbidden_R = [ends if len(row.tokens) < sampling.min_new_tokens else () for row in batch.rows]
        present_R = [row.tokens for row in batch.rows]
        drawn = draw(batch.logit_RV, uniform_R, sampling, forbidden_R, present_R).rows()
        finished = 0
        for row, (token, logprob, sampling_logprob) in zip(batch.rows, drawn, strict=True):
            if row.finish is not None:
                continue
            row.tokens.append(token)
            row.logprob.append(logprob)
            row.sampling_logprob.append(sampling_logprob)
            if token in self.end_ids or self._stopped(row, sampling.stop):
                row.finish = "stop"
            elif len(row.tokens) == sampling.max_new_tokens:
                row.finish = "length"
            finished += row.finish is not None
        return finished

    def _stopped(self, row: Row, stop: tuple[str, ...]) -> bool:
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
            stack.enter_context(library_products())
            stack.enter_context(self.autocast())
            yield

    @contextmanager
    def _decoding(self, sampling: Sampling) -> Iterator[None]:
        """Lay the weights out for decoding while a call lasts, where the model's family is known."""
        if self._decodes is not False:
            weight = next(self.model.parameters())
            device, dtype = weight.device.type, weight.dtype
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
            self._decoder = decoder_of(self.model, dtype, tried=self._decodes is not None)
            self._decodes = self._decoder is not None
        if self._decoder is not None:
            if self._graphs is None and self._decoder.device.type == "cuda":
                self._graphs = Graphs(self._decoder.device)
            self._step = GraphStep(self._decoder, self._graphs) if self._graphs else self._decoder.step
            # A response that is short needs no more, and is decoded in one buffer.
            self._room = min(ROOM_OF_GRAPHS, sampling.max_new_tokens) if self._graphs else ROOM
        try:
            yield
        finally:
            self._decoder, self._step, self._room = None, None, ROOM


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
