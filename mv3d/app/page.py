"""The page itself: what is where on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

import mv3d
from mv3d.app.flow import Workshop
from mv3d.app.handlers import MORE_SEEDS, PageHandlers, Widgets
from mv3d.app.pieces import examples_html, html_piece, static, widget
from mv3d.app.settings import make_settings


def build_page(workshop: Workshop, uploads: Path) -> Any:
    """The page, as gradio's Blocks.

    Args:
        workshop: what all visitors share.
        uploads: where gradio puts what is uploaded, and what it serves.
    """
    with gr.Blocks(title="mv3d", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        what = "picture to turntable to mesh"
        html_piece(f'<div class="m-head"><h1>mv3d</h1><p>{what}</p><i>{mv3d.__version__}</i></div>')
        with gr.Row(elem_classes="m-columns"):
            with gr.Column(scale=4, min_width=300):
                picture = widget("picture")
                examples = html_piece(examples_html(), js_on_load=static("examples.js"))
                words = None
                if workshop.text_model is not None:
                    words = gr.Textbox(
                        show_label=False,
                        placeholder="or say what is to be seen: a red teapot",
                        max_lines=3,
                        submit_btn=True,
                        elem_id="m-words",
                    )
                with gr.Accordion("Settings", open=False):
                    form = make_settings(workshop)
                with gr.Row(elem_classes="m-buttons"):
                    again = gr.Button("Make it again", size="md")
                    more = gr.Button(f"{MORE_SEEDS} more seeds", size="md")
            with gr.Column(scale=7, min_width=320):
                with gr.Tabs(selected="turn", elem_classes="m-tabs") as tabs:
                    with gr.Tab("Turntable", id="turn"):
                        turn = widget("turntable")
                    with gr.Tab("Mesh", id="mesh") as mesh_tab:
                        mesh = gr.Model3D(
                            show_label=False, container=False, height=520, interactive=False, elem_classes="m-mesh"
                        )
                status = widget("status")
                downloads = html_piece("")
                strip = widget("strip")
                command = html_piece("", js_on_load=static("command.js"))
        current = gr.State(None)
        widgets = Widgets(picture, turn, status, tabs, mesh, downloads, command, strip, current)
        handlers = PageHandlers(workshop, uploads, widgets, form)
        handlers.connect(page, examples, words, mesh_tab, again, more)
    return page
