"""How a picture becomes a result, as somebody watches: the cut-out, the surface, sharp views, then the mesh.

The page and the REST API go the same way; what they are told is plain data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mv3d.app.results import PageResult, Results
from mv3d.app.show import show_cut_out, show_turn
from mv3d.app.tasks import Task, TaskQueue, TaskView
from mv3d.app.work import ORBIT_SECONDS, PREVIEW_SECONDS, LoadedModel, cut_out_of, make_preview, make_result, message_of
from mv3d.errors import Mv3dError
from mv3d.options import Device, OrbitOptions

Update = dict[str, Any]
"""What has changed: ``status``, ``picture``, ``turn``, or ``finished``, the result that is."""

_TICK_SECONDS = 0.25
_STAGES = {
    "loading": "Getting ready",
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
                yield from self._make_orbit(owner, other, replace(options, seed=options.seed + k))

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
        yield {"status": say("working", "Cutting it out")}
        yield {"picture": show_cut_out(result.picture.name, *cut_out_of(result, options))}
        preview = self.queue.submit(owner, partial(make_preview, result, options, self.load), PREVIEW_SECONDS)
        yield from self._follow(preview)
        if preview.result is not None:
            yield {"turn": show_turn(preview.result, "preview")}
        yield from self._make_orbit(owner, result, options)

    def _make_orbit(self, owner: str, result: PageResult, options: OrbitOptions) -> Iterator[Update]:
        usual = {stage: ORBIT_SECONDS[stage] for stage in ORBIT_SECONDS if options.mesh or stage not in _OF_MESH}
        task = self.queue.submit(owner, partial(make_result, result, options, self.load), usual)
        shown = False
        for update in self._follow(task):
            if result.is_finished and not shown:  # the views are there, and the mesh is not yet
                shown = True
                yield {"turn": show_turn(result.orbit, "views")}
            yield update
        if not shown:
            yield {"turn": show_turn(result.orbit, "views")}
        yield {"finished": result}

    def _follow(self, task: Task) -> Iterator[Update]:
        """Tell how a task goes until it is done; raises `_NotMadeError` if it will not be."""
        last = None
        while not task.wait(_TICK_SECONDS):
            if task.is_unwanted:
                raise _NotMadeError(task)
            status = status_of(self.queue.view(task))
            if status != last:
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
