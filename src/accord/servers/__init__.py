"""Models behind an OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`, or a service. No torch."""

from accord.servers.client import Client
from accord.servers.model import ServerModel

__all__ = ["Client", "ServerModel"]
