"""Parts of a surface laid on the plane, as little stretched as can be, and whether they lie there as a texture may."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from mv3d.mesh import Mesh

Array = NDArray[np.float64]
Plane = NDArray[np.complex128]
"""Places on the plane, the second axis imaginary: what turns is multiplied."""
Index = NDArray[np.int64]

_STIFFNESS = (0.05, 20.0)  # of an edge: of triangles like needles, and those with blunt corners
_PASSES = 6
_MOST_PAIRS = 4_000_000  # of edges that are compared at once


@dataclass(frozen=True, eq=False)
class SurfaceTriangles:
    """A surface's triangles by themselves, each laid on the plane, and which of them are neighbours.

    Edges are named by three times their triangle and the corner that they begin at; they run counter-clockwise.
    """

    corners: Plane
    """(F, 3), counter-clockwise, lengths the surface's."""
    stiffness: Array
    """(F, 3), of the edge that begins at each corner: the cotangent of the angle across it, within limits."""
    area: Array
    """(F,)."""
    normals: Array
    """(F, 3), of length 1."""
    edges: Index
    """(N, 2), the two names of each edge that has a triangle on both sides."""

    @classmethod
    def of(cls, mesh: Mesh) -> SurfaceTriangles:
        """Those of a mesh."""
        places = mesh.vertices[mesh.faces]
        to_next, to_last = places[:, 1] - places[:, 0], places[:, 2] - places[:, 0]
        across = np.cross(to_next, to_last)
        twice_area = np.linalg.norm(across, axis=1)
        length = np.maximum(np.linalg.norm(to_next, axis=1), 1e-12)
        last = ((to_next * to_last).sum(axis=1) + 1j * twice_area) / length
        corners = np.stack([np.zeros(len(last)), length, last], axis=1).astype(np.complex128)
        opposite = np.roll(corners, -2, axis=1)
        turn = np.conj(corners - opposite) * (np.roll(corners, -1, axis=1) - opposite)
        stiffness = np.clip(turn.real / np.maximum(np.abs(turn.imag), 1e-12), *_STIFFNESS)
        normals = across / np.maximum(twice_area, 1e-12)[:, None]
        return cls(corners, stiffness, twice_area / 2, normals, _shared_edges(mesh.faces))


def next_corner(edge: Index) -> Index:
    """The corner where an edge ends, which the next edge begins at."""
    return edge - edge % 3 + (edge % 3 + 1) % 3


