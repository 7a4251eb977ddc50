"""From a surface to a plane for its texture."""

from __future__ import annotations

import numpy as np
import xatlas

from mv3d.lift.charts import Charts
from mv3d.lift.flattening import Array, SurfaceTriangles
from mv3d.mesh import Mesh

_GUTTER_PX = 2  # around charts, and one more for filters, so that neither these nor smaller copies mix them
_FLATTEST = 1.0  # cost of a chart, of xatlas' 2: smaller and flatter ones are found sooner, and join to rounder ones
_SHARED = (0.4, 0.3, 0.2)  # of its border: what a chart shares at least with the one that it joins, one after the other
_FILLED = 0.65  # of a texture, as a rule
_LONGEST = 0.8  # of a layout that is not square, the side that counts
_TRIED_PX = 1024  # sides of the layouts that are compared


def unwrap(mesh: Mesh, size_px: int) -> Array:
    """Cut the surface into charts and lay them out in a square texture.

    xatlas cuts (Lévy et al. 2002), into many small charts where the surface is rough; these are joined to larger ones,
    and of the layouts on the way the fullest is taken.

    Args:
        mesh: with neighbouring faces that share their vertices.
        size_px: sides of the texture, which are filled as well as the charts' shapes allow.

    Returns:
        ``corner_uv`` (F, 3, 2), as `mv3d.mesh.Texture` has it.
    """
    # xatlas knows lengths that are nothing and normals that are none by fixed limits, made for things about 1 large.
    size = float((mesh.extent[1] - mesh.extent[0]).max())
    vertices = (mesh.vertices - mesh.extent[0]) / size
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    cutting = xatlas.ChartOptions()
    cutting.max_cost = _FLATTEST
    atlas.generate(cutting)
    _, corners, uv = atlas[0]
    surface = SurfaceTriangles.of(Mesh(vertices, mesh.faces))
    charts = Charts.of_layout(surface, corners.astype(np.int64), uv * np.array([atlas.width, atlas.height]))
    tried_px, found = min(size_px, _TRIED_PX), []
    for joined in reversed(charts.joined(surface, _SHARED)):
        found.append((joined, *_lay_out(joined, tried_px)))
        if found[-1][2] <= tried_px**2:
            break
    best, corner_uv, _ = min(found, key=lambda one: one[2])
    return corner_uv if size_px == tried_px else _lay_out(best, size_px)[0]


def _lay_out(charts: Charts, size_px: int) -> tuple[Array, float]:
    """Lay charts out in a square, ``corner_uv`` as of `unwrap`.

    Also returns how many pixels that takes, if they are as large as in a square of ``size_px`` that is filled as usual.
    """
    texels = charts.apart() * size_px * _FILLED**0.5
    vertices, corners = np.unique(texels.reshape(-1, 2).astype(np.float32), axis=0, return_inverse=True)
    atlas = xatlas.Atlas()
    atlas.add_uv_mesh(vertices, corners.reshape(-1, 3).astype(np.uint32))
    options = xatlas.PackOptions()
    options.texels_per_unit = 1
    options.padding = _GUTTER_PX
    options.bilinear = True
    options.bruteForce = options.blockAlign = True  # every place a multiple of four texels: fuller, and hardly slower
    atlas.generate(pack_options=options)
    _, corners, uv = atlas[0]
    # Of the whole texture: a layout that is not square is stretched to fill it.
    needed = max(atlas.width * atlas.height, (_LONGEST * max(atlas.width, atlas.height)) ** 2)
    return uv.astype(np.float64)[corners], needed
