"""Settings of the studio: what `accord feedback studio` reads from flags or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator

__all__ = ["LOCAL_HOSTS", "StudioConfig"]

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class StudioConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the studio. Example: `StudioConfig(demo=True)`."""

    database: str = Field("sqlite:///feedback.db", description="address of the store, as SQLAlchemy writes it")
    host: str = Field("127.0.0.1", description="address to listen on; anything but this machine needs TLS or a proxy")
    port: int = Field(8420, ge=0, le=65535, description="port to listen on; 0: a free one")
    behind_proxy: bool = Field(False, description="a proxy in front speaks TLS and sets X-Forwarded-For and -Proto")
    tls_certificate: Path | None = Field(None, description="certificate to speak TLS with, a PEM file")
    tls_key: Path | None = Field(None, description="its private key, a PEM file")
    demo: bool = Field(False, description="make a demonstration project with a campaign per kind of task")
    models: tuple[str, ...] = Field(
        (), description="models to chat with: run, folder, hub id, or http://host/v1#model; two are compared blind"
    )
    max_new_tokens: int = Field(512, ge=1, description="length of a model's turn in chats, tokens")
    requests_per_minute: int = Field(120, ge=1, description="requests of one session in a minute before it has to wait")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="what the log holds")

    @model_validator(mode="after")
    def _check(self) -> StudioConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("found one of `tls_certificate` and `tls_key`; expected both or none")
        if self.host not in LOCAL_HOSTS and not self.behind_proxy and self.tls_certificate is None:
            raise ValueError(
                f"`host` is {self.host}, which other machines reach in clear text; expected TLS "
                "(`tls_certificate` and `tls_key`) or `behind_proxy`"
            )
        return self

    @property
    def secure(self) -> bool:
        """Whether browsers reach the studio over TLS: cookies are then for TLS only."""
        return self.behind_proxy or self.tls_certificate is not None
