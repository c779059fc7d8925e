"""Feedback from models: critiques, labels and ratings by the principles of a constitution. No torch.

Functions here take a model as an argument (`accord.protocols`) and return rows; `accord.pipelines` reads data, opens
models and keeps run folders.
"""
