"""Pieces of the page's HTML."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from PIL import Image

from mv3d.app.downloads import offered
from mv3d.app.examples import find_examples
from mv3d.app.results import PageResult, Visitor
from mv3d.app.show import show_small

_STATIC = Path(__file__).with_name("static")
_SIDE_BY_SIDE = 12


def widget(name: str) -> Any:
    """A part of the page with a template and a script of its own, by their name."""
    return html_piece(None, html_template=static(f"{name}.html"), js_on_load=static(f"{name}.js"))


def html_piece(value: Any, **more: Any) -> Any:
    """A piece of HTML that looks as page.css says, and not as gradio's text."""
    return gr.HTML(value, apply_default_css=False, **({"js_on_load": None} | more))


def static(name: str) -> str:
    """A file of the page's."""
    return (_STATIC / name).read_text(encoding="utf-8")


def side_by_side(visitor: Visitor, chosen: PageResult | None) -> list[dict[str, Any]]:
    """A visitor's latest results, for the strip below."""
    return [show_small(result, chosen) for result in visitor.finished()[:_SIDE_BY_SIDE]]


def examples_html() -> str:
    """The pictures to begin with, as buttons."""
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


def downloads_html(visitor: Visitor, result: PageResult) -> str:
    """What can be taken home, as links."""
    links = [
        f'<a href="files/{visitor.name}/{result.name}/{one.key}" data-key="{one.key}" download>{one.label}</a>'
        for one in offered(result)
    ]
    return f'<div class="m-downloads">{"".join(links)}</div>'


def command_html(command: str) -> str:
    """The command that makes the same, to be copied."""
    return (
        f'<div class="m-command"><span>The same by command</span><code>{html.escape(command)}</code>'
        '<button type="button">Copy</button></div>'
    )
