"""What programs call the layers of SVD's UNet, and of Wan's transformer, in a LoRA file.

diffusers and peft write the modules' names of diffusers with dots. kohya's scripts, which train Stability AI's own
modules since SDXL, write those modules' names with underscores for dots, and ComfyUI, which runs them, reads that; of
Wan, mv3d has no such names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from mv3d.errors import Mv3dError
from mv3d.model.stability_keys import stability_unet_name, unet_name

LoraStyle = Literal["diffusers", "peft", "kohya"]

SVD_LAYERS_PER_BLOCK = 2
_PREFIXES = ("unet.", "transformer.", "base_model.model.", "diffusion_model.", "lora_unet_")
_KOHYA = "lora_unet_"
_HALVES = {
    "down": (".lora_A.weight", ".lora_down.weight", ".lora.down.weight"),
    "up": (".lora_B.weight", ".lora_up.weight", ".lora.up.weight"),
    "alpha": (".alpha",),
}
_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "input_blocks", "middle_block", "output_blocks", "time_stack"),
    *("transformer_blocks", "temporal_transformer_blocks", "spatial_res_block", "temporal_res_block", "time_pos_embed"),
    *("linear_1", "linear_2", "to_q", "to_k", "to_v", "to_out", "ff_in", "proj_in", "proj_out", "time_emb_proj"),
    *("conv_shortcut", "conv_in", "conv_out", "add_embedding", "time_embedding", "time_embed", "label_emb"),
    *("in_layers", "out_layers", "emb_layers", "skip_connection", "norm_in", "conv_norm_out"),
)
"""Those with an underscore of their own."""
_WORD = re.compile("|".join([*sorted(_WORDS, key=len, reverse=True), "[a-z0-9]+"]))
_STABILITY = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")


def of_wan(modules: Iterable[str]) -> bool:
    """Whether these are modules of Wan's transformer, and not of SVD's UNet."""
    return any(name.startswith("blocks.") for name in modules)


def part_of_pipeline(modules: Iterable[str]) -> str:
    """What diffusers' pipeline calls the network whose modules they are."""
    return "transformer" if of_wan(modules) else "unet"


def split_key(key: str) -> tuple[str, str] | None:
    """The module of diffusers' network that a tensor in a LoRA file is for, and which part it is: down, up or alpha.

    None for a tensor that is no part of a LoRA.
    """
    prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
    name = key.removeprefix(prefix)
    for part, ends in _HALVES.items():
        for end in ends:
            if name.endswith(end):
                module = _module(name.removesuffix(end), flat=prefix == _KOHYA)
                return None if module is None else (module, part)
    return None


def _module(name: str, *, flat: bool) -> str | None:
    if flat:
        words = _WORD.findall(name)
        if "_".join(words) != name:
            return None
        name = ".".join(words)
    if not name.startswith(_STABILITY):
        return name
    found = unet_name(f"{name}.weight", SVD_LAYERS_PER_BLOCK)
    return found.removesuffix(".weight") if found else None


def make_key(module: str, part: str, style: LoraStyle) -> str:
    """The name of a part (down, up, alpha) of a module's LoRA in a file of some style.

    Raises:
        Mv3dError: for a module that Stability AI's UNet does not have, such as all of Wan's, in kohya's style.
    """
    if style != "kohya":
        prefix = part_of_pipeline([module]) if style == "diffusers" else "base_model.model"
        return f"{prefix}.{module}{_HALVES[part][0]}"
    name = stability_unet_name(f"{module}.weight", SVD_LAYERS_PER_BLOCK)
    if name is None:
        raise Mv3dError(
            f"kohya's style has names for the layers of SVD's UNet alone, and {module} is none; "
            "write diffusers' or peft's instead"
        )
    end = _HALVES[part][-1 if part == "alpha" else 1]
    return f"{_KOHYA}{name.removesuffix('.weight').replace('.', '_')}{end}"
