"""Lifting by nerfstudio, where its commands are installed: as processes, in an environment of their own.

nerfstudio trains in a world where the object is 1 long around the origin, and writes meshes in coordinates of its own,
saying beside them how those came about (``dataparser_transforms.json``); here they come back into the orbit's own world
and scale. Colours are painted from the views, as for every other method: to ask the trained field for each texel's
colour takes longer than training does, and shows what it has learnt of the views.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mv3d.errors import Mv3dError
from mv3d.export import load_mesh
from mv3d.export.nerf import save_nerfstudio
from mv3d.lift import LiftSettings, paint_surface
from mv3d.lift.hull import make_hull
from mv3d.lift.silhouettes import cut_out_views
from mv3d.lift.surface import extract_surface
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit

Array = NDArray[np.float64]

_COMMANDS = ("ns-train", "ns-export")
_EXPERIMENT, _RUN = "orbit", "run"
_LONGEST_TAIL = 15
_STEPS = {"cuda": 5000, "mps": 5000, "cpu": 500}
_CELLS = 160  # of the fusion's box along each side, and at most of the hull's
_CELLS_A_PIXEL = 0.75
_REACH = 0.75  # half the side of that box: the object reaches 0.5, and where no view looks below it counts as solid
_NEIGHBOURS = 4  # vertices that tell on which side of the surface a point lies
_PARSER = (
    "nerfstudio-data",
    *("--orientation-method", "none", "--center-method", "none", "--auto-scale-poses", "False"),
    *("--eval-mode", "all"),  # no view is held out
)
# Since 2.6 torch refuses to read what nerfstudio 1.1.5 stores; here that is what it has just written itself.
_READ_OWN_CHECKPOINT = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
_NO_TESTS = ("--steps-per-eval-batch", "0", "--steps-per-eval-image", "0", "--steps-per-eval-all-images", "0")
# As nerfstudio's own benchmark on NeRF-synthetic sets nerfacto (scripts/benchmarking/launch_train_blender.sh): one
# object, exact cameras. But where pixels are transparent the background is another colour at each step, so that
# only empty space explains them.
_NERFACTO = {
    "background-color": "random",
    "proposal-initial-sampler": "uniform",
    "camera-optimizer.mode": "off",
    "use-average-appearance-embedding": "False",
    "distortion-loss-mult": "0",
    "disable-scene-contraction": "True",
}
# As it comes, a step takes a core more than 10 s: 4,096 rays with 400 samples each, 17 million numbers to update.
_NERFACTO_ON_CPU = (
    *("--pipeline.datamanager.train-num-rays-per-batch", "512"),
    *("--pipeline.model.num-proposal-samples-per-ray", "64", "32"),
    *("--pipeline.model.num-nerf-samples-per-ray", "24"),
    *("--pipeline.model.num-levels", "8"),
    *("--pipeline.model.max-res", "256"),
    *("--pipeline.model.log2-hashmap-size", "17"),
)
_PX_ON_CPU = 64  # of the depth maps that the mesh is fused from; a ray takes a core half a millisecond


def lift_with_nerfstudio(
    orbit: Orbit,
    *,
    method: str = "nerfacto",
    steps: int | None = None,
    settings: LiftSettings | None = None,
) -> Mesh:
    """Train one of nerfstudio's methods on the orbit and export its mesh, painted, in the orbit's world and scale.

    Args:
        orbit: the views.
        method: as ``ns-train`` names it.
        steps: of training; if None 5,000, or 500 without a GPU.
        settings: those of faces and texture are heeded; `LiftSettings()` if None.

    Raises:
        Mv3dError: if nerfstudio's commands are not on the PATH, one fails (the message ends with its last words), or
            the views show no object.
    """
    check_nerfstudio()
    settings = settings or LiftSettings()
    orbit = cut_out_views(orbit)
    views = SilhouetteViews(orbit.frames[..., 3], orbit.cameras)
    grid, hull = make_hull(views, min(_CELLS, round(max(orbit.frames.shape[1:3]) * _CELLS_A_PIXEL)))
    inside = grid.points(np.argwhere(hull > 0))
    if not len(inside):
        raise Mv3dError("no body has these silhouettes: the views disagree")
    low, high = inside.min(axis=0), inside.max(axis=0)
    centre, size = (low + high) / 2, float((high - low).max())
    device = _device()
    with tempfile.TemporaryDirectory(prefix="mv3d-nerfstudio-") as place:
        data, outputs, exported = (Path(place) / name for name in ("data", "outputs", "exported"))
        unit = _moved(orbit, centre, size)
        save_nerfstudio(unit, None, data)
        names = ("--output-dir", str(outputs), "--experiment-name", _EXPERIMENT, "--timestamp", _RUN)
        train = ["ns-train", method, "--data", str(data), *names, "--max-num-iterations", str(steps or _STEPS[device])]
        train += ["--vis", "tensorboard", "--machine.device-type", device, *_NO_TESTS]
        _run([*train, *_options(method, unit, device), *_PARSER])
        # In between stands the method's own name, which is "nerfacto" for nerfacto-big.
        trained = next((outputs / _EXPERIMENT).glob(f"*/{_RUN}"), outputs)
        matrix, scale = _read_transform(trained)
        files = ("--load-config", str(trained / "config.yml"), "--output-dir", str(exported))
        smaller = max(1, round(max(orbit.frames.shape[1:3]) / _PX_ON_CPU)) if device == "cpu" else 1
        detail = ("--resolution", str(_CELLS), "--downscale-factor", str(smaller))
        _run(["ns-export", "tsdf", *files, "--texture-method", "tsdf", *detail, *_bounding_box(matrix, scale)])
        mesh = load_mesh(_find(exported / "tsdf_mesh.ply"), y_up=False)  # its own axes
    mesh = replace(mesh, vertices=centre + size * _from_trained(mesh.vertices, matrix, scale))
    # Its surface has holes and specks, and goes on where no view looks; within the hull it becomes a body.
    near = hull > -2 * grid.spacing
    field = hull.copy()
    field[near] = np.minimum(hull[near], _depth_below(mesh, grid.points(np.argwhere(near))))
    surface = extract_surface(field, grid, settings.faces)
    return paint_surface(surface, orbit, views, settings, slack=4 * _REACH / _CELLS * size)


def _depth_below(mesh: Mesh, points: Array) -> NDArray[np.float32]:
    """How deep below nerfstudio's surface points (P, 3) lie, (P,): negative above it, exact near it."""
    _, nearest = cKDTree(mesh.vertices).query(points, k=_NEIGHBOURS)
    # The normals of its tsdf_utils.py point inwards: marching cubes take what is seen, which is positive, for the body.
    along = (mesh.vertex_normals()[nearest] * (points[:, None] - mesh.vertices[nearest])).sum(axis=-1)
    return along.mean(axis=1).astype(np.float32)


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


