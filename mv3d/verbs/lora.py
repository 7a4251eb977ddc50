"""``mv3d lora``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError
from mv3d.files import check_free
from mv3d.model.lora_names import LoraStyle


@dataclass(frozen=True)
class LoraVerb:
    """Write a LoRA of SVD or Wan in the style of another program: diffusers, peft, kohya's scripts and ComfyUI."""

    action: Annotated[Literal["convert"], tyro.conf.Positional]
    """What to do."""
    lora: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LORA")]
    """The file, or a folder of diffusers or peft with it; its style is seen by its keys."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The new .safetensors file; of peft's style a folder."""
    to: LoraStyle
    """The style to write; kohya's is what ComfyUI reads."""
    overwrite: bool = False
    """Replace what is there."""
    verbose: Verbose = False

    def run(self) -> int:
        """Convert; returns the exit code."""
        if (self.out.suffix == ".safetensors") == (self.to == "peft"):
            wanted = "a folder; leave .safetensors out" if self.to == "peft" else "a file; name it .safetensors"
            raise Mv3dError(f"{self.out}: a LoRA in {self.to} style is {wanted}", argument="out")
        check_free(self.out, overwrite=self.overwrite)
        from mv3d.model.lora_file import find_lora, read_lora, write_lora

        path = find_lora(self.lora)
        if not path.is_file():
            raise Mv3dError(f"there is no file {path}")
        lora = read_lora(path)
        write_lora(lora, self.out, self.to, overwrite=self.overwrite)
        rank, alpha = lora.usual()
        more = "" if lora.pose is None or self.to == "diffusers" else "; its pose part is kept, which mv3d alone reads"
        print(f"{self.out}: {len(lora.layers)} layers, mostly of rank {rank} and alpha {alpha:g}{more}")
        return 0
