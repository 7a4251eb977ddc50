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
    "elevation": "degrees looked down",
    "num_views": "in one turn",
    "steps": "of sampling",
    "guidance": "how closely it follows the picture",
    "matte": "how it is cut out",
    "faces": "of the mesh, at most",
    "texture_size": "pixels of its sides",
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

    def number(name: str) -> None:
        made[name] = gr.Number(defaults[name], precision=0, label=name, info=_HELP[name], elem_id=f"m-{name}")

    def maybe(name: str, placeholder: str) -> None:  # a gr.Number cannot be empty: it becomes 0 once it is seen
        made[name] = gr.Textbox(
            "", label=name, info=_HELP[name], placeholder=placeholder, max_lines=1, elem_id=f"m-{name}"
        )

    with gr.Row():
        number("seed")
        number("num_views")
    with gr.Row():
        maybe("elevation", "auto")
        made["matte"] = gr.Dropdown(list(get_args(Matte)), value="auto", label="matte", info=_HELP["matte"])
    model = workshop.models[0]
    if len(workshop.models) > 1:
        made["model"] = gr.Dropdown(list(workshop.models), value=model, label="model")
    for k, lora in enumerate(workshop.loras):
        path = Path(lora)
        called = path.parent.name if path.stem == "pytorch_lora_weights" else path.stem
        made[f"lora {k}"] = gr.Slider(
            -2,
            2,
            0,
            step=0.05,
            label=f"lora {called}",
            info="0 not at all, 1 as trained",
            visible=(model, lora) not in workshop.unfit,
            elem_id=f"m-lora-{k}",
        )
    if workshop.unfit:  # a slider is there where the chosen model takes it
        sliders = [made[f"lora {k}"] for k in range(len(workshop.loras))]
        made["model"].change(
            lambda model: [gr.Slider(visible=(model, lora) not in workshop.unfit) for lora in workshop.loras],
            made["model"],
            sliders,
            show_progress="hidden",
            api_visibility="private",
        )
    with gr.Row():
        maybe("steps", "the model's own")
        maybe("guidance", "the model's own")
    with gr.Row():
        number("faces")
        number("texture_size")
    return SettingsForm(tuple(made), tuple(made.values()))
