"""Work waits in line for the one device: who is where, how far a task is, and how it is stopped."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mv3d.progress import OnStep, Pace

TaskState = Literal["waiting", "working", "done", "failed", "cancelled"]
_ENDS: tuple[TaskState, ...] = ("done", "failed", "cancelled")


class TaskCancelledError(BaseException):
    """Ends a task from within. No `Exception`: whoever mends or reports those must let it through."""


@dataclass(frozen=True)
class TaskView:
    """How a task stands at one moment."""

    state: TaskState
    ahead: int = 0
    """Tasks that come before it."""
    stage: str = ""
    share: float = 0.0
    """Of all its work, in [0, 1]."""
    seconds_left: float = 0.0


class Task:
    """One piece of work, and what its owner may know of it and do with it."""

    def __init__(self, owner: str, work: Callable[[OnStep], Any], usual_seconds: Mapping[str, float]) -> None:
        self.owner = owner
        self.result: Any = None
        self.error: Exception | None = None
        self._work, self._usual = work, usual_seconds
        self._changed = threading.Condition()
        self._state: TaskState = "waiting"
        self._pace: Pace | None = None
        self._is_unwanted = False

    @property
    def state(self) -> TaskState:
        """Where it is on its way."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self._state in _ENDS

    @property
    def is_unwanted(self) -> bool:
        """Whether it was cancelled, though it may not have ended yet."""
        return self._is_unwanted

    def wait(self, seconds: float) -> bool:
        """Wait until it is over, or so long; returns whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over, seconds)
            return self.is_over

    def cancel(self) -> None:
        """Let it end at its next step, or never begin."""
        with self._changed:
            self._is_unwanted = True
            if self._state == "waiting":
                self._end("cancelled")

    def view(self, ahead: int = 0) -> TaskView:
        """How it stands."""
        with self._changed:
            if self._pace is None or self.is_over:
                return TaskView(self._state, ahead)
            now = time.monotonic()
            return TaskView(self._state, 0, self._pace.stage, self._pace.share(now), self._pace.seconds_left(now))

    def run(self) -> None:
        """Do the work, here and now; what becomes of it is in ``result`` or ``error``."""
        with self._changed:
            if self.is_over:
                return
            self._state, self._pace = "working", Pace(self._usual, time.monotonic())
        try:
            self.result = self._work(self._report)
            state = "done"
        except TaskCancelledError:
            state = "cancelled"
        except Exception as error:  # one visitor's trouble is not the next one's: the line goes on
            self.error, state = error, "failed"
        with self._changed:
            self._end(state)

    def _report(self, stage: str, done: int, total: int) -> None:
        with self._changed:
            if self._is_unwanted:
                raise TaskCancelledError
            assert self._pace is not None
            self._pace.update(stage, done / total, time.monotonic())

    def _end(self, state: TaskState) -> None:
        self._state = state
        self._changed.notify_all()


class TaskQueue:
    """One worker that does the tasks of all visitors, first come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._current: Task | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def submit(self, owner: str, work: Callable[[OnStep], Any], usual_seconds: Mapping[str, float]) -> Task:
        """Put work in line. It is given what it reports its steps to, which is also where it is stopped."""
        task = Task(owner, work, usual_seconds)
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        return task

    def view(self, task: Task) -> TaskView:
        """How a task stands, and how many come before it."""
        with self._changed:
            ahead = list(self._waiting).index(task) + (self._current is not None) if task in self._waiting else 0
        return task.view(ahead)

    def cancel(self, owner: str) -> None:
        """Stop all that somebody has in line."""
        with self._changed:
            own = [task for task in (self._current, *self._waiting) if task is not None and task.owner == owner]
            self._waiting = deque(task for task in self._waiting if task not in own)
        for task in own:
            task.cancel()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                task = self._current = self._waiting.popleft()
            task.run()
            _return_freed_memory()
            with self._changed:
                self._current = None


def _return_freed_memory() -> None:
    """Hand what tasks have freed back to the system: glibc keeps it, in pieces that the next tasks do not all fit."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
