"""The game 0 A.D.'s objects: people, animals, buildings, ships and plants, out of its ``public.zip``.

One object for each pair of a mesh and a picture, dressed as the first actor that uses them: a soldier has his head,
helmet and shield.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from render.errors import Unusable
from render.sources.actors import read_actor
from render.sources.archive import open_archive
from render.sources.base import SourceObject, slug
from render.sources.dressing import dress

if TYPE_CHECKING:
    import trimesh

_ARCHIVE = "public.zip"
_ACTORS = "art/actors/"
_NO_OBJECTS = ("particle/", "special/", "temp/", "campaigns/labels/", "props/special/", "props/structures/")
"""The last are pieces of buildings, which hang in the air without them."""
_FEWEST_FACES = 100
_LICENCE = "CC-BY-SA-3.0"
_AUTHOR = "Wildfire Games (0 A.D., www.wildfiregames.com)"


@dataclass(frozen=True, kw_only=True)
class ActorObject(SourceObject):
    """An actor, with everything that hangs on it."""

    def load(self) -> trimesh.Scene:
        """Load the actor in its meshes' rest pose."""
        return dress(open_archive(self.path), self._actor, seed=self.object_id)

    def load_identity(self) -> trimesh.Scene | None:
        """The mesh alone: two soldiers with other helmets are one shape, and may not be on both sides of the split."""
        return dress(open_archive(self.path), self._actor, seed=self.object_id, props=False)

    @property
    def _actor(self) -> str:
        return (self.member or "").removeprefix(_ACTORS)


def claims(path: Path) -> bool:
    """Take the archive by its name and what is in it."""
    return path.name == _ARCHIVE and bool(open_archive(path).actors)


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """One object for each pair of mesh and picture, in an order that mixes all kinds."""
    return [item for path in paths for item in _archive_objects(path)]


def _archive_objects(path: Path) -> list[ActorObject]:
    archive = open_archive(path)
    pairs: dict[tuple[str, str], ActorObject] = {}
    for name in sorted(archive.actors, key=lambda name: (name.startswith("props/"), name)):
        if name.startswith(_NO_OBJECTS):
            continue
        pair = (name, "")  # of its own, and reported, if it is damaged
        try:
            actor = read_actor(name, archive.read)
            if actor.mesh is None or actor.texture is None:
                continue
            if len(archive.mesh(actor.mesh).faces) < _FEWEST_FACES:
                continue
            pair = (actor.mesh, actor.texture)
        except Unusable:
            pass
        if pair not in pairs:
            pairs[pair] = _object(path, name, shape=pair[0])
    return sorted(pairs.values(), key=lambda item: hashlib.sha256(item.object_id.encode()).digest())


def _object(path: Path, name: str, shape: str) -> ActorObject:
    stem = name.removesuffix(".xml")
    return ActorObject(
        object_id="0ad/" + "/".join(slug(part) for part in stem.split("/")),
        name=stem.rsplit("/", 1)[-1].replace("_", " "),
        category=stem.rsplit("/", 1)[0],
        licence=_LICENCE,
        attribution=f"{stem} by {_AUTHOR}",
        path=path,
        member=_ACTORS + name,
        shape=shape,
    )
