"""Lifting by nerfstudio, where its commands are installed: as processes, in an environment of their own.

nerfstudio writes meshes in the coordinates it trained in, and says beside them how those came about
(``dataparser_transforms.json``); here they come back into the orbit's own world and scale.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mv3d.errors import Mv3dError
from mv3d.export import load_mesh
from mv3d.export.nerf import save_nerfstudio
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit

_COMMANDS = ("ns-train", "ns-export")
_EXPERIMENT, _RUN = "orbit", "run"
_LONGEST_TAIL = 15
# The object is about 1 long around the origin: nothing to centre, turn or scale, and all of it inside the unit box.
_PARSER = (
    "nerfstudio-data",
    *("--orientation-method", "none", "--center-method", "none", "--auto-scale-poses", "False"),
    *("--eval-mode", "all"),  # no view is held out
)


def lift_with_nerfstudio(orbit: Orbit, *, method: str = "nerfacto", steps: int = 5000, faces: int = 50_000) -> Mesh:
    """Train one of nerfstudio's methods on the orbit and export its mesh, textured, in the orbit's world and scale.

    Args:
        orbit: the views.
        method: as ``ns-train`` names it.
        steps: of training.
        faces: at most so many triangles.

    Raises:
        Mv3dError: if nerfstudio's commands are not on the PATH, or one fails; the message ends with its last words.
    """
    check_nerfstudio()
    with tempfile.TemporaryDirectory(prefix="mv3d-nerfstudio-") as place:
        data, outputs, exported = (Path(place) / name for name in ("data", "outputs", "exported"))
        save_nerfstudio(orbit, None, data)
        names = ("--output-dir", str(outputs), "--experiment-name", _EXPERIMENT, "--timestamp", _RUN)
        train = ["ns-train", method, "--data", str(data), *names, "--max-num-iterations", str(steps)]
        _run([*train, "--vis", "tensorboard", "--machine.device-type", _device(), *_background(method), *_PARSER])
        # In between stands the method's own name, which is "nerfacto" for nerfacto-big.
        trained = next((outputs / _EXPERIMENT).glob(f"*/{_RUN}"), outputs)
        box = _bounding_box(orbit, trained)
        files = ("--load-config", str(trained / "config.yml"), "--output-dir", str(exported))
        _run(["ns-export", "tsdf", *files, "--target-num-faces", str(faces), *box])
        mesh = load_mesh(_find(exported / "mesh.obj"), y_up=False)  # nerfstudio writes its own axes into OBJ
        return _into_world(mesh, *_read_transform(trained))


def check_nerfstudio() -> None:
    """Raise `Mv3dError` if nerfstudio's commands are not on the PATH."""
    missing = [name for name in _COMMANDS if shutil.which(name) is None]
    if missing:
        raise Mv3dError(
            f"nerfstudio is not here ({' and '.join(missing)} not on the PATH): install it in an environment of its "
            "own, pip install nerfstudio, and add that environment's bin folder to the PATH"
        )


def _device() -> str:
    if sys.platform == "darwin":
        return "mps"
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def _background(method: str) -> tuple[str, ...]:
    # Transparent pixels then get another colour at each step, so that only empty space explains them.
    return ("--pipeline.model.background-color", "random") if method.startswith("nerfacto") else ()


def _bounding_box(orbit: Orbit, trained: Path) -> tuple[str, ...]:
    """Limit the export to a cube around the world's origin that reaches half way to the nearest camera."""
    matrix, scale = _read_transform(trained)
    reach = min(camera.radius for camera in orbit.cameras) / 2
    corners = np.array([(x, y, z) for x in (-reach, reach) for y in (-reach, reach) for z in (-reach, reach)])
    inside = scale * (corners @ matrix[:, :3].T + matrix[:, 3])
    low, high = ([f"{value:.6f}" for value in corner] for corner in (inside.min(axis=0), inside.max(axis=0)))
    return ("--bounding-box-min", *low, "--bounding-box-max", *high)


def _read_transform(trained: Path) -> tuple[NDArray[np.float64], float]:
    path = _find(trained / "dataparser_transforms.json")
    try:
        stored = json.loads(path.read_text())
        matrix, scale = np.array(stored["transform"], dtype=np.float64), float(stored["scale"])
    except (ValueError, KeyError, TypeError) as error:
        raise Mv3dError(f"nerfstudio wrote a {path.name} that cannot be read: {error}") from error
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or not scale > 0:
        raise Mv3dError(f"nerfstudio wrote a {path.name} without a 3x4 transform and a positive scale")
    return matrix, scale


def _into_world(mesh: Mesh, matrix: NDArray[np.float64], scale: float) -> Mesh:
    """Undo x_trained = scale * (R x_world + t)."""
    vertices = (mesh.vertices / scale - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T
    return Mesh(vertices, mesh.faces, mesh.texture)


def _find(path: Path) -> Path:
    if not path.is_file():
        raise Mv3dError(f"nerfstudio ended without an error, but wrote no {path.name}: is it version 1.1?")
    return path


def _run(command: list[str]) -> None:
    # The mesh viewer's and trainer's questions get an end of file, not the terminal.
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-_LONGEST_TAIL:])
        raise Mv3dError(f"{command[0]} failed with exit code {done.returncode}; its last words:\n{tail}")
