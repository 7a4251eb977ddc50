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
from render.sources.g3d import G3dMesh, read_g3d

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

        draw = hashlib.sha256(self.object_id.encode()).digest()[0]
        player = _PLAYER_COLOURS[draw % len(_PLAYER_COLOURS)]
        scene = trimesh.Scene()
        for mesh in read_g3d(self.path.read_bytes(), self.path.name):
            scene.add_geometry(_to_trimesh(mesh, self.path.parent, player), transform=Z_UP_FROM_Y_UP)
        return scene


def claims(path: Path) -> bool:
    """Take models by their suffix."""
    return path.suffix.lower() == SUFFIX


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """One object for each distinct set of faces, texture coordinates and pictures, in an order that mixes all kinds."""
    seen: set[str] = set()
    objects = []
    for path in sorted(paths, key=_standing_first):
        if any(word in path.stem.lower() for word in _NOT_WHOLE):
            continue
        shape = None
        try:
            meshes = read_g3d(path.read_bytes(), path.name)
        except Unusable:
            pass  # listed, so that the run reports it
        else:
            if sum(len(mesh.faces) for mesh in meshes) < _FEWEST_FACES:
                continue
            shape = _hash(*(part.tobytes() for m in meshes for part in (m.faces, *([] if m.uv is None else [m.uv]))))
            skin = _hash(shape.encode(), *(_picture_bytes(path.parent, m) for m in meshes))
            if skin in seen:
                continue
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


def _standing_first(path: Path) -> tuple[bool, str]:
    return not any(word in path.stem.lower() for word in _AT_REST), str(path)


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _picture_bytes(folder: Path, mesh: G3dMesh) -> bytes:
    path = folder / (mesh.texture or "")
    return path.read_bytes() if mesh.texture and path.is_file() else mesh.diffuse.tobytes()


def _to_trimesh(mesh: G3dMesh, folder: Path, player: tuple[int, int, int]) -> trimesh.Trimesh:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    if mesh.texture is None or mesh.uv is None:
        material = SimpleMaterial(diffuse=(mesh.diffuse * 255).round().astype("uint8"))
    else:
        material = SimpleMaterial(image=_paint(_open_picture(folder, mesh.texture), mesh, player))
    visual = TextureVisuals(uv=mesh.uv, material=material)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, visual=visual, process=False)


def _open_picture(folder: Path, name: str) -> Image.Image:
    from PIL import Image

    path = folder / Path(name).name
    try:
        return Image.open(path)
    except OSError as error:
        raise Unusable(f"texture {name} is missing or damaged: {error}") from error


def _paint(picture: Image.Image, mesh: G3dMesh, player: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    rgba = picture.convert("RGBA")
    if not mesh.player_colour:
        return rgba
    return Image.composite(rgba.convert("RGB"), Image.new("RGB", rgba.size, player), rgba.getchannel("A"))
