"""Worker processes that may hang or die without taking the others along."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

_SINGLE_THREADED = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


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
        """Yield ``(job, result)`` in the order they finish; a job that failed has a line of text as its result."""
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
                    result, alive = f"took longer than {self._timeout_s:g} s", False
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
        self._process = context.Process(target=_serve, args=(function, theirs), daemon=True)
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
            return f"the process crashed ({_describe_exit(self._process.exitcode)})", False

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return  # the parent is gone
        try:
            result = function(job)
        except Exception as error:  # whatever a broken file provokes is that object's failure
            result = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        try:
            pipe.send(result)
        except BrokenPipeError:
            return


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
