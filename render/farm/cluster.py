"""The same work on a Ray cluster. A node that is lost gives its work back to the others."""

from __future__ import annotations

import logging
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mv3d.errors import Mv3dError
from render.farm.pool import Failure

_TRIES = 3  # of a job whose process or node is lost; an object that kills its process fails after so many
_AHEAD = 2  # jobs waiting for each core


class RayCluster:
    """Runs a module-level function on jobs as Ray tasks; use as a context manager.

    All nodes must see the objects and the output folder under the same paths, and have this repository importable.
    """

    def __init__(self, function: Callable[[Any], Any], address: str, timeout_s: float) -> None:
        self._function, self._address, self._timeout_s = function, address, timeout_s

    def __enter__(self) -> RayCluster:
        try:
            import ray  # pyright: ignore[reportMissingImports]  (an extra)
        except ImportError:
            raise Mv3dError('a cluster needs Ray: pip install -c constraints.txt ".[ray]"', argument="ray") from None
        host, colon, port = self._address.rpartition(":")
        if colon and port.isdecimal() and "/" not in host:  # Ray itself would try for minutes
            try:
                socket.create_connection((host, int(port)), timeout=10).close()
            except OSError as error:
                raise Mv3dError(
                    f"there is no Ray cluster at {self._address}: {error}; start one with `ray start`"
                ) from None
        try:
            ray.init(address=self._address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise Mv3dError(f"there is no Ray cluster at {self._address}: {line}; start one with `ray start`") from None
        return self

    def __exit__(self, *_: object) -> None:
        import ray  # pyright: ignore[reportMissingImports]  (an extra)

        ray.shutdown()

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield ``(job, result)`` in the order they finish; the result of a job that failed is a `Failure`."""
        import ray  # pyright: ignore[reportMissingImports]  (an extra)
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

        task = ray.remote(num_cpus=1, max_retries=_TRIES - 1)(_run_one)
        waiting, running = deque(jobs), {}
        while waiting or running:
            room = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))  # nodes come and go
            while waiting and len(running) < room:
                job = waiting.popleft()
                running[task.remote(self._function, job, self._timeout_s)] = job
            done, _ = ray.wait(list(running), num_returns=1, timeout=5)
            for reference in done:
                job = running.pop(reference)
                try:
                    result = ray.get(reference)
                except RayError as error:  # its process died in all its tries
                    line = str(error).strip().splitlines()[0]
                    result = Failure(f"the process crashed {_TRIES} times ({line})"[:300], str(error))
                yield job, result


def _run_one(function: Callable[[Any], Any], job: Any, timeout_s: float) -> Any:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {timeout_s:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return function(job)
    except Exception as error:  # whatever a broken file provokes is that object's failure
        return Failure.of(error, traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
