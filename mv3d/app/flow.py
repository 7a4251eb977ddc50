"""How a picture, or words, become a result, as somebody watches: cut-out, surface, sharp views, then the mesh.

The page and the REST API go the same way; what they are told is plain data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from mv3d.app.results import PageResult, Results
from mv3d.app.show import show_cut_out, show_surface, show_turn
from mv3d.app.tasks import Task, TaskQueue, TaskView
from mv3d.app.work import (
    ORBIT_SECONDS,
    PROMPT_SECONDS,
    LoadedModel,
    cut_out_of,
    make_prompted,
    make_result,
    message_of,
)
from mv3d.errors import Mv3dError
from mv3d.options import Device, OrbitOptions
from mv3d.orbit import Orbit
from mv3d.progress import OnStep

Update = dict[str, Any]
"""What has changed: ``status``, ``picture``, ``turn``, or ``finished``, the result that is."""

_TICK_SECONDS = 0.25
_STAGES = {
    "loading": "Getting ready",
    "picture": "Drawing what you say",
    "coarse": "Finding the shape",
    "views": "Sharpening the views",
    "surface": "Making the mesh",
    "texture": "Painting the mesh",
}


@dataclass(frozen=True)
class Workshop:
    """What all visitors share: the device's line of tasks, the loaded model, and the folder of results."""

    results: Results
    models: tuple[str, ...] = ("mini",)
    """What may be asked for, the first unless somebody chooses."""
    loras: tuple[str, ...] = ()
    unfit: frozenset[tuple[str, str]] = frozenset()
    """Models and LoRAs that do not go together."""
    text_model: str | None = None
    """What draws the picture of words, where that is offered."""
    device: Device = "auto"
    queue: TaskQueue = field(default_factory=TaskQueue)
    load: LoadedModel = field(default_factory=LoadedModel)
    _latest: dict[str, object] = field(default_factory=dict)
    """Of each owner, what he began last; the end of anything earlier is no news."""

    def cancel(self, owner: str) -> None:
        """Stop what somebody began."""
        self.queue.cancel(owner)

    def make(self, owner: str, result: PageResult, options: OrbitOptions) -> Iterator[Update]:
        """Make everything of a picture; what the owner began before is stopped."""
        yield from self._in_turn(owner, result, partial(self._make_all, owner, result, options))

    def vary(self, owner: str, result: PageResult, others: list[PageResult], options: OrbitOptions) -> Iterator[Update]:
        """Make the picture of ``result`` again into each of ``others``, with the seeds that follow."""

        def one_by_one() -> Iterator[Update]:
            for k, other in enumerate(others, start=1):
                seeded = replace(options, seed=options.seed + k)
                yield from self._make_orbit(owner, other, seeded, shows_surface=False)  # it is the same

        yield from self._in_turn(owner, result, one_by_one)

    def _in_turn(self, owner: str, result: PageResult, make: Callable[[], Iterator[Update]]) -> Iterator[Update]:
        mine = self._latest[owner] = object()
        self.queue.cancel(owner)
        began = time.monotonic()
        held: Update = {}
        try:
            for update in make():
                if self._latest.get(owner) is not mine:
                    return
                if held:
                    yield held
                # What is finished is told last, with that it is: gradio spoils files that something else comes after.
                held = update if "finished" in update else {}
                if not held:
                    yield update
        except _NotMadeError as error:
            if self._latest.get(owner) is mine:
                problem = error.task.error
                yield {"status": say("cancelled", "Cancelled") if problem is None else fault(problem, result)}
        except (Mv3dError, OSError) as error:
            yield {"status": fault(error, result)}
        else:
            yield held | {"status": say("done", f"Ready in {time.monotonic() - began:.0f} s")}
        finally:
            if self._latest.get(owner) is mine:
                del self._latest[owner]

    def _make_all(self, owner: str, result: PageResult, options: OrbitOptions) -> Iterator[Update]:
        if not result.picture.exists():
            drawing = self.queue.submit(owner, partial(make_prompted, result, options), PROMPT_SECONDS)
            yield from self._follow(drawing, SimpleQueue())
        yield {"status": say("working", "Cutting it out")}
        yield {"picture": show_cut_out(result.picture.name, *cut_out_of(result, options))}
        yield from self._make_orbit(owner, result, options)

    def _make_orbit(
        self, owner: str, result: PageResult, options: OrbitOptions, *, shows_surface: bool = True
    ) -> Iterator[Update]:
        usual = {stage: ORBIT_SECONDS[stage] for stage in ORBIT_SECONDS if options.mesh or stage not in _OF_MESH}
        surfaces: SimpleQueue[Orbit | None] = SimpleQueue()

        def work(on_step: OnStep) -> None:
            try:
                make_result(result, options, self.load, surfaces.put if shows_surface else None, on_step)
            finally:
                surfaces.put(None)

        task = self.queue.submit(owner, work, usual)
        shown = False
        for update in self._follow(task, surfaces):
            if result.is_finished and not shown:  # the views are there, and the mesh is not yet
                shown = True
                yield {"turn": show_turn(result.orbit)}
            if not (shown and "turn" in update):
                yield update
        if not shown:
            yield {"turn": show_turn(result.orbit)}
        yield {"finished": result}

    def _follow(self, task: Task, surfaces: SimpleQueue[Orbit | None]) -> Iterator[Update]:
        """Tell how a task goes until it is over, and show what it puts into ``surfaces``; None there wakes up.

        Raises:
            _NotMadeError: if it was cancelled, or failed.
        """
        last = None
        while not task.is_over or not surfaces.empty():
            with suppress(Empty):
                surface = surfaces.get(timeout=_TICK_SECONDS)
                if surface is None:
                    task.wait(_TICK_SECONDS)
                elif not task.is_unwanted:
                    yield {"turn": show_surface(surface)}
            if task.is_unwanted:
                raise _NotMadeError(task)
            status = status_of(self.queue.view(task))
            if status != last and not task.is_over:
                yield {"status": status}
            last = status
        if task.state != "done":
            raise _NotMadeError(task)


class _NotMadeError(Exception):
    """A task was cancelled, or failed."""

    def __init__(self, task: Task) -> None:
        super().__init__(task.state)
        self.task = task


_OF_MESH = ("surface", "texture")


def status_of(view: TaskView) -> dict[str, Any]:
    """A task in words."""
    if view.state == "waiting":
        return say("waiting", f"Waiting, {view.ahead} ahead of you" if view.ahead else "Waiting")
    left = f"{max(1, round(view.seconds_left))} s left" if view.stage != "loading" else ""
    return say("working", _STAGES.get(view.stage, view.stage), round(view.share, 2), left)


def say(state: str, text: str, share: float = 0.0, left: str = "") -> dict[str, Any]:
    """A line of the page's status."""
    return {"state": state, "text": text, "share": share, "left": left}


def fault(error: Exception, result: PageResult | None = None) -> dict[str, Any]:
    """An error as the page's status."""
    return say("error", message_of(error, result))
