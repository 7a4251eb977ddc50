"""The mesh between lifting, exporting and scoring: in the world's frame (Z up), in the world's scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture wrapped around a mesh.

    ``pixels`` is (height, width, 3) uint8 sRGB; ``corner_uv`` is (F, 3, 2), one position for each corner of each face,
    in [0, 1] with the origin at the picture's *lower* left corner (OBJ, Blender). Seams need no doubled vertices here.
    ``normals`` is a map of a finer surface's normals over `Mesh.corner_normals`, (.., .., 3) uint8 of its own size:
    red along u, green along v, blue along the normal, 0 to 255 for -1 to 1.
    """

    pixels: NDArray[np.uint8]
    corner_uv: NDArray[np.float64]
    normals: NDArray[np.uint8] | None = None

    def at(self, uv: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Look up the nearest pixels at positions (..., 2); returns (..., 3)."""
        height, width = self.pixels.shape[:2]
        column = np.clip(uv[..., 0] * width, 0, width - 1).astype(np.int64)
        row = np.clip((1 - uv[..., 1]) * height, 0, height - 1).astype(np.int64)
        return self.pixels[row, column]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles: ``vertices`` (V, 3) in the world, ``faces`` (F, 3) counter-clockwise seen from outside."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    texture: Texture | None = None

    def __post_init__(self) -> None:
        num_vertices, num_faces = len(self.vertices), len(self.faces)
        if self.vertices.shape != (num_vertices, 3) or self.faces.shape != (num_faces, 3):
            raise ValueError(f"vertices {self.vertices.shape} and faces {self.faces.shape} must be (V, 3) and (F, 3)")
        if num_faces and not (self.faces.min() >= 0 and self.faces.max() < num_vertices):
            raise ValueError(f"faces name vertices outside 0..{num_vertices - 1}")
        if self.texture is not None and self.texture.corner_uv.shape != (num_faces, 3, 2):
            raise ValueError(f"corner_uv {self.texture.corner_uv.shape} must be ({num_faces}, 3, 2)")

    @property
    def extent(self) -> NDArray[np.float64]:
        """Lower and upper corner of the bounding box, (2, 3)."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    @property
    def is_watertight(self) -> bool:
        """Whether every edge is shared by exactly two faces that run along it in opposite directions."""
        forward = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        keys = np.unique(forward @ [len(self.vertices), 1])
        opposite_keys = np.unique(forward @ [1, len(self.vertices)])
        return len(keys) == len(forward) > 0 and np.array_equal(keys, opposite_keys)

    def welded(self) -> Mesh:
        """The same with vertices at the same place made one, so that what is closed to the eye is closed."""
        vertices, index = np.unique(self.vertices, axis=0, return_inverse=True)
        return Mesh(vertices, index.reshape(-1)[self.faces], self.texture)

    def vertex_normals(self) -> NDArray[np.float64]:
        """Unit normals (V, 3), averaged over the faces around each vertex by their area."""
        corners = self.vertices[self.faces]
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = self._sum_over_faces(np.repeat(face_normals[:, None], 3, axis=1))
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def corner_normals(self, crease_deg: float = 60.0) -> NDArray[np.float64]:
        """Unit normals (F, 3, 3), one for each corner of each face, to shade the surface smoothly between its edges.

        Averaged by area over the faces around the vertex that are turned by less than ``crease_deg`` from the corner's
        own.
        """
        corners = self.vertices[self.faces]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        unit = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300)
        # All pairs of corners that share a vertex: each of its corners with each.
        order = np.argsort(self.faces.ravel(), kind="stable")
        count = np.bincount(self.faces.ravel(), minlength=len(self.vertices))
        first = np.cumsum(count) - count
        own_count = count[self.faces.ravel()[order]]
        one = np.repeat(np.arange(len(order)), own_count)
        start = np.repeat(np.cumsum(own_count) - own_count, own_count)
        other = first[self.faces.ravel()[order]][one] + np.arange(len(one)) - start
        face, neighbour = order[one] // 3, order[other] // 3
        alike = (unit[face] * unit[neighbour]).sum(axis=1) > np.cos(np.radians(crease_deg))
        alike |= face == neighbour
        corner, shared = order[one][alike], across[neighbour[alike]]
        sums = [np.bincount(corner, shared[:, axis], minlength=len(order)) for axis in range(3)]
        normals = np.stack(sums, axis=1)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        own = np.repeat(unit, 3, axis=0)
        return np.where(length > 0, normals / np.maximum(length, 1e-300), own).reshape(-1, 3, 3)

    def vertex_colours(self) -> NDArray[np.uint8]:
        """The texture's colours at the vertices, (V, 3) uint8 sRGB, for formats that have no texture."""
        if self.texture is None:
            raise ValueError("this mesh has no texture")
        corner_colours = self.texture.at(self.texture.corner_uv).astype(np.float64)
        num_corners = np.bincount(self.faces.ravel(), minlength=len(self.vertices))[:, None]
        return (self._sum_over_faces(corner_colours) / np.maximum(num_corners, 1) + 0.5).astype(np.uint8)

    def _sum_over_faces(self, of_corners: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum values of face corners (F, 3, 3) at their vertices, (V, 3)."""
        flat = of_corners.reshape(-1, 3)
        columns = [np.bincount(self.faces.ravel(), flat[:, k], minlength=len(self.vertices)) for k in range(3)]
        return np.stack(columns, axis=1, dtype=np.float64)
