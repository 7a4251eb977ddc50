"""Which objects: the options that verbs share, and ``python -m render list``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError

if TYPE_CHECKING:
    from render.sources import SourceObject


@dataclass(frozen=True)
class ObjectOptions:
    """Where objects come from, and which of them are taken."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A mesh file, a library, game data, a folder of them, or objaverse:..."""
    skins_per_shape: int | None = None
    """At most so many objects that differ in their skin alone; all if not given."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Object ids, patterns of them, or files of either, one a line; all objects if not given."""
    limit: int | None = None
    """Only so many of them, the first ones."""
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Lines of an object id or pattern, and its side of the split; the others' are drawn by their shape."""
    licence: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Licence of objects whose source tells none, such as your meshes."""
    grey: bool = False
    """Render meshes without any colour in grey; else they are left out."""
    group: int | None = None
    """Scenes of so many objects each, not single ones."""

    def find(self) -> list[SourceObject]:
        """The objects that these options ask for.

        Raises:
            Mv3dError: if there are none, or an option is of none.
        """
        from render.sources import find_objects, limit_skins
        from render.sources.group import grouped
        from render.sources.selection import choose, in_grey, licensed, on_sides

        if self.skins_per_shape is not None and self.skins_per_shape < 1:
            raise Mv3dError(f"{self.skins_per_shape} skins a shape: give 1 or more", argument="skins_per_shape")
        objects = find_objects(self.source)
        objects = objects if self.split is None else on_sides(objects, self.split)
        objects = objects if self.licence is None else licensed(objects, self.licence)
        objects = in_grey(objects) if self.grey else objects
        objects = objects if self.skins_per_shape is None else limit_skins(objects, self.skins_per_shape)
        objects = choose(objects, self.only, self.limit)
        return objects if self.group is None else grouped(objects, self.group, seed=0)


@dataclass(frozen=True)
class ListVerb:
    """List the objects of SOURCE: id, name, category and licence, between tabs."""

    objects: Annotated[ObjectOptions, tyro.conf.arg(name="")]
    verbose: Verbose = False

    def run(self) -> int:
        """Print them; returns the exit code."""
        for item in self.objects.find():
            print("\t".join((item.object_id, item.name, item.category or "-", item.licence or "-")))
        return 0
