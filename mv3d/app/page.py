"""The page itself: what is where on it, and which function answers what a visitor does."""

from __future__ import annotations

import base64
import html
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from PIL import Image

import mv3d
from mv3d.app.asking import uploaded
from mv3d.app.downloads import offered
from mv3d.app.examples import find_example, find_examples
from mv3d.app.flow import Update, Workshop, fault, say
from mv3d.app.masks import save_brushed, save_own
from mv3d.app.results import VISITOR_COOKIE, PageResult, Visitor
from mv3d.app.settings import SettingsForm, make_settings
from mv3d.app.show import command_behind, matte_behind, show_cut_out, show_small, show_turn
from mv3d.app.work import cut_out_of
from mv3d.errors import Mv3dError
from mv3d.options import OrbitOptions

_STATIC = Path(__file__).with_name("static")
_SIDE_BY_SIDE = 12
_MORE_SEEDS = 3
_LENT_SECONDS = 86_400


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


def build_page(workshop: Workshop, uploads: Path) -> Any:
    """The page, as gradio's Blocks.

    Args:
        workshop: what all visitors share.
        uploads: where gradio puts what is uploaded, and what it serves.
    """
    with gr.Blocks(title="mv3d", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        _html(f'<div class="m-head"><h1>mv3d</h1><p>picture to turntable to mesh</p><i>{mv3d.__version__}</i></div>')
        with gr.Row(elem_classes="m-columns"):
            with gr.Column(scale=4, min_width=300):
                picture = _widget("picture")
                examples = _html(_examples_html(), js_on_load=_static("examples.js"))
                with gr.Accordion("Settings", open=False):
                    form = make_settings(workshop)
                with gr.Row(elem_classes="m-buttons"):
                    again = gr.Button("Make it again", size="md")
                    more = gr.Button(f"{_MORE_SEEDS} more seeds", size="md")
            with gr.Column(scale=7, min_width=320):
                with gr.Tabs(selected="turn", elem_classes="m-tabs") as tabs:
                    with gr.Tab("Turntable", id="turn"):
                        turn = _widget("turntable")
                    with gr.Tab("Mesh", id="mesh"):
                        mesh = gr.Model3D(
                            show_label=False, container=False, height=520, interactive=False, elem_classes="m-mesh"
                        )
                status = _widget("status")
                downloads = _html("")
                strip = _widget("strip")
                command = _html("", js_on_load=_static("command.js"))
        current = gr.State(None)
        widgets = Widgets(picture, turn, status, tabs, mesh, downloads, command, strip, current)
        handlers = PageHandlers(workshop, uploads, widgets, form)
        handlers.connect(page, examples, again, more)
    return page


@dataclass(frozen=True)
class PageHandlers:
    """Answers to what visitors do; each takes and gives values of the page's parts."""

    workshop: Workshop
    uploads: Path
    widgets: Widgets
    form: SettingsForm

    def connect(self, page: Any, examples: Any, again: Any, more: Any) -> None:
        """Say who answers what."""
        w, settings = self.widgets, list(self.form.components)
        # Tasks wait in the workshop's own line, where they are seen and stopped; gradio is to begin them at once.
        shared = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": None}
        private = shared | {"api_visibility": "private"}
        page.load(self.open, None, [w.strip], **private)
        asked = [w.current, *settings]
        for listen, answer in (
            (w.picture.picked, self.take_upload),
            (examples.taken, self.take_example),
            (w.picture.brushed, self.take_brushed),
            (w.picture.own_mask, self.take_mask),
            (again.click, self.make_again),
            (more.click, self.make_more),
        ):
            listen(answer, asked, w.all(), **private)
        w.strip.chosen(self.choose, None, w.all(), **private)
        w.status.cancelled(self.cancel, None, [w.status], **private)

    # ---------------------------------------------------------------------------------------------
    # Answers.

    def open(self, request: gr.Request) -> list[dict[str, Any]]:
        """Somebody comes, or comes back."""
        return _side_by_side(self._visitor(request), None)

    def take_upload(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """A picture was dropped, pasted, photographed or chosen."""
        path = lambda: uploaded(event.path, self.uploads)  # noqa: E731  (it may raise, and that is to be shown)
        yield from self._begin(path, str(event.name), settings, request)

    def take_example(self, event: gr.EventData, request: gr.Request, current: Any, *settings: Any) -> Any:
        """One of the pictures to begin with."""
        yield from self._begin(lambda: find_example(str(event.name)), f"{event.name}.png", settings, request)

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
            others = [visitor.again(shown) for _ in range(_MORE_SEEDS)]
        except Mv3dError as error:
            yield {self.widgets.status: fault(error)}
            return
        for update in self.workshop.vary(request.session_hash or "", shown, others, options):
            if "status" in update:
                yield {self.widgets.status: update["status"]}
            if "finished" in update:
                yield {self.widgets.strip: _side_by_side(visitor, shown)}

    def choose(self, event: gr.EventData, request: gr.Request) -> Any:
        """One of the finished results is to be seen."""
        visitor = self._visitor(request)
        try:
            result = visitor.find(str(event.id))
            options = OrbitOptions(matte=matte_behind(result))
            picture = show_cut_out(result.picture.name, *cut_out_of(result, options))
        except (Mv3dError, OSError) as error:
            return {self.widgets.status: fault(error)}
        shown = {"picture": picture, "turn": show_turn(result.orbit, "views"), "status": say("idle", "")}
        return self._values(shown, visitor, result) | self._values({"finished": result}, visitor, result)

    def cancel(self, request: gr.Request) -> Any:
        """No more of this."""
        self.workshop.cancel(request.session_hash or "")
        return say("cancelled", "Cancelled")

    # ---------------------------------------------------------------------------------------------
    # What they share.

    def _begin(
        self, path: Callable[[], Path], called: str, settings: tuple[Any, ...], request: gr.Request
    ) -> Iterator[Any]:
        visitor = self._visitor(request)
        try:
            result = visitor.add(path(), called)
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
                w.mesh: None if result.mesh is None else str(self._lend(result.mesh)),
                w.downloads: _downloads_html(visitor, result),
                w.command: _command_html(command_behind(result)),
                w.strip: _side_by_side(visitor, result),
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


# -------------------------------------------------------------------------------------------------
# Pieces of HTML.


def _widget(name: str) -> Any:
    return _html(None, html_template=_static(f"{name}.html"), js_on_load=_static(f"{name}.js"))


def _html(value: Any, **more: Any) -> Any:
    """A piece of HTML that looks as page.css says, and not as gradio's text."""
    return gr.HTML(value, apply_default_css=False, **({"js_on_load": None} | more))


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _side_by_side(visitor: Visitor, chosen: PageResult | None) -> list[dict[str, Any]]:
    return [show_small(result, chosen) for result in visitor.finished()[:_SIDE_BY_SIDE]]


def _examples_html() -> str:
    cards = []
    for name, path in find_examples().items():
        with Image.open(path) as picture:
            small = picture.convert("RGBA")
        small.thumbnail((96, 96))
        data = BytesIO()
        small.save(data, "WEBP", quality=85)
        url = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
        cards.append(f'<button type="button" data-name="{name}" title="{name}"><img src="{url}" alt="{name}"></button>')
    return f'<div class="m-examples">{"".join(cards)}</div>' if cards else ""


def _downloads_html(visitor: Visitor, result: PageResult) -> str:
    links = [
        f'<a href="files/{visitor.name}/{result.name}/{one.key}" data-key="{one.key}" download>{one.label}</a>'
        for one in offered(result)
    ]
    return f'<div class="m-downloads">{"".join(links)}</div>'


def _command_html(command: str) -> str:
    return (
        f'<div class="m-command"><span>The same by command</span><code>{html.escape(command)}</code>'
        '<button type="button">Copy</button></div>'
    )
