"""SVD and SV3D at their full size, with random weights: what loading, an orbit, a LoRA's step and a lift take.

    python benchmarks/full_size.py write /tmp/full                       # 4.5 and 9.2 GB; needs 0.5 GB of memory
    python benchmarks/full_size.py measure /tmp/full --out full.jsonl    # hours on a CPU; less: --views 3 --steps 1
    python benchmarks/full_size.py write /tmp/narrow --narrow            # the same files at a thousandth of the size

``svd-xt`` is a diffusers folder in half precision and ``sv3d_p.safetensors`` a single file in float32, with names and
shapes of the published ones, whose weights cannot be had without accepting their licences. Random weights show noise:
what is lifted are true views of the same size. Each part is a process of its own; a line of JSON says its command, its
peak of resident memory (``ru_maxrss``), its wall-clock and its CPU seconds. A part that is in the file already is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mv3d.cameras import static_orbit  # noqa: E402
from mv3d.orbit import Facts, Orbit, save_orbit  # noqa: E402
from tests.mv3d.blocks import TABLE, view_boxes  # noqa: E402
from tests.mv3d.sgm import SMALL, stability_shapes  # noqa: E402

SVD, SV3D = "svd-xt", "sv3d_p.safetensors"
_POOL = 2**24

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
}
CLIP: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
}
CLIP_OF_SVD: dict[str, Any] = {
    **CLIP,
    "projection_dim": 1024,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
TEXT = {"token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024)}
"""Of SV3D's file, which no network here reads."""


# -------------------------------------------------------------------------------------------------
# Weights.


def write_models(folder: Path, *, narrow: bool) -> None:
    """Write both models into a folder."""
    write_svd(folder / SVD, narrow=narrow)
    shapes = stability_shapes("SV3D_p", **SMALL) if narrow else stability_shapes("SV3D_p")
    if not narrow:
        shapes |= {f"conditioner.embedders.0.open_clip.model.{key}": shape for key, shape in TEXT.items()}
    write_weights(folder / SV3D, shapes, torch.float32)


