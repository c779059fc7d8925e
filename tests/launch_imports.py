"""What the process of `launch` imports once for all commands it starts."""

import torch
import transformers.models.auto.modeling_auto
import transformers.models.llama.modeling_llama
import transformers.models.llama.tokenization_llama
import transformers.tokenization_utils_tokenizers

import accord.cli

__all__ = ["accord", "torch", "transformers"]
