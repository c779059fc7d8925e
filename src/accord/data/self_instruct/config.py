"""Settings of Self-Instruct."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SelfInstructConfig"]


class SelfInstructConfig(BaseModel):
    """Instructions that a model writes from seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(description="who writes: run, folder, hub id, wheel:NAME, or http(s)://HOST/v1#MODEL")
    seeds: Path = Field(description="seed tasks: rows of instruction, instances (input, output) and is_classification")
    target: int = Field(ge=1, description="accepted instructions to stop at")
    out: Path = Field(description="folder of the state and the results; an unfinished job in it is continued")
    style: Literal["self-instruct", "alpaca"] = Field(
        "self-instruct",
        description="four steps; or Alpaca's: 20 whole tasks per request from 3 seeds, at temperature 1",
    )
    classification: bool = Field(False, description="ask for classification tasks (self-instruct only)")
    form: Literal["text", "chat"] = Field(
        "text", description="the prompt is continued as it stands, or sent as a message to a chat model"
    )
    novelty: float = Field(
        0.7, gt=0, lt=1, description="ROUGE-L f1 with a known instruction above which one is not new"
    )
    tokens: Literal["ascii", "unicode"] = Field(
        "ascii", description="words that ROUGE-L compares: runs of a-z and 0-9, or of the letters of any script"
    )
    instances: int = Field(5, ge=1, description="instances kept of an instruction, at most")
    max_requests: int = Field(10_000, ge=1, description="requests for instructions, at most: a weak model accepts few")
    batch: int = Field(8, ge=1, description="requests under way at once")
    seed: int = Field(0, ge=0, description="of every draw, with the number of the request")
