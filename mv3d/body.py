"""A closed mesh as a solid of manifold3d, which cuts, joins and simplifies it, and back."""

from __future__ import annotations

import manifold3d
import numpy as np

from mv3d.mesh import Mesh


def body_of(mesh: Mesh) -> manifold3d.Manifold:
    """The solid inside a mesh; its ``status()`` is not ``NoError`` where the mesh does not close. Colours are lost."""
    return manifold3d.Manifold(
        manifold3d.Mesh(
            np.ascontiguousarray(mesh.vertices, dtype=np.float32), np.ascontiguousarray(mesh.faces, dtype=np.uint32)
        )
    )


def mesh_of(body: manifold3d.Manifold) -> Mesh:
    """The surface of a solid, without a texture."""
    surface = body.to_mesh()
    return Mesh(surface.vert_properties[:, :3].astype(np.float64), surface.tri_verts.astype(np.int64))
