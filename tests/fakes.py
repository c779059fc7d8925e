"""Small real things for tests: a byte tokenizer and random two-layer models of several families, made in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from accord.protocols import LanguageModel, Prompt, Reply, Sampling, Usage

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 260


@cache
def _bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    vocabulary = {token: index for index, token in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token per byte, ChatML template, end of turn <|im_end|> (id 2), pad <|pad|> (id 3)."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bytes().to_str()),
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        chat_template=chat_template,
    )


def _shape(hidden: int) -> dict[str, int]:
    return {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny_llama(seed: int = 0, hidden: int = 32, **extra: object) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        intermediate_size=2 * hidden,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=3,
        **_shape(hidden),
        **extra,
    )
    return LlamaForCausalLM(config).eval()


def tiny_qwen(seed: int = 0, hidden: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        intermediate_size=64,
        num_key_value_heads=2,
        max_position_embeddings=512,
        **_shape(hidden),
    )
    return Qwen2ForCausalLM(config).eval()


def tiny_gemma(seed: int = 0, hidden: int = 32, window: int = 6) -> PreTrainedModel:
    """Gemma 3: sliding windows of `window` tokens in the first layer, full attention in the second."""
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        intermediate_size=64,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"],
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=3,
        **_shape(hidden),
    )
    return Gemma3ForCausalLM(config).eval()


def tiny_gpt2(seed: int = 0, hidden: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=512, n_embd=hidden, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=2
    )
    return GPT2LMHeadModel(config).eval()


def tiny_neox(seed: int = 0, hidden: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = GPTNeoXConfig(vocab_size=VOCABULARY, intermediate_size=64, max_position_embeddings=512, **_shape(hidden))
    return GPTNeoXForCausalLM(config).eval()


FAMILIES = {"llama": tiny_llama, "qwen": tiny_qwen, "gemma3": tiny_gemma, "gpt2": tiny_gpt2, "neox": tiny_neox}


class Scripted(LanguageModel):
    """Says what it was told, in order, and keeps what it was asked; satisfies Generate and Score.

    Each argument answers one question: a text or a Reply answers a request for one reply, a sequence of numbers the
    continuations of one prompt. A single function answers all: it is given the prompt, and the continuations when it
    is asked to score. `asked` holds the prompts, `samplings` how replies were asked for.
    """

    def __init__(self, *replies: Any, name: str = "scripted @ 1") -> None:
        self._answer: Callable[..., Any] | None = replies[0] if len(replies) == 1 and callable(replies[0]) else None
        self._replies = deque(replies)
        self._name = name
        self.asked: list[Prompt] = []
        self.continuations: list[tuple[str, ...]] = []
        self.samplings: list[Sampling] = []
        self._usage = Usage()

    @property
    def name(self) -> str:
        return self._name

    @property
    def usage(self) -> Usage:
        return self._usage

    def generate(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        self.samplings.append(sampling)
        return [[self._say(prompt, sampling) for _ in range(count)] for prompt in prompts]

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float | None]]:
        return [self._judge(prompt, texts) for prompt, texts in zip(prompts, continuations, strict=True)]

    def _say(self, prompt: Prompt, sampling: Sampling) -> Reply:
        self.asked.append(prompt)
        self._usage.add(1, 1)
        said = self._answer(prompt) if self._answer else self._replies.popleft()
        if isinstance(said, Reply):
            return said
        places = [place for string in sampling.stop if (place := said.find(string)) >= 0]
        text = said[: min(places)] if places else said
        words = text.split()
        if len(words) > sampling.max_new_tokens:
            text = " ".join(words[: sampling.max_new_tokens])
        finish = "length" if len(words) > sampling.max_new_tokens else "stop"
        return Reply(text=text, finish=finish, prompt_tokens=1, new_tokens=max(1, len(text.split())), seconds=0.0)

    def _judge(self, prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        self.asked.append(prompt)
        self._usage.add(1, 0)
        self.continuations.append(tuple(texts))
        return list(self._answer(prompt, texts) if self._answer else self._replies.popleft())
