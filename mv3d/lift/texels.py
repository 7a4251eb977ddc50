"""The texels of a square texture that lie on a surface: where on it each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mv3d.lift.raster import Raster, rasterize

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Texels:
    """P texels, in the middle of which a triangle lies."""

    size_px: int
    """Sides of the texture."""
    found: Raster
    """Their rows, columns, triangles and weights of the triangles' corners."""

    @classmethod
    def of(cls, corner_uv: Array, size_px: int) -> Texels:
        """Those of triangles at ``corner_uv`` (F, 3, 2), as `mv3d.mesh.Texture` has it."""
        corners_px = np.stack([corner_uv[..., 0], 1 - corner_uv[..., 1]], axis=-1) * size_px
        return cls(size_px, rasterize(corners_px, np.ones(corner_uv.shape[:2]), size_px, size_px))

    def interpolate(self, at_corners: Array) -> Array:
        """Values at the triangles' corners (F, 3, C), looked up at the texels, (P, C)."""
        return np.einsum("pkc,pk->pc", at_corners[self.found.faces], self.found.barycentric)

    def unit(self, at_corners: Array) -> Array:
        """Directions at the triangles' corners (F, 3, 3), looked up at the texels with length 1, (P, 3)."""
        out = self.interpolate(at_corners)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)

    def picture(self, values: Array) -> NDArray[np.float32]:
        """The texture (S, S, 3) of the texels' values (P, 3).

        Between the charts goes the nearest chart's value, so that no filter mixes in what is none.
        """
        out = np.zeros((self.size_px, self.size_px, 3), dtype=np.float32)
        out[self.found.rows, self.found.columns] = values
        empty = np.ones((self.size_px, self.size_px), dtype=bool)
        empty[self.found.rows, self.found.columns] = False
        nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        return out[tuple(nearest)]