def write_svd(folder: Path, *, narrow: bool) -> None:
    """Write SVD-xt's diffusers folder."""
    unet: dict[str, Any] = {"num_attention_heads": (5, 10, 20, 20), "num_frames": 25}
    vae: dict[str, Any] = VAE
    clip: dict[str, Any] = CLIP_OF_SVD
    if narrow:
        unet |= {"block_out_channels": (32, 64, 64, 64), "num_attention_heads": (1, 2, 2, 2), "cross_attention_dim": 32}
        vae = VAE | {"block_out_channels": (32,) * 4, "layers_per_block": 1}
        clip = CLIP_OF_SVD | {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "projection_dim": 32,
        }
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "unet": UNetSpatioTemporalConditionModel(**unet),
            "vae": AutoencoderKLTemporalDecoder(**vae),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**clip)),
        }
    for name, network in networks.items():
        stem = "model" if name == "image_encoder" else "diffusion_pytorch_model"
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        write_weights(folder / name / f"{stem}.fp16.safetensors", shapes, torch.float16)
        text = network.config.to_json_string() if name == "image_encoder" else network.to_json_string()
        (folder / name / "config.json").write_text(text)
    EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}\n')


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Write a safetensors file of random weights tensor by tensor, which the library would want all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = torch.empty((), dtype=dtype)
    save_file({"x": empty}, path)  # for the type's name in the format
    kind = json.loads(path.read_bytes()[8:].split(b"}")[0] + b"}}")["x"]["dtype"]
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + math.prod(shape) * empty.element_size()
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in random_weights(shapes):
            file.write(value.to(dtype).numpy().tobytes())


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Tensor]:
    """Weights that keep activations about as large as they are: normal ones for products, 1 and 0 for norms."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(_POOL, generator=generator)
    for key, shape in shapes.items():
        if len(shape) < 2:
            yield torch.full(shape, 0.0 if key.endswith("bias") else 1.0)
            continue
        count = math.prod(shape)
        start = int(torch.randint(max(_POOL - count, 0) + 1, (), generator=generator))
        values = pool[start : start + count] if count <= _POOL else pool.repeat(count // _POOL + 1)[:count]
        yield values.view(shape) * (count / shape[0]) ** -0.5


# -------------------------------------------------------------------------------------------------
# Measurements.


def measure(folder: Path, out: Path, *, views: int, size_px: int, steps: int, parts: list[str]) -> None:
    """Measure the parts that ``out`` does not hold yet."""
    work = folder / "work"
    orbits = work / "orbits"
    if not orbits.exists():
        write_orbit(orbits, views, size_px)
    commands = make_commands(folder, views=views, size_px=size_px, steps=steps)
    done = {json.loads(line)["part"] for line in out.read_text().splitlines()} if out.exists() else set()
    for part in parts or commands:
        if part in done:
            continue
        print(part, *commands[part], flush=True)
        found = {"part": part, "command": " ".join(map(str, commands[part])).replace(f"{folder}/", "")}
        found |= watch([sys.executable, *map(str, commands[part])], work / f"{part}.log")
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(found, flush=True)


def make_commands(folder: Path, *, views: int, size_px: int, steps: int) -> dict[str, list[str | Path]]:
    """Of each part, the words behind ``python``."""
    work = folder / "work"
    picture = work / "orbits/box/table/0/frames/000.png"
    asked = ["--num-views", str(views), "--steps", str(steps), "--keep-framing", "--overwrite"]
    loop = {"steps": 1, "batch_size": 1, "accumulate": 1, "bfloat16": False, "save_every": 1, "validate_every": 9}
    changed = {
        **{"base": folder / SVD, "data": work / "orbits", "run": work / "run", "validation_objects": 0},
        **{"num_views": views, "resolution_px": size_px, "diffusion.cache.variants": 1},
        **{f"diffusion.loop.{key}": value for key, value in loop.items()},
    }
    sets = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
    load = "import sys; from mv3d.model.loading import *; load_ready_model(sys.argv[1], 'cpu', ModelOptions())"
    return {
        "load-svd": ["-c", load, folder / SVD],
        "load-sv3d": ["-c", load, folder / SV3D],
        "lift": ["-m", "mv3d.cli", "lift", work / "orbits/box/table/0", "-o", work / "mesh.glb", "--method", "hull"],
        "orbit-sv3d": ["-m", "mv3d.cli", "orbit", picture, "-o", work / "orbit", "--model", folder / SV3D, *asked],
        "lora": ["-m", "finetune", ROOT / "configs/svd_mv_lora.yaml", *sets],
        "clip-svd": ["-m", "mv3d.cli", "orbit", picture, "-o", work / "clip", "--model", folder / SVD, *asked],
    }


def watch(command: list[str], log: Path) -> dict[str, Any]:
    """Run a command; its exit code, peak memory, wall-clock and CPU seconds."""
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }


def write_orbit(folder: Path, views: int, size_px: int) -> None:
    """Write true views of a table, and the manifest that training wants."""
    orbit = view_boxes(TABLE, static_orbit(views, 15, size_px=size_px), samples_per_side=1)
    frames = np.ascontiguousarray(orbit.frames)
    facts = Facts(input_index=0, source="box/table", licence="CC0-1.0")
    save_orbit(Orbit(frames, orbit.cameras, facts), folder / "box/table/0", for_people=False)
    line = {"object_id": "box/table", "split": "train", "orbits": 1, "licence": "CC0-1.0"}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")


def main() -> None:
    """Write or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["write", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("full_size.jsonl"))
    parser.add_argument("--views", type=int, default=21)
    parser.add_argument("--size", type=int, default=576, help="pixels, of LoRA training and lifting")
    parser.add_argument("--steps", type=int, default=2, help="of sampling")
    parser.add_argument("--parts", nargs="*", default=[])
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.work == "write":
        write_models(folder, narrow=options.narrow)
        return
    measure(folder, options.out, views=options.views, size_px=options.size, steps=options.steps, parts=options.parts)


if __name__ == "__main__":
    main()