def _moved(orbit: Orbit, centre: Array, size: float) -> Orbit:
    """The cut-out views in a world where ``centre`` is the origin and ``size`` is 1."""
    cameras = []
    for camera in orbit.cameras:
        world_from_cam = camera.world_from_cam.copy()
        world_from_cam[:3, 3] = (world_from_cam[:3, 3] - centre) / size
        cameras.append(replace(camera, world_from_cam=world_from_cam))
    return Orbit(orbit.frames, tuple(cameras))


def _options(method: str, unit: Orbit, device: str) -> tuple[str, ...]:
    if not method.startswith("nerfacto"):
        return ()
    distances = [camera.radius for camera in unit.cameras]
    reach = 3**0.5 / 2  # of a box of side 1 around the origin
    planes = {"near-plane": max(min(distances) - reach, 0.01), "far-plane": max(distances) + reach}
    options = [(f"--pipeline.model.{name}", str(value)) for name, value in (_NERFACTO | planes).items()]
    return (*(word for option in options for word in option), *(_NERFACTO_ON_CPU if device == "cpu" else ()))


def _bounding_box(matrix: Array, scale: float) -> tuple[str, ...]:
    """Limit the export to the object's surroundings."""
    corners = np.array([(x, y, z) for x in (-_REACH, _REACH) for y in (-_REACH, _REACH) for z in (-_REACH, _REACH)])
    trained = scale * (corners @ matrix[:, :3].T + matrix[:, 3])
    low, high = ([f"{value:.6f}" for value in corner] for corner in (trained.min(axis=0), trained.max(axis=0)))
    return ("--bounding-box-min", *low, "--bounding-box-max", *high)


def _read_transform(trained: Path) -> tuple[Array, float]:
    path = _find(trained / "dataparser_transforms.json")
    try:
        stored = json.loads(path.read_text())
        matrix, scale = np.array(stored["transform"], dtype=np.float64), float(stored["scale"])
    except (ValueError, KeyError, TypeError) as error:
        raise Mv3dError(f"nerfstudio wrote a {path.name} that cannot be read: {error}") from error
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or not scale > 0:
        raise Mv3dError(f"nerfstudio wrote a {path.name} without a 3x4 transform and a positive scale")
    return matrix, scale


def _from_trained(points: Array, matrix: Array, scale: float) -> Array:
    """Undo x_trained = scale * (R x + t)."""
    return (points / scale - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T


def _find(path: Path) -> Path:
    if not path.is_file():
        raise Mv3dError(f"nerfstudio ended without an error, but wrote no {path.name}: is it version 1.1?")
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,  # the mesh viewer's and trainer's questions get an end of file, not the terminal
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | _READ_OWN_CHECKPOINT,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-_LONGEST_TAIL:])
        raise Mv3dError(f"{command[0]} failed with exit code {done.returncode}; its last words:\n{tail}")
