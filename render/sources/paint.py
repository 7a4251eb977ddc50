"""How both games dress their meshes: a picture whose alpha says where the player's colour goes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from numpy.typing import NDArray

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

Colour = tuple[int, int, int]
"""SRGB, 0 to 255."""


def draw_colour(colours: Sequence[Colour], seed: str) -> Colour:
    """Choose one; the same seed chooses the same."""
    return colours[hashlib.sha256(seed.encode()).digest()[0] % len(colours)]


def paint_over(rgba: Image.Image, colour: Colour) -> Image.Image:
    """The picture where its alpha is 255, the colour where it is 0; without alpha."""
    from PIL import Image

    return Image.composite(rgba.convert("RGB"), Image.new("RGB", rgba.size, colour), rgba.getchannel("A"))


def textured_mesh(
    vertices: NDArray, faces: NDArray, normals: NDArray, uv: NDArray | None, look: Image.Image | NDArray
) -> trimesh.Trimesh:
    """A mesh that wears a picture, or one colour (sRGB and opacity, (4,), 0 to 1)."""
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    if isinstance(look, Image.Image):
        material = SimpleMaterial(image=look)
    else:
        material = SimpleMaterial(diffuse=(look * 255).round().astype("uint8"))
    visual = TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(vertices, faces, vertex_normals=normals, visual=visual, process=False)
