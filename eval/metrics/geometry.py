"""How far a mesh is from the true one, by the definitions of papers on pictures to 3D.

Both meshes stand in the world: the true object's largest extent is 1. Points are drawn evenly from the surface that can
be seen from outside, since what stands inside a true object no view tells of (SyncDreamer takes its points from depth
pictures for that). Chamfer distance: SyncDreamer, eval_mesh.py. F-score: Tatarchenko et al. 2019, at the thresholds
.1, .2 and .5 of TripoSR (Tochilkin et al. 2024); in what scale is not stated there, here the largest extent counts as
2. Volume IoU on a grid of 64 cells to the unit: SyncDreamer. Normal consistency: Occupancy Networks (Mescheder et al.
2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from eval.options import Alignment
from mv3d.mesh import Mesh

Array = NDArray[np.float64]

NUM_POINTS = 10_000
IOU_CELLS = 64
_F_SCALE = 2.0  # of lengths before they meet the thresholds
_F_THRESHOLDS = {"f_score_10": 0.1, "f_score_20": 0.2, "f_score_50": 0.5}
_YAWS = 72
_ALIGNMENT_POINTS = 1500
_ICP_STEPS = 30
_OFF_SURFACE = 1e-3
_DIRECTIONS = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if i or j or k])


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points on a surface and the unit normals there, (P, 3) each."""

    points: Array
    normals: Array

    def moved(self, transform: Array) -> SurfacePoints:
        """Apply a similarity (4, 4)."""
        linear = transform[:3, :3]
        normals = self.normals @ linear.T
        return SurfacePoints(
            self.points @ linear.T + transform[:3, 3], normals / np.linalg.norm(normals, axis=1, keepdims=True)
        )


def score_geometry(pred: Mesh, true: Mesh, alignment: Alignment = "none") -> dict[str, float]:
    """All measures of this module, after an alignment of the predicted mesh to the true one."""
    ours, theirs = sample_visible(pred), sample_visible(true)
    transform = find_alignment(ours, theirs, alignment)
    ours = ours.moved(transform)
    turned = Mesh(pred.vertices @ transform[:3, :3].T + transform[:3, 3], pred.faces)
    there, back, index_there, index_back = _nearest(ours.points, theirs.points)
    scores = {"chamfer": (there.mean() + back.mean()) / 2, "volume_iou": volume_iou(turned, true)}
    for key, threshold in _F_THRESHOLDS.items():
        scores[key] = f_score(there * _F_SCALE, back * _F_SCALE, threshold)
    cosines = [
        np.abs((a * b).sum(axis=1)).mean()
        for a, b in ((ours.normals, theirs.normals[index_there]), (theirs.normals, ours.normals[index_back]))
    ]
    scores["normal_consistency"] = np.mean(cosines)
    return {key: float(value) for key, value in scores.items()}


def empty_geometry(true: Mesh) -> dict[str, float]:
    """The scores of a body that could not be lifted: nothing, at the origin."""
    distance = np.linalg.norm(sample_visible(true).points, axis=1)
    keys = ("volume_iou", *_F_THRESHOLDS, "normal_consistency")
    return {"chamfer": float((distance.mean() + distance.min()) / 2)} | dict.fromkeys(keys, 0.0)


def sample_visible(mesh: Mesh, count: int = NUM_POINTS, seed: int = 0) -> SurfacePoints:
    """Draw points evenly from the surface seen from any of 26 directions; from all of it if none is seen."""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    rng = np.random.default_rng(seed)
    drawn, faces = trimesh.sample.sample_surface(body, 2 * count, seed=rng)[:2]
    normals = body.face_normals[faces]
    hidden = np.arange(len(drawn))
    for direction in _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True):
        outward = np.sign(normals[hidden] @ direction)[:, None] * normals[hidden]
        starts = drawn[hidden] + _OFF_SURFACE * outward
        blocked = body.ray.intersects_any(starts, np.broadcast_to(direction, starts.shape))
        hidden = hidden[blocked | (np.abs(normals[hidden] @ direction) < 1e-3)]
        if not len(hidden):
            break
    seen = np.setdiff1d(np.arange(len(drawn)), hidden) if len(hidden) < len(drawn) else np.arange(len(drawn))
    chosen = rng.choice(seen, count, replace=len(seen) < count)
    return SurfacePoints(np.asarray(drawn[chosen]), np.asarray(normals[chosen]))


def chamfer(a: Array, b: Array) -> float:
    """Mean distance to the nearest point of the other set (P, 3), averaged over both directions."""
    there, back, *_ = _nearest(a, b)
    return float((there.mean() + back.mean()) / 2)


def f_score(there: Array, back: Array, threshold: float) -> float:
    """Harmonic mean of precision and recall of nearest distances within a threshold."""
    precision, recall = (there < threshold).mean(), (back < threshold).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def volume_iou(a: Mesh, b: Mesh, cells: int = IOU_CELLS) -> float:
    """Intersection over union of the cells (``cells`` to the unit) that bodies' surfaces touch or enclose."""
    low = np.minimum(a.vertices.min(axis=0), b.vertices.min(axis=0))
    high = np.maximum(a.vertices.max(axis=0), b.vertices.max(axis=0))
    shape = tuple(np.floor((high - low) * cells).astype(int) + 3)
    in_a, in_b = (_fill(mesh, low - 1 / cells, shape, cells) for mesh in (a, b))
    return float((in_a & in_b).sum() / max((in_a | in_b).sum(), 1))


def find_alignment(pred: SurfacePoints, true: SurfacePoints, mode: Alignment) -> Array:
    """The similarity (4, 4) that brings predicted points to the true ones.

    ``none``: the identity. ``yaw``: the best of 72 turns about the vertical. ``icp``: from there, iterative closest
    points with rotation, translation and scale (Besl and McKay 1992; the step by Umeyama 1991, through trimesh).
    """
    best = np.eye(4)
    if mode == "none":
        return best
    ours, theirs = pred.points[:_ALIGNMENT_POINTS], true.points[:_ALIGNMENT_POINTS]
    turns = [
        trimesh.transformations.rotation_matrix(angle, [0, 0, 1])
        for angle in np.linspace(0, 2 * np.pi, _YAWS, endpoint=False)
    ]
    best = min(turns, key=lambda turn: chamfer(ours @ turn[:3, :3].T, theirs))
    if mode == "icp":
        to_the_end = {"threshold": -np.inf, "max_iterations": _ICP_STEPS}
        best = trimesh.registration.icp(ours, theirs, initial=best, reflection=False, **to_the_end)[0]
    return best


def _nearest(a: Array, b: Array) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]:
    there, index_there = cKDTree(b).query(a)
    back, index_back = cKDTree(a).query(b)
    return there, back, index_there, index_back


def _fill(mesh: Mesh, origin: Array, shape: tuple[int, ...], cells: int) -> NDArray[np.bool_]:
    """The cells that the surface touches, and those that it cuts off from the outside."""
    fine = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, max_edge=0.7 / cells, max_iter=30)[0]
    touched = np.zeros(shape, dtype=bool)
    index = np.floor((fine - origin) * cells).astype(int)
    touched[tuple(index.T)] = True
    return ndimage.binary_fill_holes(touched)
