"""A LoRA before and after: orbits of held-out objects of one category, by the base alone and with the LoRA.

    python -m benchmarks.lora runs/mini_lora/lora data/orbits-0ad --category structures/han --out runs/mini_lora/test

Writes orbit folders below ``truth/``, ``before/`` and ``after/``, for ``python -m eval score``, and ``sheet.jpg``: the
picture, then three views as they are, before and after. Orbits that are there are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from finetune.data import begun_at, load_frames
from mv3d.dataset import list_orbits
from mv3d.files import whole_file
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model
from mv3d.model.lora import parse_lora, with_loras
from mv3d.model.lora_file import read_lora
from mv3d.orbit import Facts, Orbit, load_orbit, save_orbit
from mv3d.pixels import composite, to_uint8

_SHOWN = (4, 10, 15)  # right, back, left of 21
_HEADER_PX = 20


def main() -> None:
    """Make the orbits, and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lora", help="a LoRA file, or its folder")
    parser.add_argument("data", type=Path, help="a folder of rendered orbits")
    parser.add_argument("--category", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    use = parse_lora(options.lora)
    facts = read_lora(use.path).facts
    if facts is None:
        parser.error(f"{use.path} does not say which model it was trained on; only mv3d's own do")
    base = facts.base
    entries = [entry for entry in list_orbits([options.data], options.category).orbits if entry.split == options.split]
    names = [entry.object_id.replace("/", "_") for entry in entries]
    for side in ("before", "after"):
        model = load_model(base, torch.device("cpu"))
        model = with_loras(model, [use]) if side == "after" else model
        size_px, count = model.output_px, model.facts.num_views
        for entry, name in zip(entries, names, strict=True):
            truth = begun_at(load_frames(entry, size_px), 0, count)
            frames = truth.rgba.permute(0, 2, 3, 1).numpy()
            facts = Facts(input_index=0, source=entry.object_id)
            if not (options.out / "truth" / name).exists():
                save_orbit(Orbit(frames, truth.cameras, facts), options.out / "truth" / name, for_people=False)
            if not (options.out / side / name).exists():
                settings = GenerateSettings(num_views=count, elevation_deg=truth.cameras[0].elevation_deg)
                orbit = generate_orbit(frames[0], model, settings)
                save_orbit(orbit, options.out / side / name, for_people=False)
    _sheet(options.out, names)


def _sheet(out: Path, names: list[str]) -> None:
    sides = ("truth", "before", "after")
    rows = []
    for name in names:
        truth, before, after = (composite(load_orbit(out / side / name).frames) for side in sides)
        shown = [truth[0], *(views[k] for k in _SHOWN for views in (truth, before, after))]
        rows.append(np.concatenate(shown, axis=1))
    picture = np.concatenate(rows, axis=0)
    size_px = picture.shape[1] // (1 + 3 * len(_SHOWN))
    sheet = Image.new("RGB", (picture.shape[1], picture.shape[0] + _HEADER_PX), "white")
    sheet.paste(Image.fromarray(to_uint8(picture)), (0, _HEADER_PX))
    draw = ImageDraw.Draw(sheet)
    for k, title in enumerate(["picture", *(sides * len(_SHOWN))]):
        draw.text((k * size_px + 8, 4), title, fill="black")
    with whole_file(out / "sheet.jpg") as partial:
        sheet.save(partial, quality=80, optimize=True)


if __name__ == "__main__":
    main()
