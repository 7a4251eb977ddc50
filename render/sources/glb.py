"""Objects of any source as files that Blender reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mv3d.srgb import srgb_to_linear

if TYPE_CHECKING:
    import trimesh


def write_glb(scene: trimesh.Scene, path: Path, *, y_up_from_scene: np.ndarray) -> None:
    """Write a scene of sRGB materials (none of glTF's own) as binary glTF."""
    copy = scene.copy()
    for mesh in copy.geometry.values():
        visual: Any = mesh.visual
        if visual.kind == "texture":
            visual.material = _pbr(visual.material)
    copy.apply_transform(y_up_from_scene)
    data: Any = copy.export(file_type="glb")
    path.write_bytes(data)


def _pbr(material: Any) -> Any:
    from trimesh.visual.material import PBRMaterial

    if material.image is None:
        rgba = np.asarray(material.diffuse, dtype=np.float64) / 255
        rgba[:3] = srgb_to_linear(rgba[:3])
        see_through = "BLEND" if rgba[3] < 1 else None
        return PBRMaterial(baseColorFactor=rgba, alphaMode=see_through, metallicFactor=0.0, roughnessFactor=1.0)
    picture = material.image
    see_through = "BLEND" if picture.mode == "RGBA" and picture.getchannel("A").getextrema()[0] < 255 else None
    return PBRMaterial(baseColorTexture=picture, alphaMode=see_through, metallicFactor=0.0, roughnessFactor=1.0)
