"""For 3D printers: a mesh becomes one closed body of a size in millimetres that may stand on a flat base."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import manifold3d
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from mv3d.body import body_of, mesh_of
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.mesh import Mesh

Array = NDArray[np.float64]

_SIZES_MM = (1.0, 5000.0)
_BASES = np.linspace(0.01, 0.1, 10)  # of the height: what is cut off at the bottom, the least with which it stands
_SURE_FOOTED = 0.03  # of the size: how far inside the base the centre of mass must be
_WALL_PERCENTILE = 1  # of the surface that may be over a thinner wall than is reported: an edge is thin by nature
_WALL_RAYS = 20_000
_RAY_START = 1e-4  # of the size: beneath the surface, so that a ray does not meet the face it starts from


@dataclass(frozen=True)
class PrintSettings:
    """How large to print, and on which base."""

    size_mm: float
    """Of the longest side of the bounding box."""
    flat_base: bool = False
    """Cut a little off the bottom, so that it stands."""

    def __post_init__(self) -> None:
        low, high = _SIZES_MM
        if not low <= self.size_mm <= high:
            raise Mv3dError(f"size_mm {self.size_mm:g} is outside {low:g} to {high:g}", argument="size_mm")


@dataclass(frozen=True)
class PrintFacts:
    """What is known of a print before it is one."""

    watertight: bool
    bodies: int
    size_mm: tuple[float, float, float]
    """Width, depth, height."""
    wall_mm: float
    """Thickness along the inward normal; ``wall_percentile`` percent of the surface are over thinner walls."""
    wall_percentile: int
    base_cut_mm: float
    """What was cut off at the bottom."""
    left_out_bodies: int
    """Loose ones: they would print beside the one that is kept."""
    left_out_percent: float
    """Their share of the volume."""


def prepare_print(mesh: Mesh, settings: PrintSettings) -> tuple[Mesh, PrintFacts]:
    """Make one body in millimetres of a closed mesh, its corner at the origin; bodies that overlap are joined.

    Of bodies that do not touch, the largest is kept. Colours are lost.

    Raises:
        Mv3dError: if the mesh is not closed, holds no volume, or is to stand and has no base to stand on.
    """
    body, left_out = _largest(_joined(mesh))
    base_cut = 0.0
    if settings.flat_base:
        body, base_cut, cut_loose = _on_flat_base(body)
        left_out += cut_loose
    out = mesh_of(body)
    low, high = out.extent
    mm = settings.size_mm / float((high - low).max())
    out = replace(out, vertices=((out.vertices - low) * mm).astype(np.float32).astype(np.float64)).welded()
    width, depth, height = np.round(np.ptp(out.extent, axis=0), 3).tolist()
    facts = PrintFacts(
        watertight=out.is_watertight,
        bodies=sum(shell.volume() > 0 for shell in body.decompose()),
        size_mm=(width, depth, height),
        wall_mm=round(wall_thickness(out, _WALL_PERCENTILE), 3),
        wall_percentile=_WALL_PERCENTILE,
        base_cut_mm=round(base_cut * mm, 3),
        left_out_bodies=len(left_out),
        left_out_percent=round(100 * sum(left_out) / (sum(left_out) + body.volume()), 2),
    )
    return out, facts


def wall_thickness(mesh: Mesh, percentile: float) -> float:
    """How thick a closed mesh is at a percentile of its surface, in its own unit.

    Measured at points spread evenly over the surface, from each along the inward normal to the other side.
    """
    import trimesh
    from trimesh.sample import sample_surface

    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, faces = sample_surface(surface, _WALL_RAYS, seed=0)[:2]
    inward = -np.asarray(surface.face_normals)[faces]
    start = _RAY_START * float(np.ptp(mesh.extent, axis=0).max())
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.vertices[mesh.faces], dtype=np.float32))
    origins = (np.asarray(points) + start * inward).astype(np.float32)
    found = scene.run(origins, np.ascontiguousarray(inward, dtype=np.float32), query="INTERSECT", output=1)
    return float(np.percentile(found["tfar"][found["primID"] >= 0] + start, percentile))


def save_3mf(mesh: Mesh, path: Path) -> None:
    """Write a mesh in millimetres as 3MF, which knows its unit; Z up, without colours."""
    import trimesh

    scene = trimesh.Scene({path.stem: trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)})
    with whole_file(path) as partial:
        content = scene.export(file_type="3mf")
        assert isinstance(content, bytes)
        partial.write_bytes(content)


def _joined(mesh: Mesh) -> manifold3d.Manifold:
    """The space that the bodies of a mesh fill together, without their hollows."""
    if not mesh.is_watertight:
        raise Mv3dError(
            f"the mesh is not closed: {_open_edges(mesh)} of its edges have not two faces, so it has no inside to "
            "print; close it first (Blender's 3D Print Toolbox, Make Manifold)"
        )
    body = body_of(mesh)
    assert body.status() == manifold3d.Error.NoError, body.status()
    if body.volume() < 0:  # inside out
        body = _turned(body)
    parts = body.decompose()
    solid = [part for part in parts if part.volume() > 0]
    if not solid:
        raise Mv3dError("the mesh holds no volume, so there is nothing to print")
    hollow = [_turned(part) for part in parts if part.volume() < 0]
    whole = manifold3d.Manifold.batch_boolean(solid, manifold3d.OpType.Add)
    return whole - manifold3d.Manifold.batch_boolean(hollow, manifold3d.OpType.Add) if hollow else whole


def _turned(body: manifold3d.Manifold) -> manifold3d.Manifold:
    mesh = mesh_of(body)
    return body_of(Mesh(mesh.vertices, mesh.faces[:, ::-1]))


def _open_edges(mesh: Mesh) -> int:
    """How many edges are not shared by two faces that run along them in opposite directions."""
    sides = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    edges, edge, count = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True)
    turns = np.bincount(edge.reshape(-1), np.where(sides[:, 0] < sides[:, 1], 1, -1), minlength=len(edges))
    return int(((count != 2) | (turns != 0)).sum())


def _largest(body: manifold3d.Manifold) -> tuple[manifold3d.Manifold, list[float]]:
    """The largest of the outer shells with what is hollow in it, and the volumes of the others."""
    shells = body.decompose()
    outer = [shell for shell in shells if shell.volume() > 0]
    largest = max(outer, key=lambda shell: shell.volume())
    others = sorted((shell.volume() for shell in outer), reverse=True)[1:]
    if not others:
        return body, []
    return body ^ largest, others


def _on_flat_base(body: manifold3d.Manifold) -> tuple[manifold3d.Manifold, float, list[float]]:
    """Cut off as little as lets it stand; tells how much, and the volumes of bodies that came loose by it."""
    low, high = mesh_of(body).extent
    height = float(high[2] - low[2])
    for share in _BASES.tolist():
        level = float(low[2]) + share * height
        cut = body.trim_by_plane((0, 0, 1), level)
        if cut.is_empty():
            break
        cut, loose = _largest(cut)
        if _stands(cut, level, float((high - low).max())):
            return cut, share * height, loose
    raise Mv3dError(
        f"it would fall over: even {_BASES[-1]:.0%} of its height cut off leaves no base below its centre of mass; "
        "print it with supports, without a flat base",
        argument="flat_base",
    )


def _stands(body: manifold3d.Manifold, base: float, size: float) -> bool:
    """Whether the centre of mass is over the convex hull of the section at height ``base``."""
    mesh = mesh_of(body)
    corners = mesh.vertices[mesh.faces]
    volumes = np.linalg.det(corners)[:, None]
    centre = (corners.sum(axis=1) / 4 * volumes).sum(axis=0)[:2] / volumes.sum()
    polygons = body.slice(base + _RAY_START * size).hull().to_polygons()
    if not polygons:
        return False
    corner = np.asarray(polygons[0], dtype=np.float64)  # counter-clockwise
    along = np.roll(corner, -1, axis=0) - corner
    length = np.linalg.norm(along, axis=1)
    towards = centre - corner
    inside = (along[:, 0] * towards[:, 1] - along[:, 1] * towards[:, 0])[length > 0] / length[length > 0]
    return bool((inside > _SURE_FOOTED * size).all())
