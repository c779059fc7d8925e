"""Accord: align a language model end to end, from instruction data to evaluation and chat."""

__version__ = "0.1.0"

__all__ = ["__version__"]
