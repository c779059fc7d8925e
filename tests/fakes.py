"""Small real things for tests: a byte tokenizer and random two-layer models of several families, made in memory."""

from __future__ import annotations

from functools import cache

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
