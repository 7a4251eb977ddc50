"""A folder of meshes to a LoRA of the bundled model: rendered, trained, and used.

python examples/04_train_a_lora.py MESHES --out runs/my_style --minutes 30

MESHES is what ``python -m render list`` lists: files, libraries, folders of them. The same commands, at other sizes,
fine-tune Stable Video Diffusion (configs/svd_mv_lora.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import finetune.__main__ as finetune
import render.__main__ as render

CONFIG = Path(__file__).parents[1] / "configs" / "mini_lora.yaml"


def main(
    meshes: Annotated[Path, tyro.conf.Positional], out: Path = Path("runs/my_style"), minutes: float = 30.0
) -> None:
    """Render orbits of the meshes and train on them for so long; run it again to go on."""
    orbits, run = out / "orbits", out / "run"
    words = ["orbits", str(meshes), "--out", str(orbits), "--size", "256", "--licence", "own"]
    if render.main(words):
        raise SystemExit("nothing was rendered")
    settings = [f"data={orbits}", f"run={run}", "category=null", "validation_objects=0"]
    words = [str(CONFIG), *(word for setting in settings for word in ("--set", setting)), "--minutes", f"{minutes:g}"]
    if finetune.main(words):
        raise SystemExit("training failed")
    print(f"use it: mv3d orbit PICTURE --lora {run / 'lora'}")


if __name__ == "__main__":
    tyro.cli(main)
