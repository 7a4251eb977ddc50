"""0 A.D.'s archive, and actors put together from it."""

from __future__ import annotations

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable
from render.sources.actors import Actor, read_actor
from render.sources.base import Z_UP_FROM_Y_UP
from render.sources.pmd import PmdMesh, read_pmd
from render.sources.zipped import read_member

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

_DEEPEST = 6  # props of props
_NO_PROPS = ("particle/", "special/", "props/structures/decals/", "props/special/")
_SEE_THROUGH = ("basic_trans", "trans_wind", "blend", "basic_glow")
_NOT_SHOWN = ("aura", "waterfall", "player_water")
_PLAYER_COLOURS = ((46, 86, 160), (150, 30, 30), (56, 120, 40), (200, 170, 40), (110, 60, 130), (200, 110, 30))
_FROM_GAME = np.diag([1.0, 1.0, -1.0, 1.0])  # the game's axes are left-handed


class Archive:
    """``public.zip``, read file by file."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.names = frozenset(self._zip.namelist())

    def read(self, name: str) -> bytes:
        """A file's bytes; a `KeyError` if there is none, `Unusable` if it is damaged."""
        return read_member(self._zip, name)

    def mesh(self, name: str) -> PmdMesh:
        """A mesh by the name actors use."""
        try:
            return read_pmd(self.read(f"art/meshes/{name}.cached.pmd"), name)
        except KeyError:
            raise Unusable(f"mesh {name} is missing") from None

    def texture(self, name: str) -> Image.Image:
        """A picture by the name actors use."""
        from PIL import Image

        try:
            return Image.open(BytesIO(self.read(f"art/textures/skins/{name}.cached.dds")))
        except (KeyError, OSError) as error:
            raise Unusable(f"texture {name} is missing or damaged: {error}") from error


def dress(archive: Archive, name: str, *, seed: str, alone: bool = False) -> trimesh.Scene:
    """Put an actor and its props (not if ``alone``) together, Z up.

    Args:
        archive: the game's data.
        name: of the actor, inside art/actors.
        seed: draws the colour of the player whose the object is.
        alone: leave the props away.

    Raises:
        Unusable: if a mesh, a picture or an actor is missing or damaged.
    """
    draw = hashlib.sha256(seed.encode()).digest()[0]
    dresser = _Dresser(archive, _PLAYER_COLOURS[draw % len(_PLAYER_COLOURS)])
    dresser.hang(name, np.eye(4), 0 if alone else _DEEPEST)
    if not dresser.scene.geometry:
        raise Unusable("nothing to see")  # water and auras are left out
    dresser.scene.apply_transform(Z_UP_FROM_Y_UP @ _FROM_GAME)
    return dresser.scene


class _Dresser:
    """Hangs actors into a scene; pictures that several of them wear are read once."""

    def __init__(self, archive: Archive, player: tuple[int, int, int]) -> None:
        import trimesh

        self.scene = trimesh.Scene()
        self._archive, self._player = archive, player
        self._pictures: dict[tuple[str, str, tuple[int, int, int]], Image.Image] = {}

    def hang(self, name: str, place: NDArray, depth: int) -> None:
        """Add an actor at a place (4, 4), and its props down to a depth."""
        actor = read_actor(name, self._archive.read)
        if actor.material.startswith(_NOT_SHOWN):
            return
        places: dict[str, NDArray] = {}
        if actor.mesh is not None:
            mesh = self._archive.mesh(actor.mesh)
            places = mesh.props
            if actor.texture is not None:
                self.scene.add_geometry(_textured(mesh, self._picture(actor, actor.texture)), transform=place)
        if depth == 0:
            return
        for point, props in actor.props.items():
            offset = places.get(point, np.eye(4) if point == "root" else None)
            for prop in props:
                if offset is not None and not prop.startswith(_NO_PROPS):
                    self.hang(prop, place @ offset, depth - 1)

    def _picture(self, actor: Actor, texture: str) -> Image.Image:
        key = (texture, actor.material, actor.colour)
        if key not in self._pictures:
            self._pictures[key] = _paint(self._archive.texture(texture), actor, self._player)
        return self._pictures[key]


def _textured(mesh: PmdMesh, picture: Image.Image) -> trimesh.Trimesh:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    return trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=mesh.uv, material=SimpleMaterial(image=picture)),
        process=False,
    )


def _paint(picture: Image.Image, actor: Actor, player: tuple[int, int, int]) -> Image.Image:
    """Alpha means what the material says: transparency, where the player's colour goes, or nothing."""
    from PIL import Image

    rgba = picture.convert("RGBA")
    if actor.material.startswith(_SEE_THROUGH):
        return rgba
    if not actor.material.startswith(("player", "objectcolor")):
        return rgba.convert("RGB")
    colour = actor.colour if actor.material.startswith("objectcolor") else player
    return Image.composite(rgba.convert("RGB"), Image.new("RGB", rgba.size, colour), rgba.getchannel("A"))
