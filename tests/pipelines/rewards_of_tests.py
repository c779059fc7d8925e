"""Rewards for tests: functions from conversations to numbers, some of which fail."""

import os
import signal
from pathlib import Path


def count_a(conversations):
    return [float(talk[-1].content.count("a")) for talk in conversations]


def length(conversations):
    return [float(len(talk[-1].content)) for talk in conversations]


def unreadable(conversations):
    """Raises for every conversation whose response holds a question mark."""
    if any("?" in talk[-1].content for talk in conversations):
        raise RuntimeError("cannot read this")
    return count_a(conversations)


def broken(conversations):
    raise RuntimeError("the server is away")


def dies(conversations):
    """Kills the process after three calls, as long as the file named in the environment is there."""
    dies.calls = getattr(dies, "calls", 0) + 1
    if dies.calls > 3 and Path(os.environ["ACCORD_TEST_KILL"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return count_a(conversations)
