"""SVD and SV3D at their full size, with random weights: what loading, an orbit, a LoRA's step and a lift take.

    python benchmarks/full_size.py write /tmp/full                       # 4.5 and 9.4 GB; needs 0.5 GB of memory
    python benchmarks/full_size.py measure /tmp/full --out full.jsonl    # hours on a CPU; less: --views 3 --steps 1
    python benchmarks/full_size.py measure /tmp/full --parts pass-sv3d decode-svd
    python benchmarks/full_size.py write /tmp/narrow --narrow            # the same files at a thousandth of the size

Random weights show noise: what is lifted are true views of the same size. Each part is a process of its own, so parts
can be measured one by one; a line of JSON says its command, its peak of resident memory, its wall-clock and its CPU
seconds. A part that is in the file already, measured by the same command, is not measured again.

``pass-…`` is one estimate of the UNet, of which a guided step takes two, and ``decode-…`` all frames of a clip: the two
pieces that an orbit's time and peak are made of, for machines on which a whole one takes hours.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.random_weights import SV3D, SVD, write_models  # noqa: E402
from benchmarks.usage import watch  # noqa: E402
from mv3d.cameras import static_orbit  # noqa: E402
from mv3d.errors import Mv3dError  # noqa: E402
from mv3d.model.checkpoints import OrbitModel  # noqa: E402
from mv3d.model.conditioning import Conditions, poses_of  # noqa: E402
from mv3d.model.decoding import decode_clip  # noqa: E402
from mv3d.model.denoiser import Denoiser  # noqa: E402
from mv3d.model.loading import load_ready_model  # noqa: E402
from mv3d.model_options import ModelOptions  # noqa: E402
from mv3d.orbit import Facts, Orbit, save_orbit  # noqa: E402
from tests.mv3d.blocks import TABLE, view_boxes  # noqa: E402


def measure(folder: Path, out: Path, *, views: int, size_px: int, steps: int, parts: list[str]) -> None:
    """Measure the parts that ``out`` does not hold yet, each a line of it.

    Raises:
        Mv3dError: for a part that there is not.
    """
    work = folder / "work"
    orbits = work / f"orbits-{views}-{size_px}"
    if not orbits.exists():
        write_orbit(orbits, views, size_px)
    commands = make_commands(folder, orbits, views=views, size_px=size_px, steps=steps)
    unknown = [part for part in parts if part not in commands]
    if unknown:
        raise Mv3dError(f"there is no part {unknown[0]}; there are {', '.join(commands)}", argument="parts")
    lines = out.read_text().splitlines() if out.exists() else []
    done = [(line["part"], line["command"]) for line in map(json.loads, lines) if not line["exit"]]
    for part in parts or commands:
        command = " ".join(map(str, commands[part])).replace(f"{folder}/", "").replace(f"{ROOT}/", "")
        if (part, command) in done:
            continue
        print(part, command, flush=True)
        found = {"part": part, "command": command}
        found |= watch([sys.executable, *map(str, commands[part])], work / f"{part}.log", ROOT)
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(found, flush=True)


def make_commands(folder: Path, orbits: Path, *, views: int, size_px: int, steps: int) -> dict[str, list[str | Path]]:
    """Of each part, the words behind ``python``."""
    work, orbit = folder / "work", orbits / "box/table/0"
    picture = orbit / "frames/000.png"
    asked = ["--num-views", str(views), "--steps", str(steps), "--keep-framing", "--overwrite"]
    loop = {"steps": 1, "batch_size": 1, "accumulate": 1, "bfloat16": False, "save_every": 1, "validate_every": 9}
    changed = {
        **{"base": folder / SVD, "data": orbits, "run": work / f"run-{views}-{size_px}", "validation_objects": 0},
        **{"num_views": views, "resolution_px": size_px, "diffusion.cache.variants": 1},
        **{"diffusion.lora.base_storage": "float32"},  # others multiply in bfloat16, for which a CPU may take tenfold
        **{f"diffusion.loop.{key}": value for key, value in loop.items()},
    }
    sets = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
    sized = ["--views", str(views), "--size", str(size_px)]
    own = "benchmarks/full_size.py"
    return {
        "load-svd": [own, "load", folder / SVD],
        "load-sv3d": [own, "load", folder / SV3D],
        "lift": ["-m", "mv3d.cli", "lift", orbit, "-o", work / "mesh.glb", "--method", "hull"],
        "pass-sv3d": [own, "pass", folder / SV3D, *sized],
        "pass-svd": [own, "pass", folder / SVD, *sized],
        "decode-sv3d": [own, "decode", folder / SV3D, *sized],
        "decode-svd": [own, "decode", folder / SVD, *sized],
        "lora": ["-m", "finetune", ROOT / "configs/svd_mv_lora.yaml", *sets],
        "orbit-sv3d": ["-m", "mv3d.cli", "orbit", picture, "-o", work / "orbit", "--model", folder / SV3D, *asked],
        "clip-svd": ["-m", "mv3d.cli", "orbit", picture, "-o", work / "clip", "--model", folder / SVD, *asked],
    }


def write_orbit(folder: Path, views: int, size_px: int) -> None:
    """Write true views of a table, and the manifest that training wants."""
    orbit = view_boxes(TABLE, static_orbit(views, 15, size_px=size_px), samples_per_side=1)
    frames = np.ascontiguousarray(orbit.frames)
    facts = Facts(input_index=0, source="box/table", licence="CC0-1.0")
    save_orbit(Orbit(frames, orbit.cameras, facts), folder / "box/table/0", for_people=False)
    line = {"object_id": "box/table", "split": "train", "orbits": 1, "licence": "CC0-1.0"}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")


# -------------------------------------------------------------------------------------------------
# Pieces of an orbit.


@torch.no_grad()
def work_piece(piece: str, name: Path, views: int, size_px: int) -> None:
    """Load a model, and estimate a clip once, or decode one; raises `Mv3dError` for frames that are not finite."""
    model = load_ready_model(str(name), "cpu", ModelOptions())
    assert isinstance(model, OrbitModel), "SVD or SV3D"
    generator = torch.Generator().manual_seed(0)
    side = size_px // 2 ** (len(model.vae.config["block_out_channels"]) - 1)
    clip = torch.randn(1, views, model.vae.config["latent_channels"], side, side, generator=generator)
    if piece == "pass":
        conditions = Conditions(
            image_latents=clip[:, 0],
            image_embedding=torch.randn(1, 1, model.unet.config["cross_attention_dim"], generator=generator),
            added_time_ids=torch.tensor([model.facts.added_time_ids]),
            poses=poses_of(static_orbit(views, 15, size_px=size_px))[None]
            if model.unet.config["pose_embed_dim"]
            else None,
        )
        sigma = model.facts.sigma_max
        estimate = Denoiser(model.unet)(sigma * clip, torch.tensor([sigma]), conditions)
        if not bool(estimate.isfinite().all()):
            raise Mv3dError(f"the UNet of {name} overflows")
    if piece == "decode":
        decode_clip(model.vae, clip[0])


def main() -> None:
    """Write, measure, or do one of the pieces that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["write", "measure", "load", "pass", "decode"])
    parser.add_argument("folder", type=Path, help="of both models; load, pass and decode: a model")
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--models", nargs="*", default=[SVD, SV3D], choices=[SVD, SV3D], help="that are written")
    parser.add_argument("--out", type=Path, default=Path("full_size.jsonl"))
    parser.add_argument("--views", type=int, default=21)
    parser.add_argument("--size", type=int, default=576, help="pixels; of whole orbits and clips it is the model's own")
    parser.add_argument("--steps", type=int, default=2, help="of sampling")
    parser.add_argument("--parts", nargs="*", default=[], help="that are measured; all if none is named")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.work == "write":
        write_models(folder, options.models, narrow=options.narrow)
    elif options.work == "measure":
        chosen = {"parts": options.parts, "views": options.views, "size_px": options.size, "steps": options.steps}
        measure(folder, options.out, **chosen)
    else:
        work_piece(options.work, folder, options.views, options.size)


if __name__ == "__main__":
    main()
