"""Processes of their own for commands, without their imports: forked from one process that has made them.

Half of a short command is the import of torch and transformers, four seconds of a core. A command started here is a
real process with an environment, a folder, output and signals of its own (it can be killed and leaves nothing behind);
only its imports are shared. What a command imports, and how long that takes, is tested with plain subprocesses.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Done", "Started", "run", "start"]

SOURCE, TESTS = Path(__file__).resolve().parents[1] / "src", Path(__file__).resolve().parent


@dataclass(frozen=True)
class Done:
    """What became of a command; a negative code is the signal that ended it."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A command that runs: `pid`, `poll`, `wait`, `send_signal` as of subprocess.Popen; output is kept.

    Args:
        words: after `accord`; of a script, its path and its arguments.
        cwd: the folder it runs in; none: that of the tests.
        env: its whole environment; none: that of the tests.
        script: whether the first word is a file to run instead.
    """

    def __init__(
        self, words: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None, script: bool = False
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="accord-launch-"))
        self.stdout, self.stderr = (self._folder / name for name in ("stdout", "stderr"))
        given = dict(os.environ if env is None else env)
        target = (list(map(str, words)), str(cwd or Path.cwd()), given, str(self.stdout), str(self.stderr), script)
        self._process = _context().Process(target=_command, args=target, daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended; past the time it is killed and a TimeoutError raised."""
        return self.done(timeout).returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def done(self, timeout: float | None = None) -> Done:
        """Wait, and read what it said; once."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self.send_signal(signal.SIGKILL)
            self._process.join()
        texts = [path.read_text(encoding="utf8") if path.exists() else "" for path in (self.stdout, self.stderr)]
        shutil.rmtree(self._folder, ignore_errors=True)
        if late:
            raise TimeoutError(f"it had not ended after {timeout} s and was killed; {texts[1][-2000:]}")
        return Done(int(self._process.exitcode or 0), *texts)


def start(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, script: bool = False
) -> Started:
    """Start a command and go on."""
    return Started(words, cwd, env, script)


def run(
    words: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    script: bool = False,
    timeout: float = 250,
) -> Done:
    """Run a command to its end."""
    return Started(words, cwd, env, script).done(timeout)


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["launch_imports"])
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SOURCE), str(TESTS), *filter(None, [before.get("PYTHONPATH")])])
    os.environ["OMP_NUM_THREADS"] = "1"  # read with the imports; the same bits however many cores there are
    try:
        multiprocessing.forkserver.ensure_running()  # once; what is in the environment then stays
    finally:
        for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
            os.environ.pop(name)
            os.environ.update({name: before[name]} if name in before else {})
    return context


def _command(words: list[str], cwd: str, env: dict[str, str], stdout: str, stderr: str, script: bool) -> None:
    """In the new process: become the command."""
    for descriptor, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the process it came from ignores Ctrl-C
    if script:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return
    from accord.cli import main

    sys.argv = ["accord", *words]
    sys.exit(main(words))
