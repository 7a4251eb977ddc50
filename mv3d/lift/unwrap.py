"""From a surface to a plane for its texture."""

from __future__ import annotations

import numpy as np
import xatlas
from numpy.typing import NDArray

from mv3d.mesh import Mesh

_GUTTER_PX = 2  # around charts, and one more for filters, so that neither these nor smaller copies mix them


def unwrap(mesh: Mesh, size_px: int) -> NDArray[np.float64]:
    """Cut the surface into charts and lay them out in a square texture (Lévy et al. 2002, by xatlas).

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
    options = xatlas.PackOptions()
    options.resolution = size_px  # about: it is filled, and overflows where the charts are hard to pack
    options.padding = _GUTTER_PX
    options.bilinear = True
    options.bruteForce = options.blockAlign = True  # every place a multiple of four texels: fuller, and hardly slower
    atlas.generate(pack_options=options)
    _, corners, uv = atlas[0]
    return uv.astype(np.float64)[corners]  # of the whole texture: a layout that is not square is stretched to fill it
