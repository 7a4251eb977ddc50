"""Objects and their true views: the one module of this room that knows the renderer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from eval.protocol import Protocol
from eval.truth.scans import unpack_scans
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.mesh import Mesh
from mv3d.pixels import Frames
from render.farm.farm import render_sources
from render.farm.split import identify, split_of
from render.scene.raycast import render_orbit
from render.scene.scene import RenderScene, make_scene
from render.settings import Settings
from render.sources import SourceObject, find_objects

_SEED = 0
_INDEX = "splits.json"
_FEW = 16  # objects that are not worth starting processes for


def list_objects(folder: Path, split: str | None, work: Path) -> list[SourceObject]:
    """The objects of a folder, or those of one side of the split; ``work`` keeps what is found out about them.

    Raises:
        Mv3dError: if there are none.
    """
    objects = find_objects(unpack_scans(folder, work / "scans"))
    if split is None:
        return objects
    sides = _load_sides(objects, work / _INDEX)
    chosen = [item for item in objects if sides[item.object_id] == split]
    if not chosen:
        raise Mv3dError(f"{folder} holds no object of the {split} split ({len(objects)} objects); give the whole set")
    return chosen


def render_truth(
    objects: Sequence[SourceObject], protocol: Protocol, out: Path, workers: int | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Render each object's true views to ``out/<object_id>/0``, input view first; what is there already is kept.

    Returns the orbit folders and why objects have none, both by ``<object_id>/0``.

    Raises:
        Mv3dError: if ``out`` was rendered with other settings.
    """
    low_deg, high_deg = _elevation_range(protocol)
    azimuths_deg = protocol.here.azimuths_deg
    settings = Settings(
        num_views=protocol.here.num_views,
        size_px=protocol.here.resolution_px,
        seed=_SEED,
        elevation_low_deg=low_deg,
        elevation_high_deg=high_deg,
        fov_deg=protocol.here.fov_deg,
        path=protocol.here.path,
        azimuths_deg=tuple(azimuths_deg) if isinstance(azimuths_deg, list) else None,
    )
    entries = render_sources(objects, out, settings, workers=workers)
    failed = {f"{entry.object_id}/0": entry.failed for entry in entries if entry.failed is not None}
    made = {f"{item.object_id}/0": out / item.object_id / "0" for item in objects}
    return {name: folder for name, folder in made.items() if name not in failed}, failed


def load_true_mesh(item: SourceObject, yaw_deg: float) -> Mesh:
    """The object's surface as its true views show it: in the world, centred, largest extent 1, turned."""
    scene = make_scene(item.load(), linear_colours=item.linear_colours).turned(yaw_deg)
    corners = scene.corners.astype(np.float64)
    vertices, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return Mesh(vertices, index.reshape(-1, 3))


def render_mesh(mesh: Mesh, cameras: Sequence[Camera]) -> Frames:
    """Views of a textured mesh in the world, unlit: (N, H, W, 4)."""
    assert mesh.texture is not None, "lifted meshes are textured"
    corners = mesh.vertices[mesh.faces].astype(np.float32)
    opaque = np.full((*mesh.texture.pixels.shape[:2], 1), 255, dtype=np.uint8)
    scene = RenderScene(
        corners=corners,
        normals=mesh.vertex_normals()[mesh.faces].astype(np.float32),
        colours=np.ones((len(corners), 3, 4), dtype=np.float32),
        uv=mesh.texture.corner_uv.astype(np.float32),
        texture=np.zeros(len(corners), dtype=np.int32),
        textures=(np.concatenate([mesh.texture.pixels, opaque], axis=-1),),
    )
    return render_orbit(scene, cameras, None)


def _elevation_range(protocol: Protocol) -> tuple[float, float]:
    elevation = protocol.here.elevation_deg
    low, high = elevation if isinstance(elevation, list) else (elevation, elevation)
    return float(low), float(high)


# -------------------------------------------------------------------------------------------------
# Splits.


def _load_sides(objects: Sequence[SourceObject], path: Path) -> dict[str, str | None]:
    """Each object's side of the split, by the hash of its geometry; None where it cannot be loaded."""
    keys = {item.object_id: _key_of(item) for item in objects}
    known = _known_sides(path)
    unknown = [item for item in objects if keys[item.object_id] not in known]
    if unknown:
        from tqdm import tqdm

        with ExitStack() as stack:
            if len(unknown) > _FEW:
                pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"))
                sides = stack.enter_context(pool).map(_side_of, unknown, chunksize=8)
            else:
                sides = map(_side_of, unknown)
            found = list(tqdm(sides, total=len(unknown), desc="splits", unit="object"))
        known |= {keys[item.object_id]: side for item, side in zip(unknown, found, strict=True)}
        with whole_file(path) as partial:
            partial.write_text(json.dumps(known, indent=0) + "\n")
    return {object_id: known[key] for object_id, key in keys.items()}


def _known_sides(path: Path) -> dict[str, str | None]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}  # they are found out again


def _key_of(item: SourceObject) -> str:
    """An object and the file that it is in, as it is now."""
    facts = item.path.stat()
    return f"{item.object_id} {facts.st_size} {facts.st_mtime_ns}"


def _side_of(item: SourceObject) -> str | None:
    try:
        scene = make_scene(item.load(), linear_colours=item.linear_colours)
        return split_of(identify(item, scene))
    except Exception:  # an object that cannot be loaded is on no side; rendering says why
        return None
