"""What a loaded mesh looks like, whichever format and material model it came with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mv3d.srgb import srgb_to_linear
from render.errors import Unusable
from render.sources.gltf import REPEAT, Wrap

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

_MAX_TEXTURE_PX = 1024
_TRIMESH_GREY = (102, 102, 102, 255)  # what trimesh puts where a file says nothing
_GLTF_CUTOFF = 0.5  # where the material does not say


@dataclass(frozen=True, eq=False)
class Look:
    """The look of a mesh of T triangles."""

    colours: NDArray
    """Linear RGBA at the corners, multiplies the picture, (T, 3, 4)."""
    uv: NDArray
    """Texture coordinates of the decoded picture, V up, (T, 3, 2)."""
    picture: Image.Image | None
    cutoff: float | None
    """Below this the picture's alpha is 0, else 1; 0 ignores alpha, None keeps it."""
    known: bool
    """Whether any of it came from the file."""
    wrap: tuple[Wrap, Wrap] = REPEAT
    """How the picture goes on beyond its edges, along u and v."""


def look_of(mesh: trimesh.Trimesh, *, linear_colours: bool) -> Look:
    """Find out what a mesh looks like; ``linear_colours`` says that its numbers are linear light, as in glTF.

    Raises:
        Unusable: if it mixes materials in a way that trimesh keeps and nothing here reads.
    """
    visual: Any = mesh.visual
    count = len(mesh.faces)
    uv = np.zeros((count, 3, 2))
    if visual.kind == "vertex":
        return Look(_linear(visual.vertex_colors[mesh.faces], linear_colours), uv, None, None, True)
    if visual.kind == "face":
        rgba = visual.face_colors[:, None].repeat(3, axis=1)
        return Look(_linear(rgba, linear_colours), uv, None, None, True)
    material = getattr(visual, "material", None)
    if material is None:
        return Look(np.ones((count, 3, 4)), uv, None, None, False)
    if hasattr(material, "materials"):
        raise Unusable("several materials on one mesh")
    picture = _picture(material)
    if picture is not None and visual.uv is not None and len(visual.uv) == len(mesh.vertices):
        uv = np.asarray(visual.uv)[mesh.faces][..., :2]
    wrap: tuple[Wrap, Wrap] = getattr(material, "wrap", REPEAT)
    uv = uv / [2 if way == "mirror" else 1 for way in wrap]  # the decoded picture is doubled
    # Without coordinates the picture's corner is everywhere, as in Blender: nearer the truth than white.
    factor, known = _factor(material, linear_colours, textured=picture is not None)
    tint = visual.vertex_attributes.get("color")
    if tint is None:
        tint = mesh.vertex_attributes.get("color")  # where trimesh puts a PLY's, if it has texture coordinates too
    if tint is not None and len(tint) == len(mesh.vertices):
        from trimesh.visual.color import to_rgba

        colours = _linear(to_rgba(tint)[mesh.faces], linear_colours)
        colours = colours * factor if known or picture is not None else colours
        known = True
    else:
        colours = np.broadcast_to(factor, (count, 3, 4))
    cutoff = _cutoff(material) if linear_colours else None
    if cutoff == 0:
        colours = np.concatenate([colours[..., :3], np.ones((count, 3, 1))], axis=-1)
    return Look(colours, uv, picture, cutoff, known or picture is not None, wrap)


def decode_picture(look: Look) -> NDArray[np.uint8]:
    """Pixels of the look's picture, sRGB and straight alpha, (H, W, 4), reduced where it is very large.

    One that goes on as its mirror image is doubled, so that it repeats.

    Raises:
        Unusable: if the picture is damaged.
    """
    from PIL import Image

    assert look.picture is not None
    try:
        rgba = look.picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError) as error:
        raise Unusable(f"a texture cannot be decoded: {error}") from error
    if max(rgba.size) > _MAX_TEXTURE_PX:
        scale = _MAX_TEXTURE_PX / max(rgba.size)
        rgba = rgba.resize(
            (max(1, round(rgba.width * scale)), max(1, round(rgba.height * scale))), Image.Resampling.BOX
        )
    pixels = np.array(rgba)
    if look.cutoff is not None:
        pixels[..., 3] = np.where(pixels[..., 3] >= look.cutoff * 255, 255, 0)
    if look.wrap[0] == "mirror":
        pixels = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    if look.wrap[1] == "mirror":
        pixels = np.concatenate([pixels[::-1], pixels], axis=0)  # V is up: the picture itself is the lower half
    return pixels


def _picture(material: Any) -> Image.Image | None:
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if picture is not None and picture.format is None and picture.size == (2, 2):
        return None  # trimesh's placeholder: made up, not read from a file
    return picture


def _factor(material: Any, linear_colours: bool, *, textured: bool) -> tuple[NDArray, bool]:
    """The material's linear RGBA (4,) and whether the file gave it."""
    given = getattr(material, "kwargs", {})
    opacity = np.array([1, 1, 1, np.clip(float(given["d"][-1]), 0, 1) if "d" in given else 1])
    base = getattr(material, "baseColorFactor", None)
    if base is not None:
        return _linear(np.asarray(base), linear_colours) * opacity, True
    diffuse = getattr(material, "diffuse", None)
    if textured or diffuse is None:
        # A Kd beside a picture is what exporters leave behind, often black or grey; Blender does not multiply either.
        return opacity, False
    return _linear(np.asarray(diffuse), linear_colours) * opacity, "kd" in given or tuple(diffuse) != _TRIMESH_GREY


def _cutoff(material: Any) -> float | None:
    """GlTF's alpha modes: opaque unless the material says otherwise."""
    mode = getattr(material, "alphaMode", None)
    if mode == "BLEND":
        return None
    if mode == "MASK":
        cutoff = material.alphaCutoff
        return _GLTF_CUTOFF if cutoff is None else float(cutoff)
    return 0.0


def _linear(rgba: NDArray[np.uint8], already: bool) -> NDArray:
    unit = rgba.astype(np.float64) / 255
    if already:
        return unit
    return np.concatenate([srgb_to_linear(unit[..., :3]), unit[..., 3:]], axis=-1)
