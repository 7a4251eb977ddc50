"""From a field on a grid to a closed surface."""

from __future__ import annotations

from dataclasses import replace

import manifold3d
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from skimage.measure import marching_cubes

from mv3d.body import body_of, mesh_of
from mv3d.errors import Mv3dError
from mv3d.lift.grid import Grid
from mv3d.mesh import Mesh

SMALLEST_PART = 0.005
"""Of the largest part's volume: smaller ones are left out, and hollows inside, whose volume is negative, as well."""
LARGEST_CRUMB = 2e-4
"""The same of what comes off when a surface is simplified, which cuts threads; ends of spikes are larger and stay."""
_SHRINKING, _SWELLING = 0.5, 0.53  # of the way to the mean of its neighbours, towards it and away from it
_TOLERANCE = 0.2  # grid cells the simplified surface may stray: invisible, and a tenth of the triangles
_FINEST = 5e-4  # of a surface's size: the tolerance at which simplifying begins where there is no grid
_MOST_DOUBLINGS = 16  # of the square of the tolerance


def extract_surface(field: NDArray[np.float32], grid: Grid, most_faces: int | None = None) -> Mesh:
    """Make the closed surface around the positive values: no specks, no hollows inside, few triangles.

    Triangles are ``most_faces`` at most if that is given, unless the object has so many parts that these cannot do.

    Raises:
        Mv3dError: if nothing is left.
    """
    if not (field > 0).any():
        raise Mv3dError("no body has these silhouettes: the views disagree, or the object is thinner than a cell")
    # Exact zeros would put several vertices on one grid point.
    least = 1e-4 * grid.spacing
    field = np.where(np.abs(field) < least, np.float32(least), field)
    on_border = np.pad(np.zeros(np.array(field.shape) - 2, dtype=bool), 1, constant_values=True)
    field[on_border] = np.minimum(field[on_border], -least)  # an object that leaves every picture is closed here
    corners, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="ascent")
    body = body_of(Mesh(grid.points(corners), faces.astype(np.int64)))
    assert body.status() == manifold3d.Error.NoError, body.status()
    simple = _simplified(_parts_above(SMALLEST_PART, body), _TOLERANCE * grid.spacing, most_faces)
    mesh = mesh_of(_parts_above(LARGEST_CRUMB, simple))
    return replace(mesh, vertices=_apart(mesh, 1e-3 * grid.spacing))


def smoothed(mesh: Mesh, passes: int) -> Mesh:
    """Even out the steps of the grid without shrinking (Taubin 1995): each pass in turn shrinks and swells."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    size = len(mesh.vertices)
    neighbours = sparse.coo_matrix((np.ones(len(edges), dtype=bool), edges.T), shape=(size, size))
    neighbours = neighbours / neighbours.sum(axis=1)
    vertices = mesh.vertices.copy()
    for k in range(passes):
        to_mean = neighbours.dot(vertices) - vertices
        vertices += -_SWELLING * to_mean if k % 2 else _SHRINKING * to_mean
    return Mesh(vertices, mesh.faces, mesh.texture)


def simplify_surface(mesh: Mesh, most_faces: int) -> Mesh:
    """A closed surface with ``most_faces`` triangles at most, without its texture; as it is if it has no more."""
    if len(mesh.faces) <= most_faces:
        return mesh
    body = body_of(mesh)
    assert body.status() == manifold3d.Error.NoError, body.status()
    size = float(np.ptp(mesh.extent, axis=0).max())
    simple = mesh_of(_simplified(body, _FINEST * size, most_faces))
    return replace(simple, vertices=_apart(simple, 1e-2 * _FINEST * size))


def _parts_above(share: float, body: manifold3d.Manifold) -> manifold3d.Manifold:
    """A body without hollows, and without parts that have no more than a share of the largest one's volume."""
    parts = body.decompose()
    volumes = np.array([part.volume() for part in parts])
    kept = [part for part, volume in zip(parts, volumes, strict=True) if volume > share * volumes.max()]
    return manifold3d.Manifold.compose(kept)


def _simplified(body: manifold3d.Manifold, tolerance: float, most_faces: int | None) -> manifold3d.Manifold:
    """Let the surface stray by ``tolerance``, or by more until it has few enough triangles."""
    out = body.simplify(tolerance)
    for _ in range(_MOST_DOUBLINGS):
        if most_faces is None or out.num_tri() <= most_faces:
            break
        tolerance *= 2**0.5
        coarser = out.simplify(tolerance)
        if coarser.is_empty():
            break
        out = coarser
    return out


def _apart(mesh: Mesh, distance: float) -> NDArray[np.float64]:
    """Move vertices that touch another part of the surface a little inwards, each on its own side.

    Files store places, not neighbours: two vertices at one place would come back as one, and the surface not closed.
    """
    _, place, count = np.unique(mesh.vertices, axis=0, return_inverse=True, return_counts=True)
    touching = (count > 1)[place.reshape(-1)]
    return mesh.vertices - distance * touching[:, None] * mesh.vertex_normals()
