"""The game MegaGlest's models: people, animals, buildings and plants, as G3D files with pictures beside them.

A unit has a file for every animation, all of one mesh: one object for each set of meshes and pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from render.errors import Unusable
from render.sources.base import Z_UP_FROM_Y_UP, SourceObject, slug
from render.sources.g3d import G3dMesh, fingerprints, read_g3d
from render.sources.paint import Colour, draw_colour, paint_over, textured_mesh

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

SUFFIX = ".g3d"
_FEWEST_FACES = 100
_AT_REST = ("stand", "idle", "stop")
_NOT_WHOLE = ("destruct", "construct", "die", "dying", "dead_unit", "decay")
_LICENCE = "CC-BY-SA-3.0"
_AUTHORS = "the Glest and MegaGlest teams (megaglest.org)"
_PLAYER_COLOURS = ((150, 30, 30), (46, 86, 160), (56, 120, 40), (200, 170, 40), (220, 220, 220), (60, 150, 150))


@dataclass(frozen=True, kw_only=True)
class GlestModel(SourceObject):
    """A model's first frame."""

    def load(self) -> trimesh.Scene:
        """Load the model; a player's colour is drawn from its name."""
        import trimesh

        player = draw_colour(_PLAYER_COLOURS, self.object_id)
        scene = trimesh.Scene()
        for mesh in read_g3d(self.path.read_bytes(), self.path.name):
            look = mesh.diffuse if mesh.texture is None else _picture(self.path.parent, mesh, player)
            dressed = textured_mesh(mesh.vertices, mesh.faces, mesh.normals, mesh.uv, look)
            scene.add_geometry(dressed, transform=Z_UP_FROM_Y_UP)
        return scene


def claims(path: Path) -> bool:
    """Take models by their suffix."""
    return path.suffix.lower() == SUFFIX


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """One object for each distinct set of faces, texture coordinates and pictures, in an order that mixes all kinds."""
    seen: set[str] = set()
    objects = []
    for path in sorted(paths, key=lambda path: (not _named(path, _AT_REST), str(path))):
        if _named(path, _NOT_WHOLE):
            continue
        try:
            meshes = read_g3d(path.read_bytes(), path.name)
        except Unusable:
            objects.append(_model(path, root, None))  # so that the run reports it
            continue
        shape, skin = fingerprints(meshes, path.parent)
        if skin not in seen and sum(len(mesh.faces) for mesh in meshes) >= _FEWEST_FACES:
            seen.add(skin)
            objects.append(_model(path, root, shape))
    return sorted(objects, key=lambda item: hashlib.sha256(item.object_id.encode()).digest())


def _model(path: Path, root: Path, shape: str | None) -> GlestModel:
    parts = path.relative_to(root).with_suffix("").parts
    short = [part for part in parts if part not in ("usr", "share", "games", "data", "models", "factions", "units")]
    return GlestModel(
        object_id="/".join(slug(part) for part in (short if short[0] == "megaglest" else ["megaglest", *short])),
        name=path.stem.replace("_", " "),
        category="/".join(short[-3:-1]) or None,
        licence=_LICENCE,
        attribution=f"{'/'.join(short)} by {_AUTHORS}",
        path=path,
        shape=shape,
    )


def _named(path: Path, words: Sequence[str]) -> bool:
    return any(word in path.stem.lower() for word in words)


def _picture(folder: Path, mesh: G3dMesh, player: Colour) -> Image.Image:
    from PIL import Image

    try:
        rgba = Image.open(folder / Path(mesh.texture or "").name).convert("RGBA")
    except OSError as error:
        raise Unusable(f"texture {mesh.texture} is missing or damaged: {error}") from error
    return paint_over(rgba, player) if mesh.player_colour else rgba