def _shared_edges(faces: Index) -> Index:
    begin, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    key = np.minimum(begin, end) * (faces.max(initial=0) + 1) + np.maximum(begin, end)
    _, which, count = np.unique(key, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    return order[(count == 2)[which[order]]].reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Sheets:
    """T triangles of a surface that hang together in sheets, each to be laid on the plane."""

    surface: SurfaceTriangles
    faces: Index
    """(T,), which of the surface's triangles."""
    sheet: Index
    """(T,), which sheet each is in."""
    vertex: Index
    """(T, 3), one number for the corners that stay together."""
    border: NDArray[np.bool_]
    """(T, 3), whether the edge that begins at the corner is the sheet's border."""

    @classmethod
    def of(cls, surface: SurfaceTriangles, faces: Index, sheet: Index) -> Sheets:
        """What hangs together are triangles of one sheet that share an edge."""
        place = np.full(len(surface.area), -1)
        place[faces] = np.arange(len(faces))
        of_face = np.full(len(surface.area), -1)
        of_face[faces] = sheet
        either = of_face[surface.edges // 3]
        inner = surface.edges[(either[:, 0] == either[:, 1]) & (either[:, 0] >= 0)]
        one, other = (3 * place[name // 3] + name % 3 for name in inner.T)
        begin, end = np.concatenate([one, next_corner(one)]), np.concatenate([next_corner(other), other])
        count = 3 * len(faces)
        links = sparse.coo_matrix((np.ones(len(begin)), (begin, end)), shape=(count, count))
        vertex = connected_components(links, directed=False)[1].astype(np.int64).reshape(-1, 3)
        border = np.ones(count, dtype=bool)
        border[one] = border[other] = False
        return cls(surface, faces, sheet, vertex, border.reshape(-1, 3))

    def only(self, kept: NDArray[np.bool_]) -> Sheets:
        """Those of some triangles, (T,), which are all of their sheets."""
        return replace(
            self, faces=self.faces[kept], sheet=self.sheet[kept], vertex=self.vertex[kept], border=self.border[kept]
        )

    def flatten(self, start: Plane) -> Plane:
        """Lay them on the plane, (T, 3), each triangle as rigidly as the others let it (Liu et al. 2008, ARAP).

        Where they lie is any place. ``start`` (T, 3) is how they are turned at the beginning.
        """
        count = int(self.vertex.max()) + 1
        begin, end = self.vertex.ravel(), np.roll(self.vertex, -1, axis=1).ravel()
        stiffness = self.surface.stiffness[self.faces]
        held = self.vertex[np.unique(self.sheet, return_index=True)[1], 0]  # a vertex of each sheet
        weight = stiffness.ravel()
        values = np.concatenate([weight, weight, -weight, -weight, np.ones(len(held))])
        rows = np.concatenate([begin, end, begin, end, held])
        columns = np.concatenate([begin, end, end, begin, held])
        matrix = sparse.coo_matrix((values, (rows, columns)), shape=(count, count)).tocsc()
        solver = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        own = _edges_of(self.surface.corners[self.faces])
        plane = start
        for _ in range(_PASSES):
            turn = (stiffness * _edges_of(plane) * np.conj(own)).sum(axis=1)
            turn /= np.maximum(np.abs(turn), 1e-12)
            pull = (stiffness * turn[:, None] * own).ravel()
            parts = [np.bincount(end, part, count) - np.bincount(begin, part, count) for part in (pull.real, pull.imag)]
            solved = solver.solve(np.stack(parts, axis=1))
            plane = (solved[:, 0] + 1j * solved[:, 1])[self.vertex]
        return plane

    def stretches(self, plane: Plane) -> tuple[Array, Array]:
        """How many times longer (T,) the plane at most and at least makes what is short; negative if turned over."""
        one, other = (self.surface.corners[self.faces][:, k] for k in (1, 2))  # the first is at 0
        to_one, to_other = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
        twice_area = np.where(one.real * other.imag > 0, one.real * other.imag, np.nan)
        # The map is a z + b conj(z).
        a = (to_one * np.conj(other) - to_other * np.conj(one)) / (-2j * twice_area)
        b = (to_other * one - to_one * other) / (-2j * twice_area)
        largest, least = np.abs(a) + np.abs(b), np.abs(a) - np.abs(b)
        return np.nan_to_num(largest, nan=1.0), np.nan_to_num(least, nan=1.0)  # what has no area is not stretched

    def overlapping(self, plane: Plane) -> set[int]:
        """Which sheets lie on themselves, where no triangle is turned over.

        That is where the border crosses itself, or goes round more than once: then triangles do around a vertex.
        """
        corner = np.stack([_angle(np.roll(plane, -k, axis=1)) for k in range(3)], axis=1)
        around = np.bincount(self.vertex.ravel(), corner.ravel())
        out = set(self.sheet[(around > 2 * np.pi + 1e-3)[self.vertex].any(axis=1)].tolist())
        begin, end = plane[self.border], np.roll(plane, -1, axis=1)[self.border]
        sheet = np.repeat(self.sheet, 3)[self.border.ravel()]
        order = np.argsort(sheet, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(sheet[order])) + 1):
            if len(part) and _cross_themselves(begin[part], end[part]):
                out.add(int(sheet[part[0]]))
        return out


def _edges_of(plane: Plane) -> Plane:
    return np.roll(plane, -1, axis=1) - plane


def _angle(plane: Plane) -> Array:
    """Of triangles (T, 3), at their first corner."""
    return np.abs(np.angle((plane[:, 2] - plane[:, 0]) * np.conj(plane[:, 1] - plane[:, 0])))


def _cross_themselves(begin: Plane, end: Plane) -> bool:
    """Whether any two of N edges cross; to touch at their ends is no crossing."""
    points = np.concatenate([begin, end])
    at_once = max(1, _MOST_PAIRS // len(points))
    straddles = []
    for first in range(0, len(begin), at_once):
        from_here, along = begin[first : first + at_once, None], (end - begin)[first : first + at_once, None]
        to = points[None] - from_here
        side = along.real * to.imag - along.imag * to.real  # exactly 0 of the edge's own ends
        straddles.append(side[:, : len(begin)] * side[:, len(begin) :] < 0)
    straddled = np.concatenate(straddles)
    return bool((straddled & straddled.T).any())
