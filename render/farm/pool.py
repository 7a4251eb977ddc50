"""Worker processes that may hang or die without taking the others along, and whose last words are kept."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

_SINGLE_THREADED = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclass(frozen=True)
class Failure:
    """A job that has no result."""

    reason: str
    """One line."""
    log: str = ""
    """What it wrote to its standard output and error streams, a traceback included."""

    @classmethod
    def of(cls, error: Exception, log: str = "") -> Failure:
        """Describe an exception."""
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300], log)


class Pool:
    """Runs a module-level function on jobs in processes of their own, each with a time limit.

    Use as a context manager; leaving it, by an error or Ctrl-C too, ends the processes.
    """

    def __init__(self, function: Callable[[Any], Any], count: int, timeout_s: float) -> None:
        self._function, self._count, self._timeout_s = function, count, timeout_s
        self._workers: list[_Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield ``(job, result)`` in the order they finish; the result of a job that failed is a `Failure`."""
        waiting = deque(jobs)
        while len(self._workers) < min(self._count, len(jobs)):
            self._workers.append(_Worker(self._function))
        busy: dict[_Worker, tuple[Any, float]] = {}
        while waiting or busy:
            for worker in [w for w in self._workers if w not in busy]:
                if not waiting:
                    break
                job = waiting.popleft()
                worker.send(job)
                busy[worker] = (job, time.monotonic() + self._timeout_s)
            first_deadline = min(deadline for _, deadline in busy.values())
            ready = wait([w.pipe for w in busy], timeout=max(0.0, first_deadline - time.monotonic()))
            for worker in list(busy):
                job, deadline = busy[worker]
                if worker.pipe in ready:
                    result, alive = worker.receive()
                elif time.monotonic() >= deadline:
                    result, alive = Failure(f"took longer than {self._timeout_s:g} s", worker.log()), False
                else:
                    continue
                del busy[worker]
                if not alive:
                    worker.kill()
                    self._workers[self._workers.index(worker)] = _Worker(self._function)
                yield job, result


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._log = tempfile.NamedTemporaryFile(prefix="mv3d-worker-", suffix=".log")  # noqa: SIM115, closed in kill
        self._process = context.Process(target=_serve, args=(function, theirs, self._log.name), daemon=True)
        before = {name: os.environ.get(name) for name in _SINGLE_THREADED}
        os.environ.update(_SINGLE_THREADED)  # read by the child's libraries when they load
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def send(self, job: Any) -> None:
        with suppress(BrokenPipeError):  # it died while idle; receive() reports that for this job
            self.pipe.send(job)

    def receive(self) -> tuple[Any, bool]:
        """The result and whether the process lives on."""
        try:
            return self.pipe.recv(), True
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            return Failure(f"the process crashed ({_describe_exit(self._process.exitcode)})", self.log()), False

    def log(self) -> str:
        """What the process has written since it got its job."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it may be gone, or not lead its group yet
            os.killpg(self._process.pid or 0, signal.SIGKILL)  # with what it started, a Blender for instance
        self._process.kill()
        self._process.join()
        self.pipe.close()
        self._log.close()


def _serve(function: Callable[[Any], Any], pipe: Connection, log_path: str) -> None:
    os.setsid()  # a group of its own; so Ctrl-C reaches the parent alone, which decides
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return  # the parent is gone
        os.ftruncate(log, 0)
        try:
            result = function(job)
        except Exception as error:  # whatever a broken file provokes is that object's failure
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            with open(log_path, errors="replace") as file:
                result = Failure.of(error, file.read())
        try:
            pipe.send(result)
        except BrokenPipeError:
            return


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
