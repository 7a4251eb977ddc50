"""Which function answers what a visitor of the page does."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from mv3d.app.asking import prompt_from, uploaded
from mv3d.app.examples import find_example
from mv3d.app.flow import Update, Workshop, fault, say
from mv3d.app.masks import save_brushed, save_own
from mv3d.app.pieces import command_html, downloads_html, side_by_side
from mv3d.app.results import VISITOR_COOKIE, PageResult, Visitor
from mv3d.app.settings import SettingsForm
from mv3d.app.show import command_behind, matte_behind, show_cut_out, show_turn
from mv3d.app.work import cut_out_of
from mv3d.errors import Mv3dError
from mv3d.options import OrbitOptions

MORE_SEEDS = 3
_LENT_SECONDS = 86_400
_STAY_SECONDS = 10.0


@dataclass(frozen=True)
class Widgets:
    """The parts of the page that change."""

    picture: Any
    turn: Any
    status: Any
    tabs: Any
    mesh: Any
    downloads: Any
    command: Any
    strip: Any
    current: Any
    """The name of the result that is shown."""

    def all(self) -> list[Any]:
        """Those that an event may change."""
        return [
            *(self.picture, self.turn, self.status, self.tabs, self.mesh),
            *(self.downloads, self.command, self.strip, self.current),
        ]


@dataclass(frozen=True)
class PageHandlers:
    """Answers to what visitors do; each takes and gives values of the page's parts."""

    workshop: Workshop
    uploads: Path
    widgets: Widgets
    form: SettingsForm

    def connect(self, page: Any, examples: Any, words: Any, mesh_tab: Any, again: Any, more: Any) -> None:
        """Say who answers what; without ``words``, none are asked for."""
        w, settings = self.widgets, list(self.form.components)
        # Tasks wait in the workshop's own line, where they are seen and stopped; gradio is to begin them at once.
        shared = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": None}
        private = shared | {"api_visibility": "private"}
        page.load(self.open, None, [w.strip], **private)
        page.load(self.stay, None, None, **private)
        asked = [w.current, *settings]
        # gradio's viewer stays empty if it is given a file twice while it loads, as by a handler that streams: so it
        # gets one apart, when all is done and when its tab is opened.
        mesh = {"fn": self.show_mesh, "inputs": [w.current], "outputs": [w.mesh], **private}
        mesh_tab.select(**mesh)
        for listen, answer in (
            (w.picture.picked, self.take_upload),
            (examples.taken, self.take_example),
            (w.picture.brushed, self.take_brushed),
            (w.picture.own_mask, self.take_mask),
            (again.click, self.make_again),
        ):
            listen(answer, asked, w.all(), **private).then(**mesh)
        more.click(self.make_more, asked, w.all(), **private)
        if words is not None:
            words.submit(self.take_words, [w.current, words, *settings], w.all(), **private).then(**mesh)
        w.strip.chosen(self.choose, None, w.all(), **private).then(**mesh)
        w.status.cancelled(self.cancel, None, [w.status], **private)

    # ---------------------------------------------------------------------------------------------
    # Answers.

    def open(self, request: gr.Request) -> list[dict[str, Any]]:
        """Somebody comes, or comes back."""
        return side_by_side(self._visitor(request), None)

    async def stay(self) -> AsyncIterator[None]:
        """Lasts as long as the page is open.

        gradio ends the stream of its answers whenever none is due. What is asked while that happens is answered to
        nobody, and the page waits for ever; so one is always due.
        """
        while True:
            await asyncio.sleep(_STAY_SECONDS)
            yield None  # here gradio looks whether somebody is still there

    def take_upload(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """A picture was dropped, pasted, photographed or chosen."""
        add = lambda visitor: visitor.add(uploaded(event.path, self.uploads), str(event.name))  # noqa: E731
        yield from self._begin(add, settings, request)

    def take_example(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """One of the pictures to begin with."""
        add = lambda visitor: visitor.add(find_example(str(event.name)), f"{event.name}.png")  # noqa: E731
        yield from self._begin(add, settings, request)

    def take_words(self, request: gr.Request, current: Any, words: Any, *settings: Any) -> Any:
        """It was said what is to be seen."""

        def add(visitor: Visitor) -> PageResult:
            options = self.form.options(self.workshop, settings)
            return visitor.add_words(prompt_from(self.workshop, words, options))

        yield from self._begin(add, settings, request)

    def take_brushed(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """The cut-out was corrected with the brush."""
        yield from self._remake(current, settings, request, lambda new: save_brushed(new, str(event.mask)))

    def take_mask(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """A mask was uploaded."""
        take = lambda new: save_own(new, uploaded(event.path, self.uploads))  # noqa: E731  (as above)
        yield from self._remake(current, settings, request, take)

    def make_again(self, request: gr.Request, current: Any, *settings: Any) -> Any:
        """The same picture, with the settings as they are now."""
        yield from self._remake(current, settings, request, None)

    def make_more(self, request: gr.Request, current: Any, *settings: Any) -> Any:
        """The same picture, with the seeds that follow."""
        visitor = self._visitor(request)
        try:
            shown, options = self._shown(visitor, current), self.form.options(self.workshop, settings)
            others = [visitor.again(shown) for _ in range(MORE_SEEDS)]
        except Mv3dError as error:
            yield {self.widgets.status: fault(error)}
            return
        for update in self.workshop.vary(request.session_hash or "", shown, others, options):
            if "status" in update:
                yield {self.widgets.status: update["status"]}
            if "finished" in update:
                yield {self.widgets.strip: side_by_side(visitor, shown)}

    def choose(self, event: gr.EventData, request: gr.Request) -> Any:
        """One of the finished results is to be seen."""
        visitor = self._visitor(request)
        try:
            result = visitor.find(str(event.id))
            options = OrbitOptions(matte=matte_behind(result))
            picture = show_cut_out(result.picture.name, *cut_out_of(result, options))
        except (Mv3dError, OSError) as error:
            return {self.widgets.status: fault(error)}
        shown = {"picture": picture, "turn": show_turn(result.orbit), "status": say("idle", "")}
        return self._values(shown, visitor, result) | self._values({"finished": result}, visitor, result)

    def show_mesh(self, request: gr.Request, current: Any) -> str | None:
        """The mesh of what is shown, as a file that the browser may have; None if there is none yet."""
        try:
            mesh = self._shown(self._visitor(request), current).mesh
            return None if mesh is None else str(self._lend(mesh))
        except (Mv3dError, OSError):  # there is no picture yet
            return None

    def cancel(self, request: gr.Request) -> Any:
        """No more of this."""
        self.workshop.cancel(request.session_hash or "")
        return say("cancelled", "Cancelled")

    # ---------------------------------------------------------------------------------------------
    # What they share.

    def _begin(
        self, add: Callable[[Visitor], PageResult], settings: tuple[Any, ...], request: gr.Request
    ) -> Iterator[Any]:
        visitor = self._visitor(request)
        try:
            result = add(visitor)
        except (Mv3dError, OSError) as error:
            yield {self.widgets.status: fault(error)}
            return
        yield self._values({"turn": None, "picture": None, "unfinished": True}, visitor, result)
        yield from self._make(visitor, result, settings, request)

    def _remake(
        self,
        current: Any,
        settings: tuple[Any, ...],
        request: gr.Request,
        change: Callable[[PageResult], None] | None,
    ) -> Iterator[Any]:
        visitor = self._visitor(request)
        try:
            result = visitor.again(self._shown(visitor, current))
            if change is not None:
                change(result)
        except (Mv3dError, OSError) as error:
            yield {self.widgets.status: fault(error)}
            return
        yield self._values({"unfinished": True}, visitor, result)
        yield from self._make(visitor, result, settings, request)

    def _make(
        self, visitor: Visitor, result: PageResult, settings: tuple[Any, ...], request: gr.Request
    ) -> Iterator[Any]:
        try:
            options = self.form.options(self.workshop, settings)
        except Mv3dError as error:
            yield {self.widgets.status: fault(error)}
            return
        for update in self.workshop.make(request.session_hash or "", result, options):
            yield self._values(update, visitor, result)

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.workshop.results.visitor(request.cookies.get(VISITOR_COOKIE))

    def _shown(self, visitor: Visitor, current: Any) -> PageResult:
        if not isinstance(current, str):
            raise Mv3dError("there is no picture yet; drop one, or take an example")
        return visitor.find(current)

    def _values(self, update: Update, visitor: Visitor, result: PageResult) -> dict[Any, Any]:
        """What an update changes on the page."""
        w = self.widgets
        values = {getattr(w, key): update[key] for key in ("picture", "turn", "status") if key in update}
        if "unfinished" in update:
            values |= {
                w.current: result.name,
                w.mesh: None,
                w.downloads: "",
                w.command: "",
                w.tabs: gr.Tabs(selected="turn"),
            }
        if "finished" in update:
            values |= {
                w.current: result.name,
                w.downloads: downloads_html(visitor, result),
                w.command: command_html(command_behind(result)),
                w.strip: side_by_side(visitor, result),
            }
        return values

    def _lend(self, path: Path) -> Path:
        """A copy where gradio may serve it, by a name that nobody guesses, for a day."""
        for old in self.uploads.glob("lent-*"):
            if time.time() - old.stat().st_mtime > _LENT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        lent = self.uploads / f"lent-{secrets.token_hex(16)}" / path.name
        lent.parent.mkdir(parents=True)
        return Path(shutil.copyfile(path, lent))
