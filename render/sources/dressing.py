"""0 A.D.'s actors put together from its archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable
from render.sources.actors import Actor, read_actor
from render.sources.archive import Archive
from render.sources.base import Z_UP_FROM_Y_UP
from render.sources.paint import Colour, draw_colour, paint_over, textured_mesh

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

_DEEPEST = 6  # props of props
_NO_PROPS = ("particle/", "special/", "props/structures/decals/", "props/special/")
_SEE_THROUGH = ("basic_trans", "trans_wind", "blend", "basic_glow")
_NOT_SHOWN = ("aura", "waterfall", "player_water")
_PLAYER_COLOURS = ((46, 86, 160), (150, 30, 30), (56, 120, 40), (200, 170, 40), (110, 60, 130), (200, 110, 30))
_FROM_GAME = np.diag([1.0, 1.0, -1.0, 1.0])  # the game's axes are left-handed


def dress(archive: Archive, name: str, *, seed: str, props: bool = True) -> trimesh.Scene:
    """Put an actor and its ``props``, if they are wanted, together, Z up.

    Args:
        archive: the game's data.
        name: of the actor, inside art/actors.
        seed: draws the colour of the player whose the object is.
        props: hang what belongs to it on it.

    Raises:
        Unusable: if a mesh, a picture or an actor is missing or damaged.
    """
    dresser = _Dresser(archive, draw_colour(_PLAYER_COLOURS, seed))
    dresser.hang(name, np.eye(4), _DEEPEST if props else 0)
    if not dresser.scene.geometry:
        raise Unusable("nothing to see")  # water and auras are left out
    dresser.scene.apply_transform(Z_UP_FROM_Y_UP @ _FROM_GAME)
    return dresser.scene


class _Dresser:
    """Hangs actors into a scene; pictures that several of them wear are read once."""

    def __init__(self, archive: Archive, player: Colour) -> None:
        import trimesh

        self.scene = trimesh.Scene()
        self._archive, self._player = archive, player
        self._pictures: dict[tuple[str, str, Colour], Image.Image] = {}

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
                picture = self._picture(actor, actor.texture)
                self.scene.add_geometry(
                    textured_mesh(mesh.vertices, mesh.faces, mesh.normals, mesh.uv, picture), transform=place
                )
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


def _paint(picture: Image.Image, actor: Actor, player: Colour) -> Image.Image:
    """Alpha means what the material says: transparency, where the player's colour goes, or nothing."""
    rgba = picture.convert("RGBA")
    if actor.material.startswith(_SEE_THROUGH):
        return rgba
    if not actor.material.startswith(("player", "objectcolor")):
        return rgba.convert("RGB")
    return paint_over(rgba, actor.colour if actor.material.startswith("objectcolor") else player)
