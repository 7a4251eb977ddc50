"""OBJ files, whose faces may have any number of corners."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from render.sources.loading import load_scene
from render.sources.polygons import cut_concave_faces

if TYPE_CHECKING:
    import trimesh
    from trimesh.resolvers import Resolver


def load_obj(data: bytes, resolver: Resolver, *, cut_faces: bool = True) -> trimesh.Scene:
    """Load an OBJ file; without ``cut_faces`` its concave faces come as the fans that trimesh makes of them."""
    if cut_faces:
        text = cut_concave_faces(data.decode("latin-1"))  # every byte has a letter there, so names pass unharmed
        data = text.encode("latin-1")
    return load_scene(BytesIO(data), resolver, file_type="obj")
