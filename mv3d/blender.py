"""Blender in a process of its own: it wants another numpy than we do, and its licence is the GPL.

``python -m mv3d.blender install`` makes an environment with Blender as a Python module (about 1 GB) in the user's
folder for data, `environment_folder`; one in ``.blender`` in the clone or the current folder is found too. Any Blender
from 4.2 on works as well: put it on the PATH, or name it (or a Python that imports bpy) in the environment variable
MV3D_BLENDER. What happens inside Blender is in blender_worker.py (pictures of a mesh file) and blender_scene.py (a
.blend).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mv3d.cameras import Array, Camera
from mv3d.command_line import print_error
from mv3d.conventions import to_blender
from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.pixels import Frames, from_uint8

_WORKER = Path(__file__).with_name("blender_worker.py")
_CLONE = Path(__file__).parents[1]
_PYTHON = Path("Scripts/python.exe") if os.name == "nt" else Path("bin/python")
_REQUIREMENTS = ("bpy==4.5.*", "numpy<2")  # the long-term release; its wheels are for Python 3.11 only
_BPY_PYTHON = (3, 11)
_OLDEST = (4, 2)
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


def environment_folder() -> Path:
    """Where `install` puts Blender: ``mv3d/blender`` in ``$XDG_DATA_HOME``, or in ``~/.local/share``."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "mv3d" / "blender"


def find_blender(script: Path = _WORKER) -> list[str]:
    """Find the command that runs a Python script in Blender; the script's arguments go at the end.

    Raises:
        Mv3dError: if there is no Blender, or the one that is named or on the PATH is none, or older than 4.2.
    """
    named = os.environ.get("MV3D_BLENDER")
    if named:
        if shutil.which(named) is None:
            raise Mv3dError(f"MV3D_BLENDER={named} is no program; name a blender, or a python that imports bpy")
        _check_version(named)
        return _command(named, script)
    for folder in (Path.cwd() / ".blender", _CLONE / ".blender", environment_folder()):
        if (folder / _PYTHON).is_file():
            return _command(str(folder / _PYTHON), script)
    on_path = shutil.which("blender")
    if on_path is None:
        raise Mv3dError(f"there is no Blender here: {_INSTALL_HINT}")
    _check_version(on_path)
    return _command(on_path, script)


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
            "out": folder,
        }
        run_in_blender(_WORKER, job, Path(folder))
        return np.stack([_load_rgba(Path(folder) / f"{k:03d}.png") for k in range(len(cameras))])


def install(folder: Path | None = None) -> Path:
    """Make the virtual environment with Blender as a module, whole or not at all, and return its Python.

    Args:
        folder: `environment_folder` if None. Of other places, MV3D_BLENDER has to name the Python.

    Raises:
        Mv3dError: if the folder exists, no Python of the right version is there, or a step fails.
    """
    folder = folder or environment_folder()
    if folder.exists():
        raise Mv3dError(f"{folder} exists already; remove it first, or name another folder")
    wanted = ".".join(map(str, _BPY_PYTHON))
    python = sys.executable if sys.version_info[:2] == _BPY_PYTHON else shutil.which(f"python{wanted}")
    if python is None:
        raise Mv3dError(f"Blender as a module needs Python {wanted}: install that, or Blender itself (on the PATH)")
    with whole_folder(folder) as partial:
        inside = str(partial / _PYTHON)
        steps = (
            [python, "-m", "venv", str(partial)],
            [inside, "-m", "pip", "install", *_REQUIREMENTS],
            [inside, "-c", "import bpy; print('Blender', bpy.app.version_string, 'is ready')"],
        )
        for step in steps:
            if subprocess.run(step).returncode:
                raise Mv3dError(f"making {folder} failed at: {' '.join(step)}")
    return folder / _PYTHON


def _is_python(program: str) -> bool:
    return not Path(program).name.lower().startswith("blender")


def _command(program: str, script: Path) -> list[str]:
    if _is_python(program):
        return [program, str(script)]
    return [program, "--background", "--factory-startup", "--python-exit-code", "1", "--python", str(script), "--"]


def _check_version(program: str) -> None:
    """Raise `Mv3dError` unless a program is a Blender that is new enough."""
    found, oldest = _version_of(program), ".".join(map(str, _OLDEST))
    if found is None:
        raise Mv3dError(f"{program} does not say that it is Blender {oldest} or newer: {_INSTALL_HINT}")
    if found < _OLDEST:
        raise Mv3dError(f"{program} is Blender {found[0]}.{found[1]}, and {oldest} or newer is needed: {_INSTALL_HINT}")


@cache
def _version_of(program: str) -> tuple[int, int] | None:
    asked = ["-c", "import bpy; print('Blender', bpy.app.version_string)"] if _is_python(program) else ["--version"]
    try:
        done = subprocess.run([program, *asked], capture_output=True, text=True, errors="replace", timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^Blender (\d+)\.(\d+)", done.stdout, re.MULTILINE)
    return None if found is None else (int(found[1]), int(found[2]))


def run_in_blender(script: Path, job: dict, folder: Path) -> None:
    """Run a script of ours in Blender; its argument is a JSON file in ``folder`` that holds the job.

    Raises:
        Mv3dError: if there is no Blender, or it fails; the message ends with the tail of its log.
    """
    command = find_blender(script)
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
        python = install(Path(arguments[1]) if len(arguments) == 2 else None)
    except (Mv3dError, OSError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        return 130
    print(
        f"Blender is in {python.parents[1]}" if len(arguments) == 1 else f"to use it: MV3D_BLENDER={python.absolute()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
