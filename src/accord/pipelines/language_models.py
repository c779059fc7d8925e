"""A language model by what a user writes: a run, a folder, a hub id, a wheel, or the URL of a server."""

from __future__ import annotations

from typing import Any

from accord.protocols import LanguageModel

__all__ = ["is_server", "open_language_model"]


def is_server(spec: str) -> bool:
    """Whether a name is the URL of a server."""
    return spec.startswith(("http://", "https://"))


def open_language_model(spec: str, **options: Any) -> LanguageModel:
    """Open a model for generating and scoring.

    Args:
        spec: `http(s)://HOST/v1#MODEL` for an OpenAI-compatible server (#MODEL may be left out where it has only one),
            else any name `accord.models.resolve` knows: run folder, model folder, hub id, GGUF file, `wheel:NAME`.
        options: of `accord.servers.ServerModel` for a server (api_key_env, concurrency, timeout), of
            `accord.rollouts.local.LocalModel` else (max_rows, micro_tokens). Those of the other kind are not read, so
            that a command can pass all it has.

    Raises:
        ValueError: no such model.
        accord.protocols.Unavailable: the server cannot be reached.
    """
    of_server = {"api_key_env", "concurrency", "votes", "timeout", "retries", "patience"}
    if is_server(spec):
        from accord.servers import ServerModel

        url, _, model = spec.partition("#")
        return ServerModel(url, model or None, **{name: options[name] for name in of_server & options.keys()})
    from accord.rollouts.local import LocalModel
    from accord.train.loop import Precision

    kept = {name: value for name, value in options.items() if name not in of_server | {"precision"}}
    local = LocalModel.load(spec, **kept)
    precision = Precision(options.get("precision", "auto"), local.device)
    local.compute_under(precision.forward, precision.name)
    return local
