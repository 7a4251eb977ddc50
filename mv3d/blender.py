"""Blender in a process of its own: it wants another numpy than we do, and its licence is the GPL.

``python -m mv3d.blender install [DIR]`` makes an environment with Blender as a Python module (about 1 GB) in
``.blender``. Any Blender from 4.2 on works as well: put it on the PATH, or name it (or a Python that imports bpy) in
the environment variable MV3D_BLENDER. What happens inside Blender is in blender_worker.py (pictures of a mesh file) and
blender_scene.py (a .blend).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mv3d.cameras import Array, Camera
from mv3d.conventions import to_blender
from mv3d.errors import Mv3dError
from mv3d.orbit import Frames, from_uint8

_WORKER = Path(__file__).with_name("blender_worker.py")
_ENVIRONMENT = Path(".blender")
_PYTHON = Path("Scripts/python.exe") if os.name == "nt" else Path("bin/python")
_REQUIREMENTS = ("bpy==4.5.*", "numpy<2")  # the long-term release; its wheels are for Python 3.11 only
_BPY_PYTHON = (3, 11)
_INSTALL_HINT = "run `python -m mv3d.blender install`, put blender on the PATH, or name it in MV3D_BLENDER"


@dataclass(frozen=True)
class RenderSettings:
    """How Blender's Cycles renders."""

    shading: Literal["flat", "lit"] = "flat"
    """``flat`` shows base colours as they are; ``lit`` the materials as imported, under a sun and a white sky."""
    samples: int = 16
    """Rays per pixel."""
    placement: Array | None = None
    """World-from-imported, (4, 4): moves, turns and scales what the importer has put into the world."""
    srgb_factors: bool = False
    """Material colours that stand in the file as numbers are sRGB, not linear light, for which Blender takes them."""
    lights: Mapping[str, Any] | None = None
    """For ``lit``: ``sky`` and ``ground`` (radiance from above and below), ``directions`` towards lamps (L, 3), their
    ``strengths``; or ``environment``, a picture all around, and its ``turn_deg``. A sun and a white sky if None."""
    threads: int = 0
    """0: one per core."""
    gpu: bool = False
    """Render on the first kind of GPU that Blender finds, else on the CPU."""


def find_blender(script: Path = _WORKER) -> list[str] | None:
    """Find the command that runs a Python script in Blender; the script's arguments go at the end."""
    named = os.environ.get("MV3D_BLENDER")
    if named:
        if shutil.which(named) is None:
            raise Mv3dError(f"MV3D_BLENDER={named} is no program; name a blender, or a python that imports bpy")
        return _command(named, script)
    for folder in (Path.cwd(), Path(__file__).parents[1]):
        if (folder / _ENVIRONMENT / _PYTHON).is_file():
            return _command(str(folder / _ENVIRONMENT / _PYTHON), script)
    on_path = shutil.which("blender")
    return _command(on_path, script) if on_path else None


def render_in_blender(
    mesh_path: Path, cameras: Sequence[Camera], settings: RenderSettings = RenderSettings()
) -> Frames:
    """Import a mesh file into Blender and render it; returns (N, height, width, 4) sRGB with straight alpha.

    The file stands where Blender's importer puts it: its world and ours are the same.

    Raises:
        Mv3dError: if there is no Blender, or it fails; the message ends with the tail of its log.
    """
    with tempfile.TemporaryDirectory(prefix="mv3d-blender-") as folder:
        job = {
            "mesh": str(mesh_path.resolve()),
            "cameras": [to_blender(camera) for camera in cameras],
            "shading": settings.shading,
            "samples": settings.samples,
            "placement": None if settings.placement is None else settings.placement.tolist(),
            "srgb_factors": settings.srgb_factors,
            "lights": None if settings.lights is None else dict(settings.lights),
            "threads": settings.threads,
            "gpu": settings.gpu,
            "out": folder,
        }
        run_in_blender(_WORKER, job, Path(folder))
        return np.stack([_load_rgba(Path(folder) / f"{k:03d}.png") for k in range(len(cameras))])


def install(folder: Path = _ENVIRONMENT) -> None:
    """Make the virtual environment with Blender as a module; a failed one is removed.

    Raises:
        Mv3dError: if the folder exists, no Python of the right version is there, or a step fails.
    """
    if folder.exists():
        raise Mv3dError(f"{folder} exists already; remove it first, or name another folder")
    wanted = ".".join(map(str, _BPY_PYTHON))
    python = sys.executable if sys.version_info[:2] == _BPY_PYTHON else shutil.which(f"python{wanted}")
    if python is None:
        raise Mv3dError(f"Blender as a module needs Python {wanted}: install that, or Blender itself (on the PATH)")
    inside = str(folder / _PYTHON)
    steps = (
        [python, "-m", "venv", str(folder)],
        [inside, "-m", "pip", "install", *_REQUIREMENTS],
        [inside, "-c", "import bpy; print('Blender', bpy.app.version_string, 'is ready')"],
    )
    for step in steps:
        if subprocess.run(step).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise Mv3dError(f"making {folder} failed at: {' '.join(step)}")


def _command(program: str, script: Path) -> list[str]:
    if Path(program).name.lower().startswith("blender"):
        return [program, "--background", "--factory-startup", "--python-exit-code", "1", "--python", str(script), "--"]
    return [program, str(script)]


def run_in_blender(script: Path, job: dict, folder: Path) -> None:
    """Run a script of ours in Blender; its argument is a JSON file in ``folder`` that holds the job.

    Raises:
        Mv3dError: if there is no Blender, or it fails; the message ends with the tail of its log.
    """
    command = find_blender(script)
    if command is None:
        raise Mv3dError(f"there is no Blender here: {_INSTALL_HINT}")
    job_path = folder / "job.json"
    job_path.write_text(json.dumps(job))
    done = subprocess.run([*command, str(job_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise Mv3dError(f"Blender ({command[0]}) failed with exit code {done.returncode}; its last words:\n{tail}")


def _load_rgba(path: Path) -> Frames:
    with Image.open(path) as picture:
        return from_uint8(np.asarray(picture.convert("RGBA")))


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] != "install" or len(arguments) > 2:
        print("usage: python -m mv3d.blender install [DIR]", file=sys.stderr)
        return 2
    try:
        install(Path(arguments[1]) if len(arguments) == 2 else _ENVIRONMENT)
    except Mv3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
