"""Identifiers, hashes and the clock of the store."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
import uuid
from typing import Any

__all__ = ["blind_id", "content_hash", "new_id", "new_secret", "now_ms", "token_hash"]


def now_ms() -> int:
    """UTC milliseconds since 1970 by this machine's clock: the unit of every time in the store."""
    return time.time_ns() // 1_000_000


_last = 0
_lock = threading.Lock()


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of time, then 74 random bits, so ids cannot be guessed and sort by age.

    Ids made in one process are in order even within a millisecond: the next one is then the last one plus one.
    """
    global _last
    value = now_ms() << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    with _lock:
        _last = value = max(value, _last + 1)
    return str(uuid.UUID(int=value))


def blind_id() -> str:
    """A UUIDv4, which tells nothing of its age, for what is seen by those who must not know more.

    Responses are added model by model: ids that sort by age would tell annotators which ones are of the same model.
    Pseudonyms go out with exports: a time in them is when the account was made, and that is who it is.
    """
    return str(uuid.uuid4())


def new_secret() -> str:
    """256 random bits in hexadecimal, for keys, tokens and seeds."""
    return secrets.token_hex(32)


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256. A token has 256 random bits, so it needs no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def content_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: equal content has one hash, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
