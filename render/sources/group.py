"""Scenes of several objects: what a moving camera passes in a room, beside the single objects of all other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.sources.base import SourceObject
from render.sources.loading import LACKING, lacking_files

if TYPE_CHECKING:
    import trimesh

_CELL = 1.0  # side of the square in which one object stands
_LARGEST = 0.95 / 2**0.5  # extent of an object that stays in its cell however it is turned
_SMALLEST = 0.4


@dataclass(frozen=True, kw_only=True)
class Group(SourceObject):
    """Several objects on one floor, each in a cell of its own, of drawn sizes and turns."""

    parts: tuple[SourceObject, ...]

    @property
    def linear_colours(self) -> bool:
        """As all its parts have it."""
        return self.parts[0].linear_colours

    def load(self) -> trimesh.Scene:
        """Load all parts and put them beside one another.

        Raises:
            Unusable: if any part cannot be loaded or has no extent.
        """
        from trimesh.scene.scene import append_scenes

        rng = np.random.default_rng(list(self.object_id.encode()))
        columns = int(np.ceil(len(self.parts) ** 0.5))
        cells = rng.permutation(columns**2)[: len(self.parts)]
        placed, lacking = [], []
        for part, cell in zip(self.parts, cells.tolist(), strict=True):
            loaded = part.load()
            lacking += lacking_files(loaded)
            corner = np.array([cell % columns, cell // columns, 0.0]) * _CELL
            loaded.apply_transform(_placement(loaded, corner, rng))
            placed.append(loaded)
        scene = append_scenes(placed)
        scene.metadata[LACKING] = sorted(set(lacking))
        return scene


def grouped(objects: Sequence[SourceObject], size: int, seed: int) -> list[SourceObject]:
    """Draw scenes of ``size`` objects each; every object is in one, but for those that are too few for a last one.

    Raises:
        Mv3dError: if there are too few objects for any.
    """
    if not 2 <= size <= len(objects):
        raise Mv3dError(f"scenes of {size}: give 2 to the number of objects, which is {len(objects)}", argument="group")
    rng = np.random.default_rng([seed, size])
    groups: list[SourceObject] = []
    for linear in (False, True):  # a scene's colours are all of one kind
        alike = [item for item in objects if item.linear_colours == linear]
        mixed = [alike[k] for k in rng.permutation(len(alike))]
        chosen = [tuple(mixed[k : k + size]) for k in range(0, len(mixed) - size + 1, size)]
        groups += [_group(f"scenes-{size}-{seed}/{len(groups) + k:06d}", parts) for k, parts in enumerate(chosen)]
    return groups


def _group(object_id: str, parts: tuple[SourceObject, ...]) -> Group:
    return Group(
        object_id=object_id,
        name=", ".join(part.name for part in parts),
        licence=_joined([part.licence for part in parts]),
        attribution=_joined([part.attribution for part in parts]),
        path=Path(object_id),
        parts=parts,
    )


def _joined(texts: list[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(text for text in texts if text)) or None


def _placement(loaded: trimesh.Scene, corner: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """Bring a loaded object to a drawn size and turn in the middle of a cell, standing on the floor, (4, 4)."""
    from scipy.spatial.transform import Rotation

    bounds = loaded.bounds
    if bounds is None or not np.ptp(bounds, axis=0).max() > 0:
        raise Unusable("a part without extent")
    scale = rng.uniform(_SMALLEST, _LARGEST) / np.ptp(bounds, axis=0).max()
    turn = np.eye(4)
    turn[:3, :3] = scale * Rotation.from_euler("z", rng.uniform(0, 360), degrees=True).as_matrix()
    foot = np.array([*bounds.mean(axis=0)[:2], bounds[0, 2]])
    turn[:3, 3] = corner + (_CELL / 2, _CELL / 2, 0) - turn[:3, :3] @ foot
    return turn
