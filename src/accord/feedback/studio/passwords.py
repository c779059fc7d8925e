"""Passwords: argon2 with the library's defaults, at least twelve characters, and one answer for every failure."""

from __future__ import annotations

import threading
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

__all__ = ["SHORTEST", "check_new", "hash_password", "matches", "needs_rehash"]

SHORTEST, LONGEST = 12, 1024  # characters
_hasher = PasswordHasher()
_room = threading.BoundedSemaphore(2)  # each hash takes 64 MiB and a core: a burst of logins must not take the machine


def check_new(password: str) -> None:
    """Raise ValueError unless a password may be set."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(
            f"the password has {len(password)} characters; expected {SHORTEST} to {LONGEST}; a few words are good"
        )


def hash_password(password: str) -> str:
    """What is kept of a password."""
    with _room:
        return _hasher.hash(password)


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher.hash("the password of nobody")


def matches(kept: str | None, password: str) -> bool:
    """Whether a password is the right one; takes as long for an account that is not there (None)."""
    try:
        with _room:
            right = _hasher.verify(kept or _nobody(), password[:LONGEST])
    except (VerificationError, InvalidHashError):
        return False
    return right and kept is not None


def needs_rehash(kept: str) -> bool:
    """Whether the defaults have moved on since this was made."""
    return _hasher.check_needs_rehash(kept)
