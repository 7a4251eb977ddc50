"""Blender's Cycles behind the ray caster's interface: the same object in the same place, cameras and lights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mv3d.blender import RenderSettings, render_in_blender
from mv3d.cameras import Camera
from mv3d.pixels import Frames
from render.scene.lights import Lights
from render.scene.scene import RenderScene
from render.sources import SourceObject

_SRGB_SUFFIXES = (".obj", ".dae")  # as render/scene/materials.py reads them, and the programs their authors looked at


def render_orbit(
    item: SourceObject,
    scene: RenderScene,
    cameras: Sequence[Camera],
    lights: Lights | dict[str, Any] | None,
    *,
    samples: int = 16,
    threads: int = 0,
) -> Frames:
    """Let Blender import an object's own files and render them: float32 (N, H, W, 4), sRGB, straight alpha.

    Args:
        item: the object; Blender reads its files, with all that its materials say.
        scene: the same object as the ray caster sees it; only where it stands is taken from it.
        cameras: one for each frame.
        lights: as the ray caster has them, or a dictionary as in `RenderSettings.lights`; None shows base colours.
        samples: rays per pixel.
        threads: 0 for one per core.

    Raises:
        Mv3dError: if there is no Blender, or it fails; the message ends with the tail of its log.
    """
    if isinstance(lights, Lights):
        lights = {
            "sky": float(lights.sky),
            "ground": float(lights.ground),
            "directions": lights.directions.tolist(),
            "strengths": lights.strengths.tolist(),
        }
    with tempfile.TemporaryDirectory(prefix="mv3d-object-") as folder:
        path, loaded_from_imported = item.write_files(Path(folder))
        settings = RenderSettings(
            shading="flat" if lights is None else "lit",
            samples=samples,
            placement=scene.world_from_loaded @ loaded_from_imported,
            srgb_factors=path.suffix.lower() in _SRGB_SUFFIXES,
            lights=lights,
            threads=threads,
        )
        return render_in_blender(path, cameras, settings)
