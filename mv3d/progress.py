"""Progress of what takes seconds to minutes: stages by their names, a bar that moves in each of them, the time left."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

OnStep = Callable[[str, int, int], None]
"""Called with a stage's name, its steps done and in all; as a stage begins, with 0 of 1."""

_TICK_SECONDS = 0.2
_OVERDUE = 1.1  # times what a stage has taken so far: what one that takes longer than it should is taken to take
_SPEEDS = (0.1, 20.0)  # of this machine, in usual times


def begin_stage(on_step: OnStep | None, stage: str) -> Callable[[int, int], None] | None:
    """Say that a stage begins; returns what takes its steps done and in all, or None if nobody asks."""
    if on_step is None:
        return None
    on_step(stage, 0, 1)
    return lambda done, total: on_step(stage, done, total)


class Pace:
    """How far stages that follow each other are, and how long they will take.

    Seconds so far tell how fast this machine is beside the usual times, and steps that are counted tell more. A stage
    that is left out takes no time.
    """

    def __init__(self, usual_seconds: Mapping[str, float], now: float) -> None:
        self._usual = dict(usual_seconds)
        self._began, self._stage_began, self._step_at = now, now, now
        self._spent: dict[str, float] = {}
        self._stage = next(iter(self._usual))
        self._done = 0.0
        self._share = 0.0

    @property
    def stage(self) -> str:
        """The stage it is in."""
        return self._stage

    def update(self, stage: str, share: float, now: float) -> None:
        """A share of a stage is done; of a new one, 0."""
        if stage != self._stage:
            self._spent[self._stage] = now - self._stage_began
            self._stage, self._stage_began = stage, now
        self._done, self._step_at = share, now

    def seconds_left(self, now: float) -> float:
        """How long all of it will take from now."""
        order = list(self._usual)
        later = order[order.index(self._stage) + 1 :]
        elapsed = now - self._stage_began
        if self._done > 0:
            expected = (self._step_at - self._stage_began) / self._done
        else:
            expected = self._usual[self._stage] * self._speed()
        own_left = max(expected, _OVERDUE * elapsed) - elapsed
        return own_left + self._speed() * sum(self._usual[stage] for stage in later)

    def share(self, now: float) -> float:
        """How much of all is done, below 1; never less than it was."""
        elapsed = now - self._began
        self._share = max(self._share, elapsed / max(elapsed + self.seconds_left(now), 1e-9))
        return self._share

    def _speed(self) -> float:
        """Times the usual that stages took; the first, loading, tells of the disk and of what is loaded already."""
        first, *_ = self._usual
        timed = [stage for stage in self._spent if stage != first]
        usual = sum(self._usual[stage] for stage in timed)
        low, high = _SPEEDS
        return min(max(sum(self._spent[stage] for stage in timed) / usual, low), high) if usual else 1.0


class StageBar:
    """A progress bar on stderr where somebody watches: a terminal, or a program that says so (MV3D_PROGRESS=1).

    It names the stage and the time left, and moves by itself between steps.
    """

    def __init__(self, usual_seconds: Mapping[str, float], *, quiet: bool = False) -> None:
        self._usual = usual_seconds
        self._is_shown = not quiet and (os.environ.get("MV3D_PROGRESS") == "1" or sys.stderr.isatty())
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pace: Pace | None = None
        self._bar: tqdm | None = None
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def update(self, name: str, stage: str, done: int = 0, total: int = 1) -> None:
        """Show what is worked on, the stage, and how many of its steps are done; begins a bar if there is none."""
        if not self._is_shown:
            return
        with self._lock:
            if self._pace is None:
                self._begin(name)
            assert self._pace is not None
            assert self._bar is not None
            self._bar.desc = name
            self._pace.update(stage, done / total, time.monotonic())
            self._draw()

    def say(self, line: str) -> None:
        """Print a line on stderr above the bar."""
        with self._lock:
            if self._bar is None:
                print(line, file=sys.stderr)
            else:
                self._bar.write(line, file=sys.stderr)

    def end(self) -> None:
        """Take the bar away; the next update begins another one."""
        if self._ticker is None:
            return
        self._ended.set()
        self._ticker.join()
        with self._lock:
            assert self._bar is not None
            self._bar.close()
            self._bar = self._pace = self._ticker = None

    def _begin(self, name: str) -> None:
        from tqdm import tqdm

        self._pace = Pace(self._usual, time.monotonic())
        self._bar = tqdm(total=100, desc=name, leave=False, file=sys.stderr, bar_format="{desc}")
        self._ended.clear()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._bar is None or self._pace is None:
            return
        now = time.monotonic()
        minutes, seconds = divmod(round(self._pace.seconds_left(now)), 60)
        stage = f"{self._pace.stage:<7}"
        self._bar.bar_format = f"{{desc}}: {stage} {{percentage:3.0f}}%|{{bar}}| {minutes}:{seconds:02d} left"
        self._bar.n = 100 * self._pace.share(now)
        self._bar.refresh()
