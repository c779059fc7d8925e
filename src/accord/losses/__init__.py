"""Objectives as pure functions of tensors: one value per tree, response or token out; the caller takes the mean.

Dimensions: B trees (prompts, pairs), K responses of a tree, N sequences, T tokens, V vocabulary, D all parameters
flattened, M bins, P pairs. Log-probabilities and KL in nats, lengths in tokens, rewards and values in reward units.
Entry t of a per-token tensor belongs to the token t that was produced. Masks are True where a token counts; what lies
under False may be nan and reaches neither result nor gradient. float16 and bfloat16 are raised to float32. What is
named a loss is minimised. Only numbers and shapes are checked, never the contents of a tensor: no device sync.
"""

from accord.losses import advantages, kl, likelihood, listwise, policy, preference, reward

__all__ = ["advantages", "kl", "likelihood", "listwise", "policy", "preference", "reward"]
