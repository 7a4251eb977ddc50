"""The settings of the page: the options of ``mv3d orbit`` by their own names, each with something to set it by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import gradio as gr  # pyright: ignore[reportMissingImports]

from mv3d.app.asking import options_from
from mv3d.app.flow import Workshop
from mv3d.options import Matte, OrbitOptions

_HELP = {
    "seed": "same seed, same pixels",
    "elevation": "degrees the camera looks down",
    "num_views": "in one turn",
    "steps": "sampling steps; empty: the model's own",
    "guidance": "empty: the model's own",
    "matte": "how the object is cut out",
    "faces": "triangles of the mesh at most",
    "texture_size": "pixels",
}


@dataclass(frozen=True)
class SettingsForm:
    """What is set by whom: the names of options, and their components in the same order."""

    names: tuple[str, ...]
    components: tuple[Any, ...]

    def options(self, workshop: Workshop, values: tuple[Any, ...]) -> OrbitOptions:
        """The options that the components' values ask for.

        Raises:
            Mv3dError: if a value is no number, or names what is not offered here.
        """
        asked = dict(zip(self.names, values, strict=True))
        scales = [asked.pop(f"lora {k}") for k in range(len(workshop.loras))]
        return options_from(workshop, asked, scales)


def make_settings(workshop: Workshop) -> SettingsForm:
    """Put the settings where the page is being built."""
    defaults = {field.name: field.default for field in fields(OrbitOptions)}
    made: dict[str, Any] = {}

    def number(name: str, **more: Any) -> None:
        made[name] = gr.Number(defaults[name], precision=0, label=name, info=_HELP[name], **more)

    with gr.Row():
        number("seed", minimum=0)
        number("num_views", minimum=2, maximum=200)
    # No value is auto, as on the command line.
    made["elevation"] = gr.Number(None, label="elevation", info=_HELP["elevation"], placeholder="auto")
    if len(workshop.models) > 1:
        made["model"] = gr.Dropdown(list(workshop.models), value=workshop.models[0], label="model")
    for k, lora in enumerate(workshop.loras):
        path = Path(lora)
        called = path.parent.name if path.stem == "pytorch_lora_weights" else path.stem
        made[f"lora {k}"] = gr.Slider(-2, 2, 0, step=0.05, label=f"lora {called}", info="0 not at all, 1 as trained")
    with gr.Row():
        made["matte"] = gr.Dropdown(list(get_args(Matte)), value="auto", label="matte", info=_HELP["matte"])
        made["guidance"] = gr.Number(None, label="guidance", info=_HELP["guidance"])
    with gr.Row():
        number("steps", minimum=1)
        number("faces", minimum=100)
        number("texture_size", minimum=64, maximum=4096)
    return SettingsForm(tuple(made), tuple(made.values()))
